"""What actor code knows stays on the server: no exception says its text to a client, wherever it was raised."""

import base64
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, cast
from urllib.parse import quote

import attrs
import pytest
import trio
import trio.testing

from tests.server.support import QUERY, HttpPeer, WebSocketPeer
from trivet.actor import Actor, action
from trivet.errors import UserError
from trivet.event import Event
from trivet.limits import Limits
from trivet.protocol.codec import Codec, codec_for
from trivet.protocol.messages import ActionRequest, SubscriptionRequest, ToServer
from trivet.raw import Request, Response, WebSocket
from trivet.registry import Registry
from trivet.runtime.host import open_host
from trivet.server import serve_stream

SECRET: Final = "hunter2"

PARAMS: Final = '{"name":"ann"}'

failing: str = ""
reached: set[str] = set()


class Leak(Exception):
    """An error with a secret in all that it has."""

    def __init__(self) -> None:
        super().__init__(SECRET)
        self.add_note(f"note: {SECRET}")
        self.message = self.code = self.group = self.metadata = SECRET


def may_fail(place: str) -> None:
    if place == failing:
        reached.add(place)
        try:
            raise KeyError({"password": SECRET})
        except KeyError as error:
            raise Leak from error


def passes(place: str) -> bool:
    may_fail(place)
    return True


def validate(instance: object, attribute: object, value: object) -> None:
    may_fail("validator")


class Unsendable:
    """A value that cannot travel, and says too much of itself."""

    def __repr__(self) -> str:
        return SECRET

    __str__ = __repr__


@attrs.frozen
class Params:
    name: str = "anonymous"

    def __attrs_post_init__(self) -> None:
        may_fail("params")


@attrs.frozen
class Argument:
    size: int = attrs.field(default=1, validator=validate)

    def __attrs_post_init__(self) -> None:
        may_fail("argument")


@attrs.define
class ConnState:
    name: str = "nobody"


@attrs.define
class State:
    count: int = 0
    anything: object = None


class Leaky(Actor[State, ConnState, Params]):
    happened = Event(int)
    guarded = Event(int)

    @guarded.can_subscribe
    def may_see(self, conn: object) -> bool:
        may_fail("can_subscribe")
        return True

    def create_state(self, input: object) -> State:
        may_fail("create_state")
        return State()

    def on_create(self, input: object) -> None:
        may_fail("on_create")

    def on_migrate(self, is_new: bool) -> None:
        may_fail("on_migrate")

    def on_wake(self) -> None:
        may_fail("on_wake")

    def on_destroy(self) -> None:
        may_fail("on_destroy")

    async def run(self) -> None:
        may_fail("run")

    def on_before_connect(self, params: Params) -> None:
        may_fail("on_before_connect")

    def create_conn_state(self, params: Params) -> ConnState:
        may_fail("create_conn_state")
        return ConnState(params.name)

    def on_connect(self, conn: object) -> None:
        may_fail("on_connect")

    def on_disconnect(self, conn: object) -> None:
        may_fail("on_disconnect")

    def on_state_change(self) -> None:
        may_fail("on_state_change")

    def on_before_action_response(self, name: str, args: Any, output: Any) -> Any:
        may_fail("on_before_action_response")
        return output

    @action
    def act(self, argument: Argument) -> object:
        self.state.count += 1
        may_fail("action")
        if failing == "group":
            reached.add("group")
            raise ExceptionGroup(SECRET, [Leak(), ValueError(SECRET)])
        if failing == "result":
            reached.add("result")
            return Unsendable()
        if failing == "event":
            reached.add("event")
            self.broadcast(self.happened, cast("int", Unsendable()))
        if failing == "undeclared event":
            reached.add("undeclared event")
            self.broadcast("anything", Unsendable())
        if failing == "state":
            reached.add("state")
            self.state.anything = Unsendable()
        if failing == "where":
            self.broadcast(self.happened, 1, where=lambda conn: passes("where"))
        if failing == "cause":
            reached.add("cause")
            raise UserError("told", code="told") from Leak()
        if failing == "metadata":
            reached.add("metadata")
            raise UserError("told", code="told", metadata=Unsendable())
        return 1

    @action(concurrent=True)
    async def act_later(self) -> None:
        await trio.lowlevel.checkpoint()
        may_fail("concurrent action")

    async def on_request(self, request: Request) -> Response:
        may_fail("on_request")
        return Response("x", headers={"x-bad": SECRET + "\r\n"} if failing == "header" else {})

    async def on_websocket(self, websocket: WebSocket) -> None:
        async for message in websocket:
            may_fail("on_websocket")
            await websocket.send(message)


REGISTRY: Final = Registry(Leaky)

PLACES: Final = [
    *("create_state", "on_create", "on_migrate", "on_wake", "run", "on_destroy"),
    *("params", "on_before_connect", "create_conn_state", "on_connect", "on_disconnect", "can_subscribe"),
    *("action", "concurrent action", "group", "cause", "metadata", "validator", "argument", "result", "state"),
    *("on_state_change", "on_before_action_response", "event", "undeclared event", "where"),
    *("on_request", "header", "on_websocket"),
]


class Tap(trio.abc.Stream):
    """Keeps all that a client is sent."""

    def __init__(self, stream: trio.abc.Stream, heard: bytearray) -> None:
        self._stream = stream
        self._heard = heard

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = bytes(await self._stream.receive_some(max_bytes))
        self._heard += data
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


@attrs.frozen
class Client:
    """Does everything that a client can do, and keeps what it is told."""

    connect: Callable[[], trio.abc.Stream]
    heard: bytearray
    """The bytes, as they came."""
    said: list[str]
    """What of them is data in some encoding, as text."""

    async def http(self) -> None:
        peer = HttpPeer(self.connect())
        for encoding in ("json", "cbor", "bare"):
            codec = codec_for(encoding)
            assert codec is not None
            for name, args in (("act", [{"size": 1}]), ("actLater", [])):
                reply = await peer.request(
                    "POST",
                    f"/gateway/leaky/action/{name}?{QUERY}",
                    codec.encode_action_request(args),  # type: ignore[arg-type]  # plain values
                    [("x-rivet-encoding", encoding), ("x-rivet-conn-params", PARAMS)],
                )
                self.said.append(repr(reply.body))
                if reply.status != 200 and "json" not in reply.headers["content-type"]:
                    self.said.append(repr(codec.decode_error(reply.body)))
        await peer.request("GET", f"/gateway/leaky/request/x?{QUERY}")

    async def control(self) -> None:
        peer = HttpPeer(self.connect())
        created = await peer.request("PUT", "/actors", b'{"name":"leaky","key":"k","crash_policy":"sleep"}')
        await peer.request("GET", "/actors?name=leaky")
        if created.status == 200:
            actor_id = json.loads(created.body)["actor"]["actor_id"]
            await peer.request("DELETE", f"/actors/{actor_id}")

    async def events(self, encoding: str, extension: bool) -> None:
        codec = cast("Codec", codec_for(encoding))
        offered = ["rivet", f"rivet_encoding.{encoding}", f"rivet_conn_params.{quote(PARAMS)}"]
        if extension:
            offered.append("trivet.1")
        peer = await WebSocketPeer(self.connect()).open(f"/gateway/leaky/connect?{QUERY}", offered)
        messages: list[ToServer] = [
            SubscriptionRequest("happened", True),
            SubscriptionRequest("anything", True),
            ActionRequest(1, "act", [{"size": 1}]),
            ActionRequest(2, "actLater", []),
            SubscriptionRequest("guarded", True),
        ]
        with trio.move_on_after(3):
            for message in messages:
                data = codec.encode_to_server(message)
                await peer.stream.send_all(_frame(data, binary=codec.binary))
                if extension:
                    await peer.stream.send_all(_frame(b'["subscribe",1,"guarded"]', binary=not codec.binary))
            try:
                while True:
                    event = await peer.next_event()
                    data = getattr(event, "data", b"")
                    self.said.append(repr(event))
                    if codec.binary and isinstance(data, (bytes, bytearray)) and data:
                        self.said.append(repr(codec.decode_to_client(bytes(data))))
            except (EOFError, trio.BrokenResourceError):
                pass
        await peer.stream.aclose()

    async def raw(self) -> None:
        peer = await WebSocketPeer(self.connect()).open(f"/gateway/leaky/websocket/x?{QUERY}")
        with trio.move_on_after(3):
            await peer.send_text("hello")
            try:
                while True:
                    self.said.append(repr(await peer.next_event()))
            except (EOFError, trio.BrokenResourceError):
                pass
        await peer.stream.aclose()


def _frame(payload: bytes, *, binary: bool) -> bytes:
    """A client's frame; the mask is zero, which is allowed."""
    return bytes([0x82 if binary else 0x81, 0x80 | len(payload), 0, 0, 0, 0]) + payload


@asynccontextmanager
async def open_client() -> AsyncGenerator[Client]:
    heard = bytearray()
    async with open_host(REGISTRY, Limits()) as host, trio.open_nursery() as nursery:

        def connect() -> trio.abc.Stream:
            ours, theirs = trio.testing.memory_stream_pair()
            nursery.start_soon(serve_stream, host, theirs)
            return Tap(ours, heard)

        yield Client(connect, heard, [])
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("place", PLACES)
async def test_no_text_of_an_exception_reaches_a_client(
    place: str, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.failing", place)
    reached.discard(place)
    async with open_client() as client:
        await client.http()
        for encoding in ("json", "cbor", "bare"):
            await client.events(encoding, extension=encoding != "json")
        await client.events("json", extension=True)
        await client.raw()
        await client.control()
    assert place in reached or place == "header"
    assert len(client.heard) > 1000
    for text in (client.heard.decode("latin-1"), *client.said):
        assert SECRET not in text
        assert base64.b64encode(SECRET.encode()).decode() not in text
        assert "Traceback" not in text
        assert "Leak" not in text.replace("Leaky", "")


async def test_the_test_would_see_it(autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    def tell(place: str) -> None:
        if place == "action":
            raise UserError(SECRET)

    monkeypatch.setattr(f"{__name__}.may_fail", tell)
    async with open_client() as client:
        await client.http()
        assert SECRET in client.heard.decode("latin-1")
        client.heard.clear()
        for encoding in ("json", "cbor", "bare"):
            client.said.clear()
            await client.events(encoding, extension=True)
            assert any(SECRET in text for text in client.said)
