"""Passes what the controller sends on to all subscribers, with picows on uvloop."""

import asyncio
import sys

import picows
import uvloop

_subscribers: set[picows.WSTransport] = set()


class _Subscriber(picows.WSListener):
    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        _subscribers.add(transport)

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        _subscribers.discard(transport)


class _Controller(picows.WSListener):
    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type in (picows.WSMsgType.TEXT, picows.WSMsgType.BINARY):
            payload = frame.get_payload_as_bytes()
            for subscriber in _subscribers:
                subscriber.send(frame.msg_type, payload)


def _listener(request: picows.WSUpgradeRequest) -> picows.WSListener:
    return _Controller() if request.path == b"/controller" else _Subscriber()


async def main() -> None:
    """Serve until standard input ends."""
    server = await picows.ws_create_server(_listener, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(main())
