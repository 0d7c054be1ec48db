// Values there and back: what JavaScript sends is what the actor sees, and what it gets again.

import { assert, check, encoding, finish, freshKey, newClient, opened, record } from "./harness.mjs";

const client = newClient();
const json = encoding === "json";

/** One form for values that have several: bytes as a list, maps as objects, sets in one order: Python's have none. */
function normal(value) {
	if (value instanceof ArrayBuffer) return { bytes: Array.from(new Uint8Array(value)) };
	if (ArrayBuffer.isView(value)) return { bytes: Array.from(new Uint8Array(value.buffer, value.byteOffset, value.byteLength)) };
	if (value instanceof Date) return { date: value.toISOString() };
	if (value instanceof Set) return { set: [...value].map((item) => JSON.stringify(normal(item))).sort() };
	if (value instanceof Map) return normal(Object.fromEntries(value));
	if (Array.isArray(value)) return value.map(normal);
	if (value && typeof value === "object") {
		return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, normal(item)]));
	}
	return value;
}

const date = new Date("2026-01-02T03:04:05.678Z");
const bytes = Uint8Array.from([0, 1, 127, 128, 255]);

// Name, value, what the actor calls it, and a check of what comes back where that is not simply the same.
// The client's JSON has no Date, Map or Set, and turns undefined in a list into null: those rows say what it sends.
const cases = [
	["null", null, "null"],
	["booleans", true, "boolean"],
	["an integer", 42, "integer"],
	["a negative integer", -1_000_000, "integer"],
	["2^32 and around", [2 ** 32 - 1, 2 ** 32, 2 ** 32 + 1, -(2 ** 32), -(2 ** 32) - 1], "array"],
	["the safe integers' ends", [Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER], "array"],
	["a millisecond timestamp", 1_795_447_373_779, "integer"],
	["floats", [0.5, -1.25, 1e300, 5e-324, 0.1], "array"],
	["a float", 0.5, "float"],
	["text", "snow ☃, astral 𝄞, quote \" and \\", "string"],
	["an empty text", "", "string"],
	["nested lists and objects", { a: [1, { b: [[], {}] }], c: null }, "object"],
	["an object with odd names", { "": 1, "a.b": 2, $x: 3, snake_case: 4, camelCase: 5, __proto: 6 }, "object"],
	["a small BigInt", 5n, "integer", { back: (value) => assert.equal(BigInt(value), 5n) }],
	["a 64-bit BigInt", 12345678901234567890n, "integer"],
	["a huge negative BigInt", -(2n ** 100n), "integer"],
	["a pair that looks like a marker", ["$x", 1], "array"],
	["markers in depth", { list: [["$BigInt", "no"], ["$$Set", [1]], ["$Undefined", 0]], pair: ["$x", ["$y", 2]] }, "object"],
	["a Uint8Array", bytes, "bytes"],
	["an ArrayBuffer", bytes.buffer, "bytes"],
	["bytes within an object", { payload: bytes }, "object"],
	["undefined", undefined, json ? "null" : "undefined", { back: (value) => assert.equal(value ?? null, null) }],
	["an undefined property", { a: 1, b: undefined }, "object", { back: (value) => assert.deepEqual([value.a, value.b], [1, undefined]) }],
	["a Date", date, json ? "string" : "date", json ? { back: (value) => assert.equal(value, date.toISOString()) } : {}],
	...(json
		? []
		: [
				["a Set", new Set([1, "two"]), "set"],
				["a Map", new Map([["one", 1], ["two", [2]]]), "object"],
			]),
];

// RivetKit 2.3.19's own faults, found by running this file against it.
const refused = "it refuses this CBOR item";
const revived = "it takes cbor-x's plain data for its own markers";
const nulled = "undefined becomes null";
const widened = "integers of 2^32 and more come back as BigInt";
const faults = {
	bare: {},
	cbor: {
		"a huge negative BigInt": refused,
		"a Uint8Array": refused,
		"an ArrayBuffer": refused,
		"bytes within an object": refused,
		"a Date": refused,
		"a Set": refused,
		"a Map": refused,
		"a pair that looks like a marker": revived,
		"markers in depth": revived,
		undefined: nulled,
		"an undefined property": nulled,
	},
	json: {
		"2^32 and around": widened,
		"the safe integers' ends": widened,
		"a millisecond timestamp": widened,
	},
};

function compare(value, back, options) {
	if (options?.back) options.back(back);
	else assert.deepEqual(normal(back), normal(value));
}

for (const [name, value, kind, options] of cases) {
	const limits = { rivetkitFault: faults[encoding][name] };
	await check(
		`connection: ${name}`,
		async () => {
			const connection = client.probe.getOrCreate(["values"]).connect();
			const values = record(connection, "value");
			await opened(connection);
			assert.equal(await connection.describe(value), kind);
			compare(value, await connection.echo(value), options);
			await connection.emitValue(value);
			assert.equal(values.received.length, 1);
			compare(value, values.first(), options);
			await connection.dispose();
		},
		limits,
	);
	await check(
		`stateless: ${name}`,
		async () => {
			const handle = client.probe.getOrCreate(["values"]);
			assert.equal(await handle.describe(value), kind);
			compare(value, await handle.echo(value), options);
		},
		limits,
	);
}

await check("an action that returns nothing resolves to nothing", async () => {
	const connection = client.probe.getOrCreate([freshKey("nothing")]).connect();
	assert.equal((await connection.emitValue(1)) ?? null, null);
	await connection.dispose();
});

await finish();
