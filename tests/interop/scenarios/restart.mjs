// A server that is replaced under a live connection. Whoever runs this replaces the server when it reads the line
// {"ready": true}; the listening socket stays open all the time.
//
// With IDLE=1 the line comes only when Node has closed its idle HTTP connections (after 4 s). Node opens WebSockets over
// those too, and when the server was killed without a word it may pick one that is dead and that it has not yet noticed:
// then the client stays "connecting" for ever. A server that ends in order closes them, so that this cannot happen.

import { writeSync } from "node:fs";
import { assert, check, delay, eventually, finish, freshKey, newClient, record } from "./harness.mjs";

const client = newClient();
const connection = client.counter.getOrCreate([freshKey("restart")]).connect();
const counts = record(connection, "newCount");
const errors = [];
const statuses = [];
connection.onError((error) => errors.push(`${error.group}.${error.code}`));
connection.onStatusChange((status) => statuses.push(status));

await check("before the restart the connection works", async () => {
	assert.equal(await connection.increment(5), 5);
	assert.deepEqual(counts.values(), [5]);
});
const before = connection.connId;
if (process.env.IDLE) await delay(5500);
const story = () => `${statuses.join(", ")}; errors: ${errors.join(", ") || "none"}`;

await check(
	"the connection survives the restart of the server",
	async () => {
		writeSync(1, `${JSON.stringify({ ready: true })}\n`);
		await eventually(() => connection.connId !== before && connection.connStatus === "connected", story, 25_000);
		return story();
	},
	{ timeout: 30_000 },
);

await check("after the restart calls and events work, without subscribing again", async () => {
	const already = counts.received.length;
	const answer = await connection.increment(1);
	assert.deepEqual(counts.values().slice(already), [answer]);
	return `the count is ${answer}`;
});

await check("a stateless call works after the restart", async () => {
	assert.equal(await client.counter.getOrCreate([freshKey("restart")]).increment(1), 1);
});

await finish();
