// Passes what the controller sends on to all subscribers, with the `ws` package. Ends when its standard input does.

import { WebSocketServer } from "ws";

const server = new WebSocketServer({ host: "127.0.0.1", port: 0, backlog: 4096 });
const subscribers = new Set();

server.on("listening", () => console.log(server.address().port));
server.on("connection", (socket, request) => {
	if (request.url === "/controller") {
		socket.on("message", (data, isBinary) => {
			for (const subscriber of subscribers) subscriber.send(data, { binary: isBinary });
		});
	} else {
		subscribers.add(socket);
		socket.on("close", () => subscribers.delete(socket));
	}
});
process.stdin.on("end", () => process.exit()).resume();
