"""Sessions over streams: what a transport still holds when another takes over."""

import json
from collections.abc import Callable
from typing import Final

import trio
import trio.testing
from wsproto.events import BytesMessage, TextMessage

from tests.server.support import WebSocketPeer, open_world, to

EXTENDED: Final = ("rivet", "rivet_encoding.json", "trivet.1")


class Breaking(trio.abc.HalfCloseableStream):
    """The server's end of a connection whose way out breaks at a point that the test chooses."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self._stream = stream
        self.before_break: Callable[[], None] | None = None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.before_break is not None:
            await trio.testing.wait_all_tasks_blocked()  # the reader waits for more
            self.before_break()
            raise trio.BrokenResourceError
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()


async def extension_message(peer: WebSocketPeer) -> list[object]:
    """The next message of the extension, whatever comes before it."""
    while True:
        event = await peer.next_event()
        if isinstance(event, BytesMessage):
            message: list[object] = json.loads(event.data)
            return message
        assert isinstance(event, TextMessage), event


async def test_what_a_broken_transport_still_holds_is_left_to_the_next_one() -> None:
    async with open_world() as world:
        ours, theirs = trio.testing.memory_stream_pair()
        breaking = Breaking(theirs)
        world.serve(breaking)
        peer = await WebSocketPeer(ours).open(to("/connect"), EXTENDED)
        kind, token, _ = await extension_message(peer)
        assert kind == "session"
        await peer.send(BytesMessage(data=json.dumps(["subscribe", 1, "said"]).encode()))
        assert await extension_message(peer) == ["subscribed", 1]

        # A message and an acknowledgement are read in the moment in which the way out breaks.
        late = peer.ws.send(
            TextMessage(data='{"body":{"tag":"ActionRequest","val":{"id":2,"name":"say","args":["b"]}}}')
        )
        late += peer.ws.send(BytesMessage(data=json.dumps(["ack", 1]).encode()))
        breaking.before_break = lambda: theirs.receive_stream.put_data(late)
        await peer.send_text('{"body":{"tag":"ActionRequest","val":{"id":1,"name":"say","args":["a"]}}}')
        await trio.testing.wait_all_tasks_blocked()

        back = await WebSocketPeer(world.stream()).open(to("/connect"), (*EXTENDED, f"trivet_session.{token}.1"))
        assert await extension_message(back) == ["resumed", 2]
        await back.send(BytesMessage(data=json.dumps(["sync", 3]).encode()))
        said: list[str] = []
        while True:
            event = await back.next_event()
            if isinstance(event, BytesMessage):
                assert json.loads(event.data) == ["synced", 3]
                break
            assert isinstance(event, TextMessage), event
            body = json.loads(event.data)["body"]
            if body["tag"] == "ActionResponse":
                said.append(body["val"]["output"])
        assert said == ["a"]
