// Actions, over a connection and stateless, and the errors that they answer with.

import { assert, check, created, finish, freshKey, newClient, opened, record, rejects } from "./harness.mjs";

const client = newClient();

for (const kind of ["connection", "stateless"]) {
	const open = async (actor, label) => {
		const handle = await created(client[actor].getOrCreate([freshKey(label)]));
		return kind === "connection" ? handle.connect() : handle;
	};
	const close = async (target) => {
		if (kind === "connection") await target.dispose();
	};
	const checkBoth = (name, body, options) => check(`${kind}: ${name}`, body, options);

	await checkBoth("an action changes state and returns", async () => {
		const counter = await open("counter", "counter");
		assert.equal(await counter.increment(5), 5);
		assert.equal(await counter.increment(-2), 3);
		assert.equal(await counter.getCount(), 3);
		await close(counter);
	});

	await checkBoth("absent arguments take their defaults", async () => {
		const target = await open("counter", "defaults");
		assert.equal(await target.increment(), 1);
		await close(target);
		const probe = await open("probe", "defaults");
		assert.equal(await probe.total(1, 2), 103);
		assert.equal(await probe.total(1, 2, 3), 6);
		await close(probe);
	});

	await checkBoth("a nested action has a dotted name", async () => {
		const probe = await open("probe", "nested");
		assert.equal(await probe.calculator.add(2, 3), 5);
		assert.equal(await probe.action({ name: "calculator.add", args: [4, 5] }), 9);
		await close(probe);
	});

	await checkBoth("a user error arrives with code and metadata", async () => {
		const probe = await open("probe", "errors");
		const error = await rejects(probe.fail("user"), "user", "not_allowed");
		assert.equal(error.message, "You cannot do that");
		assert.deepEqual(error.metadata, { field: "name", limit: 3 });
		await close(probe);
	});

	await checkBoth("a user error without a code is user_error", async () => {
		const probe = await open("probe", "errors");
		const error = await rejects(probe.fail("plain-user"), "user", "user_error");
		assert.equal(error.message, "Only a message");
		assert.equal(error.metadata ?? null, null);
		await close(probe);
	});

	await checkBoth("any other error is masked", async () => {
		const probe = await open("probe", "errors");
		const error = await rejects(probe.fail("internal"), "rivetkit", "internal_error");
		assert.ok(!JSON.stringify([error.message, error.metadata ?? null, error.stack]).includes("hunter2"));
		await close(probe);
	});

	await checkBoth("an unknown action is action_not_found", async () => {
		const probe = await open("probe", "unknown");
		await rejects(probe.noSuchAction(1), "actor", "action_not_found");
		assert.equal(await probe.echo("still here"), "still here");
		await close(probe);
	});

	await checkBoth("an action past its timeout is action_timed_out", async () => {
		const impatient = await open("impatient", "timeout");
		await rejects(impatient.dawdle(5000), "actor", "action_timed_out");
		assert.equal(await impatient.dawdle(1), "done");
		await close(impatient);
	});

	await checkBoth("many calls at once are each answered", async () => {
		const probe = await open("probe", "many");
		const answers = await Promise.all(Array.from({ length: 50 }, (_, index) => probe.echo(index)));
		assert.deepEqual(answers, Array.from({ length: 50 }, (_, index) => index));
		await close(probe);
	});
}

await check("an error names the actor", async () => {
	const key = freshKey("errors");
	const handle = client.probe.getOrCreate([key]);
	const actorId = await handle.resolve();
	const error = await rejects(handle.fail("user"), "user", "not_allowed");
	assert.equal(error.actor?.actorId, actorId);
	assert.equal(error.actor?.key, key);
});

await check("a stateless call carries its parameters and is a connection of its own", async () => {
	const handle = client.probe.getOrCreate([freshKey("stateless")], { params: { label: "Grace" } });
	const first = await handle.whoami();
	assert.equal(first.label, "Grace");
	const second = await handle.whoami();
	assert.notEqual(first.connId, second.connId);
	assert.equal(await handle.getDisconnects(), 2);
});

await check("a stateless call is refused like a connection", async () => {
	const handle = client.probe.getOrCreate([freshKey("deny")], { params: { deny: true } });
	const error = await rejects(handle.echo(1), "user", "denied");
	assert.equal(error.message, "No entry");
});

await check("actions called before the connection is open run in order", async () => {
	const connection = client.counter.getOrCreate([freshKey("queue")]).connect();
	const counts = record(connection, "newCount");
	const answers = await Promise.all([1, 1, 1, 1, 1].map((by) => connection.increment(by)));
	assert.deepEqual(answers, [1, 2, 3, 4, 5]);
	assert.deepEqual(counts.values(), [1, 2, 3, 4, 5]);
	await connection.dispose();
}, { rivetkitRace: "it gives no order to the start of actions" });

await check("an event emitted before an error arrives before it", async () => {
	const connection = client.probe.getOrCreate([freshKey("fail")]).connect();
	const ticks = record(connection, "tick");
	await opened(connection);
	await rejects(connection.emitAndFail(), "user", "after_event");
	assert.deepEqual(ticks.values(), [-1]);
	await connection.dispose();
});

await finish();
