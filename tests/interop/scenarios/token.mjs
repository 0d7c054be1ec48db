// A server that wants a token: with it everything works, without it every way in is refused by name.

import { assert, check, delay, endpoint, finish, freshKey, newClient, record, within } from "./harness.mjs";

const token = "s3cr-et~token.0";
const guarded = (options) => newClient({ endpoint, ...options });

for (const [where, options] of Object.entries({
	"as an option": { token },
	"in the endpoint": { endpoint: endpoint.replace("://", `://default:${token}@`) },
})) {
	const client = guarded(options);
	const key = freshKey("token");

	await check(`token ${where}: calls`, async () => {
		assert.equal(await client.counter.getOrCreate([key]).increment(2), 2);
	});
	await check(`token ${where}: by id`, async () => {
		const id = await client.counter.getOrCreate([key]).resolve();
		assert.equal(await client.counter.getForId(id).increment(3), 5);
		const skipping = client.counter.getForId(id, { gateway: { skipReadyWait: true } });
		assert.equal(await skipping.connect().increment(1), 6);
	});
	await check(`token ${where}: connections`, async () => {
		const connection = client.counter.getOrCreate([key]).connect();
		const counts = record(connection, "newCount");
		assert.equal(await connection.increment(1), 7);
		assert.deepEqual(counts.values(), [7]);
		await connection.dispose();
	});
}

for (const [what, options] of Object.entries({ "no token": {}, "a wrong token": { token: "wrong" } })) {
	const client = guarded(options);
	const unauthorized = (error) => error.group === "api" && error.code === "unauthorized";

	await check(`${what}: calls are refused`, async () => {
		await assert.rejects(client.counter.getOrCreate([freshKey("none")]).increment(1), unauthorized);
	});
	await check(`${what}: looking up and creating are refused`, async () => {
		await assert.rejects(client.counter.getOrCreate([freshKey("none")]).resolve(), unauthorized);
		await assert.rejects(client.counter.create([freshKey("none")]), unauthorized);
	});
	await check(`${what}: connections are refused`, async () => {
		const connection = client.counter.getOrCreate([freshKey("none")]).connect();
		const error = await within(5000, new Promise((resolve) => connection.onError(resolve)), "onError");
		assert.ok(unauthorized(error), `${error.group}.${error.code}`);
		await delay(50);
		assert.notEqual(connection.connStatus, "connected");
	});
}

await finish();
