// Finding actors: get, getOrCreate, create, resolve, getForId, keys, input, destroy.

import { assert, check, endpoint, eventually, finish, freshKey, newClient, rejects } from "./harness.mjs";

const client = newClient();

await check("metadata answers JSON", async () => {
	const response = await fetch(`${endpoint}/metadata?namespace=default`);
	assert.equal(response.status, 200);
	assert.equal(typeof (await response.json()), "object");
});

await check("get of a missing actor is not_found", async () => {
	const start = performance.now();
	const error = await rejects(client.counter.get([freshKey("missing")]).getCount(), "actor", "not_found");
	assert.ok(error.message.length > 0);
	return `${Math.round(performance.now() - start)} ms of the client's own retries`;
});

await check("resolving a missing actor is not_found", async () => {
	await rejects(client.counter.get([freshKey("missing")]).resolve(), "actor", "not_found");
});

await check("getForId of an unknown id is an error", async () => {
	const id = await client.counter.getOrCreate([freshKey("template")]).resolve();
	const unknown = (id[0] === "a" ? "b" : "a") + id.slice(1);
	let error;
	try {
		await client.counter.getForId(unknown).getCount();
	} catch (caught) {
		error = caught;
	}
	assert.ok(error?.group, "an error with a group");
	return `${error.group}.${error.code}`;
});

await check("getOrCreate finds the same actor again, by key and by id", async () => {
	const key = freshKey("same");
	const handle = client.counter.getOrCreate([key]);
	const id = await handle.resolve();
	assert.equal(await handle.increment(7), 7);
	assert.equal(await client.counter.getOrCreate(key).resolve(), id);
	assert.equal(await client.counter.get([key]).resolve(), id);
	assert.equal(await client.counter.get([key]).getCount(), 7);
	assert.equal(await client.counter.getForId(id).getCount(), 7);
	const connection = client.counter.getForId(id).connect();
	assert.equal(await connection.getCount(), 7);
	assert.equal(connection.actorId, id);
	await connection.dispose();
});

await check("one key names different actors of different names", async () => {
	const key = freshKey("shared");
	assert.notEqual(await client.counter.getOrCreate([key]).resolve(), await client.chatRoom.getOrCreate([key]).resolve());
});

await check("create makes an actor and refuses a duplicate", async () => {
	const key = freshKey("create");
	const handle = await client.probe.create([key], { input: { seats: 4, tags: ["a"] } });
	assert.deepEqual(await handle.getInput(), { seats: 4, tags: ["a"] });
	const error = await rejects(client.probe.create([key]), "actor", "duplicate_key");
	assert.equal(error.metadata?.existing_actor_id, await handle.resolve());
}, { rivetkitRace: "it answers actor.destroyed_during_creation at times" });

await check("twenty first callers at once find one actor", async () => {
	const key = freshKey("together");
	const calls = Array.from({ length: 20 }, () => client.counter.getOrCreate([key]).increment(1));
	const counts = await Promise.all(calls);
	assert.deepEqual(counts.sort((one, other) => one - other), Array.from({ length: 20 }, (_, index) => index + 1));
}, { rivetkitRace: "it answers actor.destroyed_during_creation to some of them, or nothing" });

await check("createWithInput gives the input to the first creation only", async () => {
	const key = freshKey("input");
	const first = client.probe.getOrCreate([key], { createWithInput: { word: "hëllo", big: 12345678901234567890n } });
	assert.deepEqual(await first.getInput(), { word: "hëllo", big: 12345678901234567890n });
	const second = client.probe.getOrCreate([key], { createWithInput: "other" });
	assert.deepEqual(await second.getInput(), { word: "hëllo", big: 12345678901234567890n });
});

await check("an actor without input has none", async () => {
	assert.equal((await client.probe.getOrCreate([freshKey("input")]).getInput()) ?? null, null);
});

await check("keys are lists of any strings", async () => {
	for (const key of [["a", "b"], [freshKey("k"), "ünï ✓"], ["with/slash", "back\\slash"], ["space and + plus", "a=b&c"]]) {
		const handle = client.probe.getOrCreate(key);
		const where = await handle.where();
		assert.deepEqual(where.key, key);
		assert.equal(where.name, "probe");
		assert.equal(await client.probe.get(key).resolve(), where.actorId);
	}
});

await check("no key is a key", async () => {
	const where = await client.probe.getOrCreate().where();
	assert.deepEqual(where.key, []);
	assert.equal(await client.probe.getOrCreate([]).resolve(), where.actorId);
});

await check("a destroyed actor is gone, and its key is free again", async () => {
	const key = freshKey("destroy");
	const handle = await client.probe.create([key], { input: "first" });
	const id = await handle.resolve();
	await handle.destroy();
	await eventually(async () => {
		try {
			await client.probe.get([key]).resolve();
			return false;
		} catch (error) {
			return error.code === "not_found";
		}
	}, "not_found");
	await rejects(client.probe.getForId(id).getInput(), "actor", "not_found");
	const again = client.probe.getOrCreate([key], { createWithInput: "second" });
	assert.equal(await again.getInput(), "second");
	assert.notEqual(await again.resolve(), id);
});

await check("a client configured with a token, a namespace and headers works", async () => {
	const other = newClient({ token: "s3cr et", namespace: "default", headers: { "x-extra": "1" } });
	const handle = other.counter.getOrCreate([freshKey("token")]);
	assert.equal(await handle.increment(1), 1);
	const connection = handle.connect();
	assert.equal(await connection.increment(1), 2);
	await connection.dispose();
});

await check("skipReadyWait changes nothing for a running actor", async () => {
	const other = newClient({ gateway: { skipReadyWait: true } });
	const handle = other.counter.getOrCreate([freshKey("skip")]);
	const id = await handle.resolve();
	assert.equal(await handle.increment(1), 1);
	const connection = other.counter.getForId(id).connect();
	assert.equal(await connection.increment(1), 2);
	await connection.dispose();
});

await finish();
