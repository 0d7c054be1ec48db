// What every scenario shares. A scenario is started as
//
//   node scenarios/NAME.mjs ENDPOINT ENCODING [PEER]
//
// where PEER is "trivet" (the default) or "rivetkit". Each check prints one JSON line, {name, ok, detail}, and the
// process exits with status 1 if any failed. The client is the npm package, as published.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { writeSync } from "node:fs";
import { createClient } from "rivetkit/client";

export { assert };

export const endpoint = process.argv[2] ?? process.env.ENDPOINT ?? "http://127.0.0.1:6420";
export const encoding = process.argv[3] ?? process.env.ENCODING ?? "bare";
export const peer = process.argv[4] ?? process.env.PEER ?? "trivet";

let failed = false;
const clients = [];

/** A client of the server under test; options go to createClient unchanged. */
export function newClient(options = {}) {
	const client = createClient({ endpoint, encoding, ...options });
	clients.push(client);
	return client;
}

/** A key that no other check uses. */
export const freshKey = (label) => `${label}-${randomUUID().slice(0, 8)}`;

export const delay = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Rejects when `promise` has not settled in time; everything awaited in a check that could hang goes through it. */
export async function within(milliseconds, promise, what = "promise") {
	let timer;
	const timeout = new Promise((_, reject) => {
		timer = setTimeout(() => reject(new Error(`${what}: nothing after ${milliseconds} ms`)), milliseconds);
	});
	try {
		return await Promise.race([promise, timeout]);
	} finally {
		clearTimeout(timer);
	}
}

/** Waits for a condition that only polling can see; `what` describes it, or what there was instead. */
export async function eventually(condition, what, milliseconds = 20_000) {
	const deadline = performance.now() + milliseconds;
	while (!(await condition())) {
		if (performance.now() > deadline) throw new Error(`${typeof what === "function" ? what() : what}: not within ${milliseconds} ms`);
		await delay(10);
	}
}

/**
 * Runs one check and reports it.
 *
 * `rivetkitFault` says why RivetKit itself cannot pass: against RivetKit the check must then fail, so that the remark
 * goes away on the day that RivetKit is mended. `rivetkitRace` says why it passes only sometimes: such a check is not
 * run against RivetKit at all.
 */
export async function check(name, body, { timeout = 30_000, rivetkitFault, rivetkitRace } = {}) {
	if (peer === "rivetkit" && rivetkitRace) {
		report(name, true, `not asked of RivetKit: ${rivetkitRace}`);
		return;
	}
	const expectFailure = peer === "rivetkit" && rivetkitFault;
	let ok = true;
	let detail = "";
	try {
		const result = await within(expectFailure ? Math.min(timeout, 3000) : timeout, body(), "check");
		if (typeof result === "string") detail = result;
		if (expectFailure) {
			ok = false;
			detail = `RivetKit passes now; drop the remark "${rivetkitFault}"`;
		}
	} catch (error) {
		detail = `${error?.name}: ${error?.message}`;
		if (expectFailure) detail = `expected of RivetKit (${rivetkitFault}): ${detail}`;
		else {
			ok = false;
			detail += `\n${error?.stack ?? ""}`;
		}
	}
	report(name, ok, detail);
}

function report(name, ok, detail) {
	failed ||= !ok;
	writeSync(1, `${JSON.stringify({ name, ok, detail })}\n`);
}

/** Subscribes and collects: each entry is the array of the listener's arguments. */
export function record(connection, name) {
	const received = [];
	const unsubscribe = connection.on(name, (...args) => received.push(args));
	return {
		received,
		unsubscribe,
		first: () => received[0]?.[0],
		values: () => received.map((args) => args[0]),
		count: (number, milliseconds = 20_000) =>
			eventually(() => received.length >= number, `${number} times "${name}", saw ${received.length}`, milliseconds),
	};
}

/** Creates the handle's actor, for checks that open several connections: RivetKit fails some of many first callers. */
export async function created(handle) {
	await handle.resolve();
	return handle;
}

/** Waits until the server has confirmed the connection. */
export async function opened(connection, milliseconds = 20_000) {
	await eventually(() => connection.connStatus === "connected", `connected (${connection.connStatus})`, milliseconds);
	return connection;
}

/** Asserts that a promise rejects with a RivetKit error of this group and code, and returns the error. */
export async function rejects(promise, group, code) {
	let error;
	try {
		const value = await promise;
		assert.fail(`expected ${group}.${code}, got a value: ${String(value)?.slice(0, 100)}`);
	} catch (caught) {
		error = caught;
	}
	assert.equal(`${error.group}.${error.code}`, `${group}.${code}`, `${error.name}: ${error.message}`);
	return error;
}

/** Disposes every client and ends the process, whatever still holds the event loop. */
export async function finish() {
	await Promise.allSettled(clients.map((client) => within(2000, client.dispose(), "dispose")));
	process.exit(failed ? 1 : 0);
}

process.on("unhandledRejection", (error) => {
	writeSync(2, `unhandled rejection: ${error?.stack ?? error}\n`);
});
