"""The client's WebSockets: dead peers, handshakes that fail, raw sockets."""

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.client.fake import BINARY, PING, TEXT, HttpRequest, Peer, StreamEnded, frame, open_world, soon
from trivet.errors import ActorError, ConnectionLost
from trivet.limits import Limits
from trivet.raw import WebSocketClosed

FORBIDDEN = b'{"group":"auth","code":"forbidden","message":"?"}'


async def test_a_silent_peer_is_pinged_and_a_dead_one_replaced(autojump_clock: MockClock) -> None:
    async with open_world() as world, world.room() as (room, first):
        start = trio.current_time()
        await soon(lambda: room.status != "connected")
        assert trio.current_time() - start == pytest.approx(Limits().ping_timeout, abs=0.1)
        with pytest.raises(StreamEnded):
            await first.receive_data()
        assert len(first.pings) == 1
        await world.server.admit("conn-2")
        await soon(lambda: room.conn_id == "conn-2")


async def test_any_byte_is_a_sign_of_life(autojump_clock: MockClock) -> None:
    async with open_world() as world, world.room() as (room, peer), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _serve() -> None:
            with pytest.raises(StreamEnded):
                await peer.receive_data()

        for _ in range(20):
            await trio.sleep(15)
            await peer.event("tick")
        assert peer.pings == []
        for _ in range(20):
            await trio.sleep(35)
            await peer.event("tick")
        assert len(peer.pings) == 20
        assert room.status == "connected"
        await peer.drop()
        await world.server.admit()


async def test_pings_are_answered_while_a_consumer_does_not_read(autojump_clock: MockClock) -> None:
    async with open_world() as world, world.room() as (room, peer), trio.open_nursery() as nursery:
        async with room.events("a"):
            for n in range(50):
                await peer.event("a", n)
            await peer.send_raw(frame(PING, b"alive?"))

            @nursery.start_soon
            async def _serve() -> None:
                await peer.subscription()
                await peer.answer(await peer.call())

            await trio.sleep(1)
            await room.call("x")
        assert peer.pongs == [b"alive?"]


@pytest.mark.parametrize(
    ("answer", "group"),
    [
        (b"HTTP/1.1 503 X\r\ncontent-type: application/json\r\ncontent-length: 49\r\n\r\n" + FORBIDDEN, "auth"),
        (b"HTTP/1.1 404 X\r\ncontent-length: 4\r\n\r\nnope", "rivetkit"),
    ],
)
async def test_an_upgrade_that_is_refused_is_an_error(answer: bytes, group: str, autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.server.upgrade = lambda request: answer
        with pytest.raises(ActorError) as caught:
            async with world.handle.connect():
                pass
        assert caught.value.group == group


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 101 X\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: wrong\r\n\r\n",
        b"\x00\x01\x02 not HTTP\r\n\r\n",
    ],
)
async def test_a_handshake_that_breaks_is_a_lost_connection_at_once(answer: bytes, autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.server.upgrade = lambda request: answer
        start = trio.current_time()
        with pytest.raises(ConnectionLost) as caught:
            async with world.handle.connect(reconnect=False):
                pass
        assert not caught.value.maybe_executed
        assert trio.current_time() == start


async def test_a_handshake_without_an_answer_has_a_deadline(autojump_clock: MockClock) -> None:
    async with open_world() as world:

        async def silent(stream: object, reader: object, request: HttpRequest) -> None:
            await trio.sleep_forever()

        world.server._upgrade = silent  # type: ignore[method-assign]
        start = trio.current_time()
        with pytest.raises(ConnectionLost, match="within 10 s"):
            async with world.handle.connect(reconnect=False):
                pass
        assert trio.current_time() - start == pytest.approx(10)


async def test_a_ping_during_the_closing_handshake_does_no_harm(autojump_clock: MockClock) -> None:
    async with open_world() as world, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _serve() -> None:
            peer = await world.server.admit()
            with pytest.raises(StreamEnded):
                await peer.receive_data()
            await peer.send_raw(frame(PING, b"still there?"))
            await peer.event("late")
            await peer.close(1000)

        async with world.handle.connect():
            pass


async def test_a_message_over_the_limit_ends_the_connection(autojump_clock: MockClock) -> None:
    # An events connection takes no more than a server may send, with what is around it; a raw one 32 MiB.
    limits = Limits(outgoing_message=1000)
    async with open_world(limits=limits) as world, world.room() as (room, peer):
        await peer.event("a", "x" * 100_000)
        await soon(lambda: room.status == "closed")
        assert await peer.gone() == 1009


# -- raw ---------------------------------------------------------------------------------------------------------------


async def _echo(peer: Peer) -> None:
    try:
        while True:
            data = await peer.receive_data()
            await peer.send_raw(frame(TEXT, data.encode()) if isinstance(data, str) else frame(BINARY, data))
    except StreamEnded:
        await peer.close(peer.close_code or 1000)


async def test_a_raw_websocket_carries_texts_and_bytes(autojump_clock: MockClock) -> None:
    async with open_world() as world, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _serve() -> None:
            peer = await world.server.accept()
            assert peer.request.target.startswith("/gateway/chatRoom/websocket/some/path?x=1&rvt-namespace=default")
            await _echo(peer)
            assert peer.close_code == 1000

        async with world.handle.websocket("some/path?x=1", params={"a": 1}) as websocket:
            for data in ("text", b"bytes", "", "x" * 200_000):
                await websocket.send(data)
                assert await websocket.receive() == data
        assert websocket.close_code == 1000
        with pytest.raises(WebSocketClosed):
            await websocket.send("late")
        with pytest.raises(WebSocketClosed):
            await websocket.receive()
        await websocket.aclose()


async def test_a_raw_websocket_tells_how_the_other_side_closed_it(autojump_clock: MockClock) -> None:
    async with open_world() as world, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _serve() -> None:
            peer = await world.server.accept()
            await peer.send_raw(frame(TEXT, b"one") + frame(TEXT, b"two"))
            await peer.close(4001, "bye")

        async with world.handle.websocket() as websocket:
            assert [message async for message in websocket] == ["one", "two"]
            assert (websocket.close_code, websocket.close_reason) == (4001, "bye")


async def test_a_cancelled_send_that_was_begun_ends_the_socket() -> None:
    async with open_world() as world:
        world.server.pair = trio.testing.lockstep_stream_pair
        accepted = trio.Event()

        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _serve() -> None:
                await world.server.accept()
                accepted.set()

            async with world.handle.websocket() as websocket:
                await accepted.wait()
                with trio.move_on_after(0.05) as scope:
                    await websocket.send("nobody reads this")
                assert scope.cancelled_caught
                with pytest.raises(WebSocketClosed):
                    await websocket.send("nor this")
                assert websocket.close_code == 1006


async def test_a_slow_reader_of_a_raw_websocket_is_not_taken_for_a_dead_peer(autojump_clock: MockClock) -> None:
    async with open_world() as world, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _serve() -> None:
            peer = await world.server.accept()
            for n in range(200):
                await peer.send_raw(frame(TEXT, str(n).encode()))
            await peer.gone()

        async with world.handle.websocket() as websocket:
            await trio.sleep(1000)
            assert [int(await websocket.receive()) for _ in range(200)] == list(range(200))
