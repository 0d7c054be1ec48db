"""What Trio programs do without actors: `trio_server stream | channel | websocket | readme`.

`stream` answers an upgrade request and then sends back all bytes; with `channel` that is done by another task, which
gets them through a memory channel; `websocket` sends back each message of
trio-websocket; with `readme` each message of a connection that came by the path /controller goes to all others, by a
task for each of them, as trio-websocket's README sends one to a list of connections.
"""

import os
import sys
from collections.abc import Awaitable, Callable
from functools import partial

import trio
import trio_websocket

from trivet.bench.sockets import SWITCHED


async def _stream(stream: trio.SocketStream) -> None:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += await stream.receive_some(65536)
    await stream.send_all(SWITCHED)
    try:
        while data := await stream.receive_some(65536):
            await stream.send_all(data)
    except trio.BrokenResourceError:
        pass


async def _channel(stream: trio.SocketStream) -> None:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += await stream.receive_some(65536)
    await stream.send_all(SWITCHED)
    inbox, jobs = trio.open_memory_channel[bytes](100)

    async def answer() -> None:
        async for data in jobs:
            await stream.send_all(data)

    try:
        async with trio.open_nursery() as nursery, inbox:
            nursery.start_soon(answer)
            while data := await stream.receive_some(65536):
                inbox.send_nowait(data)
    except* trio.BrokenResourceError:
        pass


async def _websocket(request: trio_websocket.WebSocketRequest) -> None:
    websocket = await request.accept()
    try:
        while True:
            await websocket.send_message(await websocket.get_message())
    except trio_websocket.ConnectionClosed:
        pass


_subscribers: set[trio_websocket.WebSocketConnection] = set()


async def _readme(request: trio_websocket.WebSocketRequest) -> None:
    websocket = await request.accept()
    try:
        if request.path == "/controller":
            while True:
                message = await websocket.get_message()
                async with trio.open_nursery() as nursery:
                    for subscriber in _subscribers:
                        nursery.start_soon(subscriber.send_message, message)
        _subscribers.add(websocket)
        await websocket.get_message()
    except* trio_websocket.ConnectionClosed:
        pass


_STREAMS: dict[str, Callable[[trio.SocketStream], Awaitable[None]]] = {"stream": _stream, "channel": _channel}
_HANDLERS: dict[str, Callable[[trio_websocket.WebSocketRequest], Awaitable[None]]] = {
    "websocket": _websocket,
    "readme": _readme,
}


async def main(kind: str) -> None:
    """Serve until standard input ends."""
    async with trio.open_nursery() as nursery:
        if kind in _STREAMS:
            listeners = await nursery.start(partial(trio.serve_tcp, _STREAMS[kind], 0, host="127.0.0.1", backlog=4096))
            port = listeners[0].socket.getsockname()[1]
        else:
            serve = partial(trio_websocket.serve_websocket, _HANDLERS[kind], "127.0.0.1", 0, ssl_context=None)
            port = (await nursery.start(serve)).port
        print(port, flush=True)
        async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as parent:
            while await parent.receive_some(1024):
                pass
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
