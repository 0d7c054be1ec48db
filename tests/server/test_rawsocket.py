"""Low-level WebSockets: messages pass as they are, and a handler sees every end of the socket."""

import gc
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

from tests.server.support import WebSocketPeer, World, open_world, read_to_end, to
from trivet.limits import KIB, MIB, Limits
from trivet.raw import Request, WebSocketClosed
from trivet.runtime.timers import Timers
from trivet.server.budget import Budget, Share
from trivet.server.rawsocket import ServerWebSocket
from trivet.server.wire import Wire


@attrs.frozen
class Pair:
    """A socket on its own, without an actor, and its peer."""

    socket: ServerWebSocket
    peer: WebSocketPeer


class OpenPeer(WebSocketPeer):
    """A peer whose handshake is over."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        super().__init__(stream)
        from wsproto.connection import CLIENT, Connection

        self.ws = Connection(CLIENT)  # type: ignore[assignment]  # it has what is used of a WSConnection


StreamPair = Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]]


@asynccontextmanager
async def open_pair(
    limits: Limits | None = None, streams: StreamPair = trio.testing.memory_stream_pair
) -> AsyncGenerator[Pair, None]:
    ours, theirs = streams()
    async with trio.open_nursery() as nursery:
        timers = Timers()
        nursery.start_soon(timers.run)
        socket = ServerWebSocket(
            Wire(theirs),
            Request("GET", "http://here/websocket/"),
            limits=limits or Limits(),
            timers=timers,
            nursery=nursery,
            trailing_data=b"",
            share=Share(Budget(32 * MIB), 0),
        )
        nursery.start_soon(socket.read)
        yield Pair(socket, OpenPeer(ours))
        nursery.cancel_scope.cancel()


async def raw(world: World, rest: str) -> WebSocketPeer:
    return await world.websocket(rest, ["rivet"])


# -- through an actor -------------------------------------------------------------------------------------------------


async def test_text_stays_text_and_binary_stays_binary() -> None:
    async with open_world() as world:
        peer = await raw(world, "/websocket/x")
        await peer.send(TextMessage(data="ż"))
        await peer.send(BytesMessage(data=b"\xff"))
        assert await peer.next_event() == TextMessage(data="ż")
        assert await peer.next_event() == BytesMessage(data=b"\xff")


async def test_the_handler_sees_the_whole_path_and_the_clients_query() -> None:
    async with open_world() as world:
        peer = await raw(world, "/websocket/url?a=1&b=x%20y")
        assert await peer.next_event() == TextMessage(data="http://localhost:6420/websocket/url?a=1&b=x%20y")


async def test_any_other_path_is_a_raw_socket_too() -> None:
    async with open_world() as world:
        peer = await raw(world, "/other")
        await peer.send(TextMessage(data="hi"))
        assert await peer.next_event() == TextMessage(data="hi")


async def test_a_handler_that_fails_closes_1011() -> None:
    async with open_world() as world:
        assert await (await raw(world, "/websocket/fail")).next_event() == CloseConnection(1011, "user.my_code")


async def test_an_actor_without_a_handler_closes_1011() -> None:
    async with open_world() as world:
        peer = await WebSocketPeer(world.stream()).open(to("/websocket/", "bare"))
        event = await peer.next_event()
        assert isinstance(event, CloseConnection)
        assert event.code == 1011


async def test_a_handler_may_close_with_its_own_code() -> None:
    async with open_world() as world:
        peer = await raw(world, "/websocket/bye")
        assert await peer.next_event() == CloseConnection(4001, "bye")
        await peer.send(CloseConnection(4001, "bye"))
        assert await read_to_end(peer.stream) == b""


async def test_a_close_by_the_client_is_answered() -> None:
    async with open_world() as world:
        peer = await raw(world, "/websocket/x")
        await peer.send(CloseConnection(4001, "bye"))
        assert await peer.next_event() == CloseConnection(4001, "bye")
        assert await read_to_end(peer.stream) == b""
        await trio.testing.wait_all_tasks_blocked()
        assert world.host.statistics().connections == 0


async def test_a_handler_that_does_not_receive_is_cancelled_after_the_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It would never learn that its client has gone, and be there for ever."""
    async with open_world() as world:
        peer = await raw(world, "/websocket/idle")
        await peer.send(CloseConnection(1000))
        assert await peer.next_event() == CloseConnection(1000, "")
        assert await read_to_end(peer.stream) == b""
        await trio.sleep(4.9)
        assert world.host.statistics().connections == 1
        await trio.sleep(0.2)
        assert world.host.statistics().connections == 0


async def test_raw_messages_may_be_longer_than_other_messages() -> None:
    async with open_world() as world:
        peer = await raw(world, "/websocket/x")
        await peer.send(BytesMessage(data=b"x" * 300_000))
        data = b""
        while len(data) < 300_000:
            event = await peer.next_event()
            assert isinstance(event, BytesMessage)
            data += event.data
        assert data == b"x" * 300_000


async def test_a_handler_that_waits_for_something_else_still_answers_pings() -> None:
    async with open_world() as world:
        peer = await raw(world, "/websocket/idle")
        await peer.send(Ping(b"1"))
        assert await peer.next_event() == Pong(b"1")


# -- alone ------------------------------------------------------------------------------------------------------------


async def test_what_came_before_the_close_is_received_first() -> None:
    async with open_pair() as pair:
        await pair.peer.send(TextMessage(data="a"))
        await pair.peer.send(CloseConnection(4000, "enough"))
        await trio.testing.wait_all_tasks_blocked()
        assert await pair.socket.receive() == "a"
        with pytest.raises(WebSocketClosed) as closed:
            await pair.socket.receive()
        assert (closed.value.code, closed.value.reason) == (4000, "enough")
        assert (pair.socket.close_code, pair.socket.close_reason) == (4000, "enough")
        with pytest.raises(WebSocketClosed):
            await pair.socket.send("late")
        assert await pair.peer.next_event() == CloseConnection(4000, "enough")


async def test_iteration_ends_with_the_socket() -> None:
    async with open_pair() as pair:
        await pair.peer.send(TextMessage(data="a"))
        await pair.peer.stream.aclose()
        assert [message async for message in pair.socket] == ["a"]
        assert pair.socket.close_code == 1006


async def test_two_receivers_share_the_messages() -> None:
    async with open_pair() as pair:
        found: list[str | bytes] = []

        async def take() -> None:
            found.append(await pair.socket.receive())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            nursery.start_soon(take)
            await trio.testing.wait_all_tasks_blocked()
            await pair.peer.send(TextMessage(data="a"))
            await pair.peer.send(TextMessage(data="b"))
        assert sorted(map(str, found)) == ["a", "b"]


@pytest.mark.parametrize(
    ("data", "code", "reason"),
    [
        (b"\x81\x81\0\0\0\0\xff", 1007, "message.invalid_utf8"),
        (b"\x82\xfe\x00\x80\0\0\0\0" + b"x" * 128, 1009, "message.incoming_too_long"),
    ],
)
async def test_what_a_client_must_not_send_closes(
    data: bytes, code: int, reason: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_pair(Limits(raw_message=100)) as pair:
        await pair.peer.stream.send_all(data)
        assert await pair.peer.next_event() == CloseConnection(code, reason)
        with pytest.raises(WebSocketClosed) as closed:
            await pair.socket.receive()
        assert closed.value.code == code
        assert await read_to_end(pair.peer.stream) == b""
        assert trio.current_time() == pytest.approx(5)


async def test_a_client_is_slowed_down_when_nobody_receives(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pair(streams=trio.testing.lockstep_stream_pair) as pair:
        sent = 0

        async def send() -> None:
            nonlocal sent
            for _ in range(100):
                await pair.peer.send(BytesMessage(data=b"x"))
                sent += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.sleep(100)  # far beyond the ping timeout: nobody is given up for our own slowness
            assert sent < 70
            for _ in range(100):
                assert await pair.socket.receive() == b"x"


async def test_large_messages_slow_a_client_down_sooner() -> None:
    async with open_pair() as pair:
        for _ in range(3):
            await pair.peer.send(BytesMessage(data=b"x" * 1_100_000))
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(3):
            assert await pair.socket.receive() == b"x" * 1_100_000


async def test_a_client_that_dies_while_it_is_slowed_down_is_found_out(autojump_clock: trio.testing.MockClock) -> None:
    """Nothing is read from it, so what tells is that nothing can be sent."""
    async with open_pair() as pair:
        for _ in range(64):
            await pair.peer.send(BytesMessage(data=b"x"))
        await trio.testing.wait_all_tasks_blocked()
        await pair.peer.stream.aclose()
        await trio.sleep(30)
        assert pair.socket.close_code == 1006


async def test_nothing_is_kept_of_a_socket_that_has_ended() -> None:
    """Not even until it is collected: what it has received may be much."""
    async with trio.open_nursery() as nursery:
        ours, theirs = trio.testing.memory_stream_pair()
        timers = Timers()
        nursery.start_soon(timers.run)
        async with trio.open_nursery() as sockets:
            socket = ServerWebSocket(
                Wire(theirs),
                Request("GET", "http://here/websocket/"),
                limits=Limits(),
                timers=timers,
                nursery=sockets,
                trailing_data=b"",
                share=Share(Budget(32 * MIB), 0),
            )
            sockets.start_soon(socket.read)
            await ours.aclose()
        gone = weakref.ref(socket)
        gc.disable()
        try:
            del socket, theirs
            await trio.testing.wait_all_tasks_blocked()
            assert gone() is None
        finally:
            gc.enable()
        nursery.cancel_scope.cancel()


async def test_what_comes_after_our_close_frame_is_thrown_away() -> None:
    async with open_pair() as pair, trio.open_nursery() as nursery:
        nursery.start_soon(pair.socket.aclose, 4000, "done")
        assert await pair.peer.next_event() == CloseConnection(4000, "done")
        await pair.peer.stream.send_all(b"\x82\xff" + MIB.to_bytes(8) + bytes(4) + b"x" * (MIB - 1))
        await trio.testing.wait_all_tasks_blocked()
        assert pair.socket._incoming.held < KIB
        nursery.cancel_scope.cancel()


async def test_a_socket_can_be_closed_while_a_client_is_slowed_down() -> None:
    async with open_pair() as pair:
        for _ in range(200):
            await pair.peer.send(BytesMessage(data=b"x"))
        await pair.peer.send(CloseConnection(1000))
        await trio.testing.wait_all_tasks_blocked()
        await pair.socket.aclose(4000, "done")
        assert pair.socket.close_code == 4000
        assert await pair.peer.next_event() == CloseConnection(4000, "done")


async def test_closing_waits_for_the_answer_but_not_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pair() as pair:
        await pair.socket.aclose(1000, "done")
        assert trio.current_time() == pytest.approx(5)
        await pair.socket.aclose()
        assert trio.current_time() == pytest.approx(5)
        assert await pair.peer.next_event() == CloseConnection(1000, "done")
        with pytest.raises(WebSocketClosed):
            await pair.socket.receive()


async def test_two_tasks_may_close(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pair() as pair:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.socket.aclose)
            nursery.start_soon(pair.socket.aclose)
            assert await pair.peer.next_event() == CloseConnection(1000, "")
            await pair.peer.send(CloseConnection(1000))
        assert trio.current_time() == 0


async def test_a_cancelled_close_ends_the_socket() -> None:
    async with open_pair() as pair:
        with trio.CancelScope() as scope:
            scope.cancel()
            await pair.socket.aclose()
        assert await read_to_end(pair.peer.stream) == b""


async def test_a_send_that_was_cancelled_midway_ends_the_socket(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pair(streams=trio.testing.lockstep_stream_pair) as pair:
        with trio.move_on_after(1):
            await pair.socket.send(b"x" * 10)
        assert pair.socket.close_code == 1006
        with pytest.raises(WebSocketClosed):
            await pair.socket.send(b"x")


async def test_messages_of_two_senders_are_not_mixed() -> None:
    async with open_pair(streams=trio.testing.lockstep_stream_pair) as pair:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.socket.send, "a" * 1000)
            nursery.start_soon(pair.socket.send, "b" * 1000)
            found = {str((await pair.peer.next_event()).__dict__["data"]) for _ in range(2)}
        assert found == {"a" * 1000, "b" * 1000}


async def test_sending_to_a_peer_that_is_gone_raises() -> None:
    async with open_pair() as pair:
        await pair.peer.stream.aclose()
        with pytest.raises(WebSocketClosed):
            await pair.socket.send("hello")


async def test_a_silent_peer_is_pinged_and_then_given_up(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pair() as pair:
        assert await pair.peer.next_event() == Ping(b"")
        await pair.peer.send(Pong())
        with pytest.raises(WebSocketClosed):
            await pair.socket.receive()
        assert trio.current_time() == pytest.approx(60)
        assert pair.socket.close_code == 1006


async def test_a_peer_that_asks_for_pongs_and_does_not_read_gets_few(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pair(streams=trio.testing.lockstep_stream_pair) as pair:
        for _ in range(10_000):
            await pair.peer.send(Ping(b"x"))
        pongs = 0
        with trio.move_on_after(1):
            while True:
                assert await pair.peer.next_event() == Pong(b"x")
                pongs += 1
        assert 0 < pongs < 2000


async def test_a_message_may_be_sent_while_another_is_awaited() -> None:
    async with open_pair() as pair:
        steps: list[Callable[[], Awaitable[object]]] = [pair.socket.receive]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(steps[0])
            await pair.socket.send("hello")
            assert await pair.peer.next_event() == TextMessage(data="hello")
            await pair.peer.send(TextMessage(data="hi"))
