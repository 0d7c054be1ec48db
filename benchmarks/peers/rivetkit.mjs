// The benchmark's actor in RivetKit. Prints "ready" when the engine can reach it.

import { actor, setup } from "rivetkit";

const room = actor({
	state: {},
	options: { noSleep: true },
	actions: {
		post: (c, id, text) => {
			c.broadcast("message", { id, text });
		},
		ready: () => {},
		echo: (_c, text) => text,
	},
});

const registry = setup({
	use: { room },
	endpoint: process.env.ENGINE,
	startEngine: false,
	startServices: false,
	noWelcome: true,
	logging: { level: "error" },
});

registry.start();
await registry.ready?.();
process.stdout.write("ready\n");
