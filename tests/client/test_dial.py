"""Dialling: real sockets, TLS, and calls of declared actions without their class."""

import ssl
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from tests.client.fake import HttpAnswer, HttpRequest, open_world
from trivet.actor import Actor, action
from trivet.client import open_client
from trivet.client.dial import Dialer
from trivet.errors import ConnectionLost
from trivet.event import Event
from trivet.limits import Limits


@attrs.frozen
class Message:
    user_id: str


class ChatRoom(Actor):
    message_sent = Event(Message)

    @action
    def send_message(self, text: str) -> Message:
        return Message(text)


class OtherRoom(Actor):
    other = Event()

    @action
    def nothing(self) -> None: ...


async def test_nobody_listens_is_a_lost_connection(caplog: pytest.LogCaptureFixture) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    async with open_client(f"http://127.0.0.1:{port}", limits=Limits(connect_timeout=0.05)) as client:
        refused = f"cannot connect to 127.0.0.1:{port}: Connection refused"
        with pytest.raises(ConnectionLost, match=refused):
            await client.get("a").call("x")
        with pytest.raises(ConnectionLost, match=refused):
            await client.get("a").call("x")
    # Once, so that whoever waits knows what for.
    assert [record.getMessage() for record in caplog.records] == [f"{refused}; trying for 0.05 s"]


async def test_tls_to_a_plain_server_fails_at_once_and_says_so(autojump_clock: MockClock) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await stream.aclose()

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        started = trio.current_time()
        async with open_client(f"https://127.0.0.1:{port}", tls=ssl.create_default_context()) as client:
            with pytest.raises(ConnectionLost, match="does the server speak plain http"):
                await client.get("a").call("x")
            with pytest.raises(ConnectionLost, match="does the server speak plain http"):
                async with client.get("a").connect():
                    pass
        assert trio.current_time() - started < 1
        nursery.cancel_scope.cancel()


async def test_the_input_of_an_actor_is_shown_nowhere(autojump_clock: MockClock) -> None:
    async with open_world(limits=Limits(action_timeout=1)) as world:

        async def handler(request: HttpRequest) -> HttpAnswer:
            if "/metadata" not in request.target:
                assert "rvt-input" in request.target
                await trio.sleep_forever()
            return HttpAnswer(body=b'{"runtime":"engine"}')

        world.server.handler = handler
        handle = world.client.get_or_create("chatRoom", ["a", "b"], input="s3cret")
        assert repr(handle) == "<Handle chatRoom[a,b]>"
        assert "s3cret" not in repr(handle._target)
        with pytest.raises(ConnectionLost, match=r"no answer from .*/gateway/chatRoom/action/x within") as lost:
            await handle.call("x")
        assert "rvt-" not in str(lost.value)


async def test_what_is_no_action_or_event_says_how_it_becomes_one() -> None:
    async with open_world() as world:
        handle: Any = world.client.get(ChatRoom)

        def plain(self: ChatRoom) -> None: ...

        with pytest.raises(TypeError, match="plain is no action; decorate it with @action"):
            await handle.call(plain)
        with pytest.raises(TypeError, match=r"Message is no event; declare it with Event"):
            handle.connect().on(Message, print)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_server_that_says_nothing_is_given_up(scheme: str, autojump_clock: MockClock) -> None:
    async with open_world():
        ours, theirs = trio.testing.memory_stream_pair()

        async def connect(host: str, port: int) -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            return theirs

        dialer = Dialer(None, 10.0, connect)
        if scheme == "http":
            assert await dialer.open("h", 80, secure=False) is theirs
        else:
            with pytest.raises(ConnectionLost, match="TLS handshake"):
                await dialer.open("h", 443, secure=True)
            # What it had opened is closed.
            with pytest.raises(trio.ClosedResourceError):
                await theirs.send_all(b"x")
        await ours.aclose()


async def test_tls_with_a_peer_that_does_not_speak_it_fails_and_leaves_nothing_open() -> None:
    ours, theirs = trio.testing.memory_stream_pair()

    async def connect(host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return theirs

    await ours.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(ConnectionLost, match="TLS handshake with h failed"):
        await Dialer(None, 10.0, connect).open("h", 443, secure=True)
    with pytest.raises(trio.ClosedResourceError):
        await theirs.send_all(b"x")


async def test_a_cancelled_tls_handshake_leaves_nothing_open(autojump_clock: MockClock) -> None:
    _, theirs = trio.testing.memory_stream_pair()

    async def connect(host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return theirs

    with trio.move_on_after(1) as scope:
        await Dialer(None, 10.0, connect).open("h", 443, secure=True)
    assert scope.cancelled_caught
    with pytest.raises(trio.ClosedResourceError):
        await theirs.send_all(b"x")


async def test_declared_actions_and_events_work_without_the_class(autojump_clock: MockClock) -> None:
    async with open_world(encoding="json") as world:

        async def handler(request: HttpRequest) -> HttpAnswer:
            return HttpAnswer(body=b'{"output":{"userId":"bob"}}')

        world.server.handler = handler
        for _ in range(2):
            assert await world.handle.call(ChatRoom.send_message, "bob") == Message("bob")
        async with world.room() as (room, peer), room.events(ChatRoom.message_sent) as stream:
            await peer.event("messageSent", {"userId": "ann"})
            assert await anext(stream) == Message("ann")


async def test_actions_and_events_of_another_class_are_refused() -> None:
    async with open_world() as world:
        handle = world.client.get(ChatRoom)
        with pytest.raises(TypeError, match="ChatRoom has no <Action nothing>"):
            await handle.call(OtherRoom.nothing)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
        with pytest.raises(TypeError, match="ChatRoom has no <Event other>"):
            handle.connect().on(OtherRoom.other, lambda: None)
