// RivetKit's page on events, statement by statement, with its own examples.

import { assert, check, created, encoding, endpoint, eventually, finish, freshKey, newClient, opened, record, rejects } from "./harness.mjs";
import { createClient } from "rivetkit/client";

const client = newClient();

await check("S1 events go from actors to clients, actions the other way", async () => {
	const connection = client.chatRoom.getOrCreate(["general"]).connect();
	const messages = record(connection, "messageReceived");
	await connection.sendMessage("user-1", "hello");
	assert.equal(messages.first().text, "hello");
	await connection.dispose();
});

await check("S2 only clients that called connect() get events; raw WebSockets see none", async () => {
	const handle = await created(client.probe.getOrCreate([freshKey("s2")]));
	const socket = await handle.webSocket("/");
	const raw = [];
	socket.addEventListener("message", ({ data }) => raw.push(data));
	const connection = handle.connect();
	const ticks = record(connection, "tick");
	await connection.echo(1);
	await handle.emitMany(3); // a handle that is not connected
	await ticks.count(3);
	socket.send("end");
	await eventually(() => raw.length >= 2, "echo");
	assert.deepEqual(raw, ["welcome", "end"]);
	socket.close();
	await connection.dispose();
});

await check("S3 broadcast reaches all connected clients", async () => {
	const handle = await created(client.chatRoom.getOrCreate([freshKey("s3")]));
	const connections = [1, 2, 3].map(() => handle.connect());
	const inboxes = connections.map((connection) => record(connection, "messageReceived"));
	await Promise.all(connections.map((connection) => connection.getHistory()));
	await handle.sendMessage("user-1", "to all");
	await Promise.all(inboxes.map((inbox) => inbox.count(1)));
	for (const inbox of inboxes) assert.equal(inbox.first().text, "to all");
	await Promise.all(connections.map((connection) => connection.dispose()));
});

await check("S4 one action changes state, broadcasts and returns the value", async () => {
	const connection = client.chatRoom.getOrCreate([freshKey("s4")]).connect();
	const messages = record(connection, "messageReceived");
	const message = await connection.sendMessage("user-1", "hi");
	assert.deepEqual(messages.values(), [message]);
	assert.deepEqual(await connection.getHistory(), [message]);
	assert.equal(message.userId, "user-1");
	assert.equal(typeof message.id, "string");
	assert.equal(typeof message.timestamp, "number");
	await connection.dispose();
});

const room = await created(client.gameRoom.getOrCreate([freshKey("s5")]));
const [ada, bob] = ["ada", "bob"].map((playerId) => room.connect({ playerId, role: "moderator" }));
const [toAda, toBob] = [ada, bob].map((connection) => record(connection, "privateMessage"));
await check("S5 conn.send reaches the connection that a predicate found", async () => {
	await Promise.all([opened(ada), opened(bob)]);
	await ada.sendPrivateMessage("bob", "hello bob");
	await toBob.count(1);
	assert.equal(toBob.first().message, "hello bob");
	assert.deepEqual(toAda.received, []);
});

await check("S6 createConnState makes the connection's state, with its default", async () => {
	const plain = room.connect({ playerId: "carol" });
	assert.equal(await plain.getRole(), "player");
	assert.equal(await ada.getRole(), "moderator");
	await plain.dispose();
});

await check("S7 an action knows the state of the connection that called it", async () => {
	await bob.sendPrivateMessage("ada", "hello ada");
	await toAda.count(1);
	assert.equal(toAda.first().from, "bob");
});

await check("S8 a player that is not there is an error", async () => {
	const error = await rejects(ada.sendPrivateMessage("nobody", "?"), "user", "player_not_found");
	assert.equal(error.message, "Player not found or not connected");
});

await check("S9 all but the sender are told of a move", async () => {
	const [seenByAda, seenByBob] = [ada, bob].map((connection) => record(connection, "playerMoved"));
	await bob.getRole();
	await ada.updatePlayerPosition({ x: 10, y: 20 });
	await seenByBob.count(1);
	await ada.getRole();
	assert.deepEqual(seenByBob.values(), [{ playerId: "ada", position: { x: 10, y: 20 } }]);
	assert.deepEqual(seenByAda.received, []);
});

await check("S10 getOrCreate([key]).connect() returns without waiting", async () => {
	const connection = client.chatRoom.getOrCreate([freshKey("s10")]).connect();
	assert.ok(!(connection instanceof Promise));
	assert.notEqual(connection.connStatus, "connected");
	await opened(connection);
	await connection.dispose();
});

await check("S11 connect passes its parameters", async () => {
	const connection = client.gameRoom.getOrCreate([freshKey("s11")]).connect({ playerId: "player-123", role: "captain" });
	assert.equal(await connection.getRole(), "captain");
	await connection.dispose();
});

await check("S12 on receives the event's arguments in their places", async () => {
	const connection = client.probe.getOrCreate([freshKey("s12")]).connect();
	const triples = record(connection, "triple");
	await connection.emitArguments();
	assert.deepEqual(triples.received, [[1, "two", { three: 3 }]]);
	await connection.dispose();
});

await check("S13 actions are methods of the connection", async () => {
	const connection = client.chatRoom.getOrCreate([freshKey("s13")]).connect();
	assert.equal((await connection.sendMessage("user-1", "as a method")).text, "as a method");
	await connection.dispose();
});

await check("S14 once, for an event without payload", async () => {
	const calls = [];
	bob.once("gameStarted", (...args) => calls.push(args));
	await bob.getRole();
	await ada.startGame();
	await ada.startGame();
	await eventually(() => calls.length > 0, "gameStarted");
	await bob.getRole();
	assert.deepEqual(calls, [[]]);
});

await check("S15 on returns its unsubscribe", async () => {
	const handle = client.chatRoom.getOrCreate([freshKey("s15")]);
	const connection = handle.connect();
	const messages = record(connection, "messageReceived");
	await connection.sendMessage("user-1", "heard");
	messages.unsubscribe();
	await connection.sendMessage("user-1", "not heard");
	assert.deepEqual(messages.values().map((message) => message.text), ["heard"]);
	await connection.dispose();
});

await check("S16 createClient takes the address alone", async () => {
	const plain = createClient(endpoint);
	assert.equal(await plain.counter.getOrCreate([freshKey("s16")]).increment(2), 2);
	await plain.dispose();
	return `beside ${encoding}`;
});

await Promise.all([ada.dispose(), bob.dispose()]);
await finish();
