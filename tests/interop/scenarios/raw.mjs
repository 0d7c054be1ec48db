// The actor's own HTTP handler and its own WebSocket handler.

import { assert, check, delay, eventually, finish, freshKey, newClient, record, within } from "./harness.mjs";

const client = newClient();

/** Collects the messages of a raw socket, text as strings and binary as arrays of numbers. */
function collect(socket) {
	socket.binaryType = "arraybuffer";
	const messages = [];
	socket.addEventListener("message", ({ data }) => {
		messages.push(typeof data === "string" ? data : Array.from(new Uint8Array(data)));
	});
	return messages;
}

await check("fetch GET reaches onRequest", async () => {
	const response = await client.probe.getOrCreate([freshKey("fetch")]).fetch("/hello");
	assert.equal(response.status, 200);
	assert.equal(response.headers.get("x-probe"), "yes");
	assert.equal(response.headers.get("content-type").split(";")[0], "text/plain");
	assert.equal(await response.text(), "hello");
});

await check("fetch passes method, body, query, headers and status", async () => {
	const handle = client.probe.getOrCreate([freshKey("fetch")]);
	for (const method of ["POST", "PUT", "PATCH", "DELETE"]) {
		const response = await handle.fetch("echo?x=1&y=a%20b", { method, body: "bödy", headers: { "x-custom": "yes" } });
		assert.equal(response.status, 201);
		assert.equal(response.headers.get("x-method"), method);
		assert.equal(response.headers.get("x-query"), "?x=1&y=a%20b");
		assert.equal(response.headers.get("x-custom-seen"), "yes");
		assert.equal(await response.text(), "bödy");
	}
});

await check("fetch carries binary bodies, large ones too", async () => {
	const handle = client.probe.getOrCreate([freshKey("fetch")]);
	for (const size of [0, 256, 2_000_000]) {
		const body = Uint8Array.from({ length: size }, (_, index) => index % 251);
		const response = await handle.fetch("/echo", { method: "POST", body });
		const returned = new Uint8Array(await response.arrayBuffer());
		assert.equal(returned.length, size);
		assert.ok(Buffer.from(returned).equals(Buffer.from(body)));
	}
});

await check("fetch accepts a Request", async () => {
	const request = new Request("http://example.com/echo?q=1", { method: "POST", body: "from a request" });
	const response = await client.probe.getOrCreate([freshKey("fetch")]).fetch(request);
	assert.equal(response.headers.get("x-query"), "?q=1");
	assert.equal(await response.text(), "from a request");
});

await check("the handler's own statuses pass through", async () => {
	const response = await client.probe.getOrCreate([freshKey("fetch")]).fetch("/nowhere");
	assert.equal(response.status, 404);
	assert.equal(await response.text(), "nothing here");
});

await check("a handler that raises is a masked 500", async () => {
	const response = await client.probe.getOrCreate([freshKey("fetch")]).fetch("/boom");
	assert.equal(response.status, 500);
	const text = await response.text();
	assert.ok(!text.includes("hunter2"));
	const error = JSON.parse(text);
	assert.equal(`${error.group}.${error.code}`, "rivetkit.internal_error");
});

await check("an actor without onRequest answers an error", async () => {
	const response = await client.counter.getOrCreate([freshKey("fetch")]).fetch("/hello");
	assert.ok(response.status >= 400, `status ${response.status}`);
	return `status ${response.status}: ${(await response.text()).slice(0, 120)}`;
});

await check("a raw WebSocket carries text and binary both ways", async () => {
	const socket = await client.probe.getOrCreate([freshKey("socket")]).webSocket("/some/path?x=1");
	const messages = collect(socket);
	await eventually(() => messages.length === 1, "welcome");
	socket.send("tëxt");
	socket.send(Uint8Array.from([0, 1, 254, 255]));
	socket.send("");
	await eventually(() => messages.length === 4, "echoes");
	assert.deepEqual(messages, ["welcome", "tëxt", [0, 1, 254, 255], ""]);
	socket.close(1000, "done");
});

await check("a raw WebSocket's close code and reason pass through", async () => {
	const socket = await client.probe.getOrCreate([freshKey("socket")]).webSocket();
	const closed = new Promise((resolve) => socket.addEventListener("close", resolve));
	const messages = collect(socket);
	await eventually(() => messages.length === 1, "welcome");
	socket.send("close");
	const { code, reason } = await within(5000, closed, "close");
	assert.deepEqual([code, reason], [4001, "bye"]);
});

await check("a raw WebSocket carries a large message", async () => {
	const socket = await client.probe.getOrCreate([freshKey("socket")]).webSocket("/");
	const messages = collect(socket);
	await eventually(() => messages.length === 1, "welcome");
	const text = "x".repeat(1_500_000);
	socket.send(text);
	await eventually(() => messages.length === 2, "echo");
	assert.ok(messages[1] === text);
	socket.close();
});

await check("events have no effect on a raw WebSocket beside a subscriber", async () => {
	const handle = client.probe.getOrCreate([freshKey("beside")]);
	const socket = await handle.webSocket("/");
	const messages = collect(socket);
	await eventually(() => messages.length === 1, "welcome");
	const connection = handle.connect();
	const ticks = record(connection, "tick");
	assert.equal(await connection.emitMany(5), 5);
	assert.deepEqual(ticks.values(), [0, 1, 2, 3, 4]);
	socket.send("after");
	await eventually(() => messages.length >= 2, "echo");
	await delay(50);
	assert.deepEqual(messages, ["welcome", "after"]);
	socket.close();
	await connection.dispose();
});

await check("a raw WebSocket that speaks like a client is still only raw", async () => {
	const handle = client.probe.getOrCreate([freshKey("mimic")]);
	const socket = await handle.webSocket("/");
	const messages = collect(socket);
	await eventually(() => messages.length === 1, "welcome");
	const request = JSON.stringify({ body: { tag: "SubscriptionRequest", val: { eventName: "tick", subscribe: true } } });
	socket.send(request);
	await eventually(() => messages.length === 2, "echo");
	await handle.emitMany(3);
	socket.send("after");
	await eventually(() => messages.length >= 3, "echo");
	assert.deepEqual(messages, ["welcome", request, "after"]);
	socket.close();
});

await finish();
