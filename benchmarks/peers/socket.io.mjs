// A room of Socket.IO's own server. Ends when its standard input does.

import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer();
const io = new Server(http, { transports: ["websocket"], pingInterval: 600_000 });

io.on("connection", (socket) => {
	if (socket.handshake.query.role === "subscriber") socket.join("subscribers");
	socket.on("post", (id, text) => io.to("subscribers").emit("message", { id, text }));
});
http.listen(0, "127.0.0.1", 4096, () => console.log(http.address().port));
process.stdin.on("end", () => process.exit()).resume();
