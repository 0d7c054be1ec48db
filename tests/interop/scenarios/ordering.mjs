// Order: events among themselves, and events before the response of the action that emitted them.

import { assert, check, created, delay, finish, freshKey, newClient, record } from "./harness.mjs";

const client = newClient();
const upTo = (count) => Array.from({ length: count }, (_, index) => index);

await check("500 events of one action arrive in order, before its response", async () => {
	const connection = client.probe.getOrCreate([freshKey("order")]).connect();
	const ticks = record(connection, "tick");
	assert.equal(await connection.emitMany(500), 500);
	assert.deepEqual(ticks.values(), upTo(500));
	await connection.dispose();
});

await check("ten connections see the same 500 events in the same order", async () => {
	const handle = await created(client.probe.getOrCreate([freshKey("order")]));
	const connections = upTo(10).map(() => handle.connect());
	const recordings = connections.map((connection) => record(connection, "tick"));
	await Promise.all(connections.map((connection) => connection.echo(1)));
	await connections[0].emitMany(500);
	await Promise.all(recordings.map((recording) => recording.count(500)));
	for (const recording of recordings) assert.deepEqual(recording.values(), upTo(500));
	await Promise.all(connections.map((connection) => connection.dispose()));
}, { rivetkitRace: "it takes seconds, and loses some of these 5000 events" });

await check("each of 100 calls sees its own event first", async () => {
	const connection = client.counter.getOrCreate([freshKey("own")]).connect();
	const counts = record(connection, "newCount");
	for (const expected of upTo(100).map((index) => index + 1)) {
		assert.equal(await connection.increment(1), expected);
		assert.equal(counts.received.length, expected);
	}
	assert.deepEqual(counts.values(), upTo(100).map((index) => index + 1));
	await connection.dispose();
});

await check("a subscription is in force for the next call of its connection", async () => {
	const connection = client.counter.getOrCreate([freshKey("subscribe")]).connect();
	await connection.getCount();
	for (let round = 1; round <= 20; round++) {
		const counts = record(connection, "newCount");
		await connection.increment(1);
		assert.deepEqual(counts.values(), [round]);
		counts.unsubscribe();
	}
	await connection.dispose();
});

await check(
	"100 pipelined calls of one connection start in the order they were sent",
	async () => {
		const connection = client.probe.getOrCreate([freshKey("pipeline")]).connect();
		const values = record(connection, "value");
		await Promise.all(upTo(100).map((index) => connection.emitValue(index)));
		assert.deepEqual(values.values(), upTo(100));
		await connection.dispose();
	},
	{ rivetkitRace: "it gives no order to the start of actions" },
);

await check("events of an unsubscribed name cost nothing and arrive nowhere", async () => {
	const connection = client.probe.getOrCreate([freshKey("silent")]).connect();
	const ticks = record(connection, "tick");
	await connection.echo(1);
	ticks.unsubscribe();
	await connection.emitMany(10);
	await delay(20);
	assert.deepEqual(ticks.received, []);
	await connection.dispose();
});

await finish();
