// Message sizes at and over the limits: 64 KiB in, 1 MiB out.

import { assert, check, created, eventually, finish, freshKey, newClient, opened, record, rejects } from "./harness.mjs";

const client = newClient();

await check("connection: 60 KB in and 900 KB out", async () => {
	const connection = client.probe.getOrCreate([freshKey("sizes")]).connect();
	assert.equal(await connection.size("y".repeat(60_000)), 60_000);
	assert.equal((await connection.big(900_000)).length, 900_000);
	await connection.dispose();
});

await check("stateless: 60 KB in and 900 KB out", async () => {
	const handle = client.probe.getOrCreate([freshKey("sizes")]);
	assert.equal(await handle.size("y".repeat(60_000)), 60_000);
	assert.equal((await handle.big(900_000)).length, 900_000);
});

await check("an event of 900 KB arrives whole", async () => {
	const connection = client.probe.getOrCreate([freshKey("sizes")]).connect();
	const values = record(connection, "value");
	await connection.emitBig(900_000);
	assert.deepEqual(values.values().map((text) => text.length), [900_000]);
	await connection.dispose();
});

await check("stateless: too long a request is refused", async () => {
	await rejects(client.probe.getOrCreate([freshKey("sizes")]).size("y".repeat(70_000)), "message", "incoming_too_long");
});

await check("stateless: too long a response is refused", async () => {
	await rejects(client.probe.getOrCreate([freshKey("sizes")]).big(1_100_000), "message", "outgoing_too_long");
});

await check("connection: too long a response is that call's error, and the connection lives", async () => {
	const connection = client.probe.getOrCreate([freshKey("sizes")]).connect();
	await opened(connection);
	const { connId } = connection;
	await rejects(connection.big(1_100_000), "message", "outgoing_too_long");
	assert.equal(await connection.echo("alive"), "alive");
	assert.equal(connection.connId, connId);
	await connection.dispose();
});

await check("connection: too long a request ends the connection with its code", async () => {
	const connection = client.probe.getOrCreate([freshKey("sizes")]).connect();
	await opened(connection);
	const { connId } = connection;
	await rejects(connection.size("y".repeat(70_000)), "message", "incoming_too_long");
	await eventually(() => connection.connStatus === "connected" && connection.connId !== connId, "reconnected");
	assert.equal(await connection.echo("back"), "back");
	await connection.dispose();
});

await check(
	"too long an event is its emitter's error, and harms no subscriber",
	async () => {
		const handle = await created(client.probe.getOrCreate([freshKey("sizes")]));
		const [subscriber, emitter] = [handle.connect(), handle.connect()];
		const values = record(subscriber, "value");
		await subscriber.echo(1);
		const { connId } = subscriber;
		await rejects(emitter.emitBig(1_100_000), "message", "outgoing_too_long");
		await emitter.emitBig(10);
		await values.count(1);
		assert.equal(values.first().length, 10);
		assert.equal(subscriber.connId, connId);
		await Promise.all([subscriber.dispose(), emitter.dispose()]);
	},
	{ rivetkitFault: "an event over the limit closes every subscriber, and its emitter sees no error" },
);

await finish();
