"""A python-socketio server on uvicorn, as its documentation shows one."""

import asyncio
import socket
import sys

import socketio
import uvicorn

sio = socketio.AsyncServer(async_mode="asgi", ping_interval=600)


@sio.event
async def post(_sid: str, number: str, text: str) -> None:
    """To everybody who subscribed."""
    await sio.emit("message", {"id": number, "text": text}, room="subscribers")


@sio.event
async def connect(sid: str, environ: dict[str, str]) -> None:
    """A subscriber says so in its address."""
    if "role=subscriber" in environ["QUERY_STRING"]:
        await sio.enter_room(sid, "subscribers")


@sio.event
async def echo(_sid: str, text: str) -> str:
    """The answer of a call."""
    return text


async def main() -> None:
    """Serve until standard input ends."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    config = uvicorn.Config(socketio.ASGIApp(sio), log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    print(listener.getsockname()[1], flush=True)
    serving = asyncio.create_task(server.serve([listener]))
    await asyncio.to_thread(sys.stdin.read)
    server.should_exit = server.force_exit = True
    await serving


if __name__ == "__main__":
    asyncio.run(main())
