"""Passes what the controller sends on to all subscribers, with `websockets.broadcast()` on uvloop."""

import asyncio
import os
import sys

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed

_subscribers: set[ServerConnection] = set()


async def _handle(connection: ServerConnection) -> None:
    assert connection.request is not None
    if connection.request.path == "/controller":
        try:
            async for message in connection:
                broadcast(_subscribers, message)
        except ConnectionClosed:
            pass  # a load does not say goodbye
        return
    _subscribers.add(connection)
    try:
        await connection.wait_closed()
    finally:
        _subscribers.discard(connection)


async def main() -> None:
    """Serve until standard input ends."""
    async with serve(_handle, "127.0.0.1", 0, compression=None, backlog=4096) as server:
        print(next(iter(server.sockets)).getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)
        os._exit(0)  # closing thousands of connections one by one is nothing that is measured


if __name__ == "__main__":
    uvloop.run(main())
