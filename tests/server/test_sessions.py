"""Sessions over streams: what a transport still holds when another takes over, and how many wait for their clients."""

import json
from collections.abc import Callable
from typing import Final

import attrs
import trio
import trio.testing
from wsproto.events import BytesMessage, TextMessage

from tests.server.support import WebSocketPeer, open_world, to
from tests.server.test_peers import ADDRESS, NONE, Crowd, crowd
from trivet.runtime.absence import Absence
from trivet.runtime.timers import Timers

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


# -- how many may wait ------------------------------------------------------------------------------------------------


async def comes_and_goes(world: Crowd, address: str = ADDRESS) -> str:
    """A session whose connection breaks; its token."""
    peer = await WebSocketPeer(world.stream(address)).open(to("/connect"), EXTENDED)
    _, token, _ = await extension_message(peer)
    await peer.stream.aclose()
    await trio.testing.wait_all_tasks_blocked()
    assert isinstance(token, str)
    return token


async def comes_back(world: Crowd, token: str) -> WebSocketPeer:
    peer = await WebSocketPeer(world.stream()).open(to("/connect"), (*EXTENDED, f"trivet_session.{token}.0"))
    assert (await extension_message(peer))[0] == "resumed"
    return peer


async def test_no_more_sessions_wait_than_there_may_be_connections(autojump_clock: trio.testing.MockClock) -> None:
    """Each is in its actor's `conns`, with all that is kept for it: a client must not come and go for ever."""
    async with crowd(attrs.evolve(NONE, connections=3)) as world:
        sessions = world.gateway.host.sessions
        tokens = [await comes_and_goes(world, f"192.0.2.{number}") for number in range(5)]
        assert list(sessions) == tokens[:3]
        assert world.gateway.host.statistics().connections == 3
        # They keep nobody out, and one that is back makes room for another.
        back = await comes_back(world, tokens[0])
        other = await comes_and_goes(world)
        assert list(sessions) == [*tokens[:3], other]
        await back.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert list(sessions) == [*tokens[1:3], other]
        await trio.sleep(world.gateway.limits.resume_window + 1)
        assert not sessions
        assert await comes_and_goes(world) in sessions


async def test_of_one_address_no_more_wait_than_it_may_have_connections(autojump_clock: trio.testing.MockClock) -> None:
    async with crowd(attrs.evolve(NONE, peer_connections=2)) as world:
        sessions = world.gateway.host.sessions
        tokens = [await comes_and_goes(world) for _ in range(4)]
        other = await comes_and_goes(world, "192.0.2.2")
        assert list(sessions) == [*tokens[:2], other]
        # All that wait may come back at once.
        for token in tokens[:2]:
            await comes_back(world, token)
        assert world.gateway.statistics().connections == 2
        assert len(world.gateway.peers) == 2


async def test_an_absence_has_one_end(autojump_clock: trio.testing.MockClock) -> None:
    """Also where two connections of a session have broken before either was told so."""
    told: list[str] = []
    async with trio.open_nursery() as nursery:
        timers = Timers()
        nursery.start_soon(timers.run)
        absence = Absence(timers, 10)
        absence.begin(lambda: told.append("expired"))
        absence.on_end(lambda: told.append("first"))
        absence.on_end(lambda: told.append("second"))
        assert told == ["first"]
        absence.end()
        absence.end()
        await trio.sleep(11)
        assert told == ["first", "second"]
        absence.begin(lambda: told.append("expired"))
        await trio.sleep(11)
        assert told == ["first", "second", "expired"]
        nursery.cancel_scope.cancel()
