// The page's script of the test with RivetKit's client; bundled by esbuild. The page has #endpoint and #encoding in its query.

import { createClient } from "rivetkit/client";

const query = new URLSearchParams(location.search);
const client = createClient({ endpoint: query.get("endpoint"), encoding: query.get("encoding") });
const results = {};

async function step(name, body) {
	try {
		results[name] = { value: await body() };
	} catch (error) {
		results[name] = { error: `${error.name}: ${error.message}`, group: error.group, code: error.code };
	}
}

/** Sends a request with a streamed body, as the client's stateless calls do, and says what the browser thinks of it. */
async function streamedFetch() {
	const body = new Blob(["{}"]).stream();
	try {
		return (await fetch(`${query.get("endpoint")}/metadata`, { method: "POST", body, duplex: "half" })).status;
	} catch (error) {
		return `${error.name}: ${error.message}`;
	}
}

const key = `browser-${Math.random()}`;
const counts = [];
const once = [];
const handle = client.counter.getOrCreate([key]);

await step("resolve", async () => typeof (await handle.resolve()));
const connection = handle.connect();
await step("connection", async () => {
	const unsubscribe = connection.on("newCount", (count) => counts.push(count));
	connection.once("newCount", (count) => once.push(count));
	const answers = [await connection.increment(2), await connection.increment(3)];
	unsubscribe();
	answers.push(await connection.increment(4));
	return { answers, counts, once };
});
await step("error", async () => await client.probe.getOrCreate([key]).connect().fail("user"));
await step("stateless", async () => await handle.getCount());
await step("get", async () => await (await client.probe.getOrCreate([key]).fetch("/hello")).text());
await step("post", async () => {
	const response = await client.probe.getOrCreate([key]).fetch("/echo", { method: "POST", body: "from a page" });
	return await response.text();
});
await step("plainPost", async () => {
	// What a page does instead of a stateless call: the same request with an ordinary body.
	const response = await fetch(`${await handle.getGatewayUrl()}`.replace(/\?|$/, (end) => `/action/getCount${end}`), {
		method: "POST",
		headers: { "content-type": "application/json", "x-rivet-encoding": "json" },
		body: JSON.stringify({ args: [] }),
	});
	return await response.json();
});
await step("streamedFetch", streamedFetch);
await step("websocket", async () => {
	const socket = await client.probe.getOrCreate([key]).webSocket("/");
	return await new Promise((resolve, reject) => {
		socket.addEventListener("message", ({ data }) => resolve(data));
		socket.addEventListener("close", ({ code, reason }) => reject(new Error(`${code} ${reason}`)));
	});
});
await step("dispose", async () => {
	await client.dispose();
	return "disposed";
});

await fetch("/result", { method: "POST", body: JSON.stringify(results) });
