// Live connections: parameters, listeners, broadcasts, targeted events, refusals, kicks and disposal.

import WebSocketPackage from "ws";
import { assert, check, created, delay, eventually, finish, freshKey, newClient, opened, record, rejects, within } from "./harness.mjs";

const client = newClient();

await check("connect returns at once and becomes connected, with ids", async () => {
	const connection = client.probe.getOrCreate([freshKey("open")]).connect();
	assert.notEqual(connection.connStatus, "connected");
	let opens = 0;
	connection.onOpen(() => opens++);
	await opened(connection);
	assert.equal(opens, 1);
	assert.equal(typeof connection.actorId, "string");
	assert.match(connection.connId, /^[0-9a-f]{8}-[0-9a-f]{4}-4/);
	const { connId } = await connection.whoami();
	assert.equal(connId, connection.connId);
	await connection.dispose();
});

await check("connection parameters reach the connection's state", async () => {
	const connection = client.probe.getOrCreate([freshKey("params")]).connect({ label: "Ünïcødé ✓" });
	const { params, label } = await connection.whoami();
	assert.deepEqual(params, { label: "Ünïcødé ✓" });
	assert.equal(label, "Ünïcødé ✓");
	await connection.dispose();
});

await check("a default stands in for a missing parameter", async () => {
	const connection = client.gameRoom.getOrCreate([freshKey("role")]).connect({ playerId: "p1" });
	assert.equal(await connection.getRole(), "player");
	await connection.dispose();
});

await check("getParams is asked for every connection", async () => {
	let calls = 0;
	const handle = await created(
		client.probe.getOrCreate([freshKey("get-params")], { getParams: async () => ({ label: `call-${++calls}` }) }),
	);
	const first = handle.connect();
	assert.equal((await first.whoami()).label, "call-1");
	const second = handle.connect();
	assert.equal((await second.whoami()).label, "call-2");
	await Promise.all([first.dispose(), second.dispose()]);
});

await check("two clients' connections get one broadcast each", async () => {
	const handle = await created(client.chatRoom.getOrCreate([freshKey("chat")]));
	const [alice, bob] = [handle.connect(), handle.connect()];
	const [toAlice, toBob] = [record(alice, "messageReceived"), record(bob, "messageReceived")];
	await Promise.all([opened(alice), opened(bob)]);
	await bob.getHistory(); // Bob's subscription is in force
	const message = await alice.sendMessage("alice", "hello everyone");
	await toBob.count(1);
	assert.deepEqual(toAlice.values(), [message]);
	assert.deepEqual(toBob.values(), [message]);
	assert.deepEqual(Object.keys(message).sort(), ["id", "text", "timestamp", "userId"]);
	await Promise.all([alice.dispose(), bob.dispose()]);
});

await check("a stateless call's broadcast reaches connections", async () => {
	const handle = await created(client.chatRoom.getOrCreate([freshKey("chat")]));
	const connection = handle.connect();
	const messages = record(connection, "messageReceived");
	await connection.getHistory();
	const message = await handle.sendMessage("bob", "over HTTP");
	await messages.count(1);
	assert.deepEqual(messages.values(), [message]);
	await connection.dispose();
});

await check("once fires once", async () => {
	const connection = client.counter.getOrCreate([freshKey("once")]).connect();
	const once = [];
	connection.once("newCount", (count) => once.push(count));
	await connection.increment(1);
	await connection.increment(1);
	assert.deepEqual(once, [1]);
	const all = record(connection, "newCount");
	await connection.increment(1);
	assert.deepEqual(all.values(), [3]);
	await connection.dispose();
});

await check("unsubscribe ends delivery, and a later listener starts it again", async () => {
	const connection = client.counter.getOrCreate([freshKey("unsubscribe")]).connect();
	const first = record(connection, "newCount");
	await connection.increment(1);
	first.unsubscribe();
	first.unsubscribe();
	await connection.increment(1);
	const second = record(connection, "newCount");
	await connection.increment(1);
	assert.deepEqual(first.values(), [1]);
	assert.deepEqual(second.values(), [3]);
	await connection.dispose();
});

await check("an event may have no argument, and several", async () => {
	const key = freshKey("arguments");
	const game = client.gameRoom.getOrCreate([key]).connect({ playerId: "p1" });
	const started = record(game, "gameStarted");
	await game.startGame();
	assert.deepEqual(started.received, [[]]);
	const connection = client.probe.getOrCreate([key]).connect();
	const triples = record(connection, "triple");
	await connection.emitArguments();
	assert.deepEqual(triples.received, [[1, "two", { three: 3 }]]);
	await Promise.all([game.dispose(), connection.dispose()]);
});

await check("a targeted event reaches its connection only", async () => {
	const room = await created(client.gameRoom.getOrCreate([freshKey("private")]));
	const [one, two, three] = ["p1", "p2", "p3"].map((playerId) => room.connect({ playerId }));
	const inboxes = [one, two, three].map((connection) => record(connection, "privateMessage"));
	await Promise.all([one, two, three].map((connection) => opened(connection)));
	await one.sendPrivateMessage("p2", "psst");
	await inboxes[1].count(1);
	const event = inboxes[1].first();
	assert.equal(event.from, "p1");
	assert.equal(event.message, "psst");
	assert.equal(typeof event.timestamp, "number");
	await three.getRole(); // whatever was sent to p3 before has arrived
	assert.deepEqual([inboxes[0].received, inboxes[2].received], [[], []]);
	const error = await rejects(one.sendPrivateMessage("nobody", "psst"), "user", "player_not_found");
	assert.equal(error.message, "Player not found or not connected");
	await Promise.all([one, two, three].map((connection) => connection.dispose()));
});

await check("all but the sender get an event", async () => {
	const room = await created(client.gameRoom.getOrCreate([freshKey("move")]));
	const [one, two, three] = ["p1", "p2", "p3"].map((playerId) => room.connect({ playerId }));
	const seen = [one, two, three].map((connection) => record(connection, "playerMoved"));
	await Promise.all([one, two, three].map((connection) => connection.getRole()));
	await one.updatePlayerPosition({ x: 3, y: 4 });
	await Promise.all([seen[1].count(1), seen[2].count(1)]);
	const moved = { playerId: "p1", position: { x: 3, y: 4 } };
	assert.deepEqual(seen.map((inbox) => inbox.values()), [[], [moved], [moved]]);
	await Promise.all([one, two, three].map((connection) => connection.dispose()));
});

await check("an event sent while connecting is delivered", async () => {
	const connection = client.probe.getOrCreate([freshKey("greeting")]).connect({ label: "Ada" });
	const greetings = record(connection, "greeting");
	await greetings.count(1);
	assert.deepEqual(greetings.values(), ["Ada"]);
	await connection.dispose();
});

await check("a refused connection reports its error", async () => {
	const connection = client.probe.getOrCreate([freshKey("deny")]).connect({ deny: true });
	const errors = [];
	connection.onError((error) => errors.push(error));
	await eventually(() => errors.length > 0, "onError");
	assert.equal(`${errors[0].group}.${errors[0].code}`, "user.denied");
	assert.equal(errors[0].message, "No entry");
	assert.notEqual(connection.connStatus, "connected");
	await connection.dispose();
});

await check("a kicked client comes back as a new connection, subscribed", async () => {
	const connection = client.probe.getOrCreate([freshKey("kick")]).connect({ label: "Ada" });
	const ticks = record(connection, "tick");
	await opened(connection);
	const before = connection.connId;
	const closes = [];
	connection.onClose(() => closes.push(1));
	await connection.kick("too loud").catch(() => {});
	await eventually(() => connection.connStatus === "connected" && connection.connId !== before, "reconnected");
	assert.equal(closes.length, 1);
	assert.equal((await connection.whoami()).label, "Ada");
	await connection.emitMany(2);
	assert.deepEqual(ticks.values(), [0, 1]);
	assert.equal(await connection.getDisconnects(), 1);
	await connection.dispose();
});

await check("a kick closes the socket with 1000 and the reason", async () => {
	const handle = client.probe.getOrCreate([freshKey("kick-raw")]);
	const url = await handle.getGatewayUrl();
	const address = url.replace(/^http/, "ws").replace(/(\/gateway\/[^/?]+)/, "$1/connect");
	const socket = new (globalThis.WebSocket ?? WebSocketPackage)(address, ["rivet", "rivet_encoding.json"]);
	const closed = new Promise((resolve) => socket.addEventListener("close", resolve));
	socket.addEventListener("message", ({ data }) => {
		if (JSON.parse(data).body.tag === "Init") {
			const call = { id: 0, name: "kick", args: ["too loud"] };
			socket.send(JSON.stringify({ body: { tag: "ActionRequest", val: call } }));
		}
	});
	const { code, reason } = await within(5000, closed, "close");
	assert.deepEqual([code, reason], [1000, "too loud"]);
});

await check("dispose is prompt, and the actor learns of it", async () => {
	const handle = await created(client.probe.getOrCreate([freshKey("dispose")]));
	const [leaving, staying] = [handle.connect(), handle.connect()];
	await Promise.all([opened(leaving), opened(staying)]);
	const start = performance.now();
	await leaving.dispose();
	const took = performance.now() - start;
	assert.ok(took < 1000, `took ${took} ms`);
	await eventually(async () => (await staying.getDisconnects()) === 1, "onDisconnect");
	await staying.dispose();
	return `${took.toFixed(1)} ms`;
});

await check("disposing a client disposes its connections", async () => {
	const other = newClient();
	const connection = other.probe.getOrCreate([freshKey("client-dispose")]).connect();
	await opened(connection);
	await within(1000, other.dispose(), "dispose");
	await delay(50);
	assert.notEqual(connection.connStatus, "connected");
});

await check("a connection to a missing actor reports actor.not_found", async () => {
	// A get handle retries silently until the actor exists: so it connects once somebody has created it.
	const key = freshKey("later");
	const connection = client.counter.get([key]).connect();
	await delay(300);
	assert.notEqual(connection.connStatus, "connected");
	await client.counter.create([key]);
	await opened(connection);
	assert.equal(await connection.getCount(), 0);
	await connection.dispose();
});

await finish();
