// The RivetKit twin of actors.py: the same actors, hosted by RivetKit on a real Rivet Engine.
//
//   ENGINE=http://127.0.0.1:PORT node registry.mjs
//
// It prints one line, "ready", when the engine can reach its actors.

import { randomUUID } from "node:crypto";
import { actor, setup, UserError } from "rivetkit";

const chatRoom = actor({
	state: { messages: [] },
	actions: {
		sendMessage: (c, userId, text) => {
			const message = { id: randomUUID(), userId, text, timestamp: Date.now() };
			c.state.messages.push(message);
			c.broadcast("messageReceived", message);
			return message;
		},
		getHistory: (c) => c.state.messages,
	},
});

const gameRoom = actor({
	state: { players: {} },
	createConnState: (_c, params) => ({
		playerId: params?.playerId ?? "spectator",
		role: params?.role ?? "player",
	}),
	actions: {
		sendPrivateMessage: (c, targetPlayerId, message) => {
			for (const conn of c.conns.values()) {
				if (conn.state.playerId === targetPlayerId) {
					conn.send("privateMessage", { from: c.conn.state.playerId, message, timestamp: Date.now() });
					return;
				}
			}
			throw new UserError("Player not found or not connected", { code: "player_not_found" });
		},
		updatePlayerPosition: (c, position) => {
			const playerId = c.conn.state.playerId;
			c.state.players[playerId] = { position };
			for (const conn of c.conns.values()) {
				if (conn.id !== c.conn.id) conn.send("playerMoved", { playerId, position });
			}
		},
		getPlayers: (c) => c.state.players,
		getRole: (c) => c.conn.state.role,
		startGame: (c) => {
			c.broadcast("gameStarted");
		},
	},
});

const counter = actor({
	state: { count: 0 },
	actions: {
		increment: (c, by = 1) => {
			c.state.count += by;
			c.broadcast("newCount", c.state.count);
			return c.state.count;
		},
		getCount: (c) => c.state.count,
	},
});

const impatient = actor({
	options: { actionTimeout: 300 },
	actions: {
		dawdle: async (_c, milliseconds) => {
			await new Promise((resolve) => setTimeout(resolve, milliseconds));
			return "done";
		},
	},
});

function describe(value) {
	if (value === null) return "null";
	if (typeof value === "bigint") return "integer";
	if (typeof value === "number") return Number.isInteger(value) ? "integer" : "float";
	if (value instanceof ArrayBuffer || ArrayBuffer.isView(value)) return "bytes";
	if (value instanceof Date) return "date";
	if (value instanceof Set) return "set";
	if (value instanceof Map) return "object";
	return Array.isArray(value) ? "array" : typeof value;
}

const probe = actor({
	createState: (_c, input) => ({ input: input ?? null, disconnects: 0 }),
	onBeforeConnect: (_c, params) => {
		if (params?.deny) throw new UserError("No entry", { code: "denied" });
	},
	createConnState: (_c, params) => ({ label: params?.label ?? "anonymous" }),
	onConnect: (_c, conn) => {
		conn.send("greeting", conn.state.label);
	},
	onDisconnect: (c) => {
		c.state.disconnects += 1;
	},
	actions: {
		echo: (_c, value) => value,
		describe: (_c, value) => describe(value),
		total: (_c, first, second, third = 100) => first + second + third,
		emitMany: (c, count) => {
			for (let index = 0; index < count; index++) c.broadcast("tick", index);
			return count;
		},
		emitValue: (c, value) => {
			c.broadcast("value", value);
		},
		emitArguments: (c) => {
			c.broadcast("triple", 1, "two", { three: 3 });
		},
		fail: (_c, kind) => {
			if (kind === "user") {
				throw new UserError("You cannot do that", { code: "not_allowed", metadata: { field: "name", limit: 3 } });
			}
			if (kind === "plain-user") throw new UserError("Only a message");
			throw new Error("the database password is hunter2");
		},
		emitAndFail: (c) => {
			c.broadcast("tick", -1);
			throw new UserError("After the event", { code: "after_event" });
		},
		kick: async (c, reason) => {
			await c.conn.disconnect(reason);
		},
		big: (_c, size) => "x".repeat(size),
		emitBig: (c, size) => {
			c.broadcast("value", "x".repeat(size));
		},
		size: (_c, text) => text.length,
		whoami: (c) => ({ params: c.conn.params ?? null, label: c.conn.state.label, connId: c.conn.id }),
		where: (c) => ({ actorId: c.actorId, name: c.name, key: c.key }),
		getInput: (c) => c.state.input,
		getDisconnects: (c) => c.state.disconnects,
		destroy: (c) => {
			c.destroy();
		},
		calculator: { add: (_c, first, second) => first + second },
	},
	onRequest: async (_c, request) => {
		const url = new URL(request.url);
		if (url.pathname === "/hello") {
			return new Response("hello", { headers: { "content-type": "text/plain", "x-probe": "yes" } });
		}
		if (url.pathname === "/echo") {
			const body = await request.arrayBuffer();
			return new Response(body, {
				status: 201,
				headers: {
					"content-type": "application/octet-stream",
					"x-method": request.method,
					"x-query": url.search,
					"x-custom-seen": request.headers.get("x-custom") ?? "",
				},
			});
		}
		if (url.pathname === "/boom") throw new Error("the database password is hunter2");
		return new Response("nothing here", { status: 404 });
	},
	onWebSocket: (_c, websocket) => {
		websocket.addEventListener("message", (event) => {
			if (event.data === "close") websocket.close(4001, "bye");
			else websocket.send(event.data);
		});
		websocket.send("welcome");
	},
});

const registry = setup({
	use: { chatRoom, gameRoom, counter, impatient, probe },
	endpoint: process.env.ENGINE,
	startEngine: false,
	startServices: false,
	noWelcome: true,
	logging: { level: "warn" },
});

registry.start();
await registry.ready?.();
process.stdout.write("ready\n");
