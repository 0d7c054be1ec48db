"""A host with a few actors, and clients that speak to it over streams in memory."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import attrs
import h11
import trio
import trio.testing
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Event, RejectConnection, Request, TextMessage

from trivet.actor import Actor, action
from trivet.errors import UserError
from trivet.event import Event as ActorEvent
from trivet.limits import Limits
from trivet.raw import Request as RawRequest
from trivet.raw import Response, WebSocket
from trivet.registry import Registry
from trivet.runtime.host import Host, open_host
from trivet.server import serve_stream

QUERY = "rvt-namespace=default&rvt-method=getOrCreate&rvt-runner=default&rvt-key=k"


class Echo(Actor[None, None, object]):
    """Says what it is told, over every way there is."""

    said = ActorEvent(str)

    def on_before_connect(self, params: object) -> None:
        if isinstance(params, dict) and "refuse" in params:
            raise UserError("not you", code="refused")

    @action
    def say(self, text: str) -> str:
        self.broadcast(self.said, text)
        return text

    @action
    def fill(self, size: int) -> str:
        return "x" * size

    @action
    def whoami(self) -> str:
        return f"{self.request.method} {self.request.url} {self.request.peer}"

    @action
    def fail(self) -> None:
        raise UserError("no", code="my_code", metadata={"a": 1})

    @action
    def crash(self) -> None:
        raise RuntimeError("secret")

    async def on_request(self, request: RawRequest) -> Response:
        if request.path == "/bad-header":
            return Response("x", headers={"x-bad": "a\r\nb"})
        if request.path == "/empty":
            return Response(status=204)
        if request.path == "/own-cors":
            return Response("x", headers={"Access-Control-Allow-Origin": "https://elsewhere", "Content-Length": "99"})
        if request.path == "/body":
            return Response(request.body)
        return Response(f"{request.method} {request.url} {len(request.body)}", headers={"x-mine": "yes"})

    async def on_websocket(self, websocket: WebSocket) -> None:
        assert websocket.request is not None
        if websocket.request.path == "/websocket/url":
            await websocket.send(websocket.request.url)
        if websocket.request.path == "/websocket/fail":
            raise UserError("no", code="my_code")
        if websocket.request.path == "/websocket/bye":
            await websocket.aclose(4001, "bye")
        if websocket.request.path == "/websocket/idle":
            await trio.sleep(1000)
        async for message in websocket:
            await websocket.send(message)


class Bare(Actor):
    """Has nothing."""


REGISTRY = Registry(Echo, Bare)


@attrs.frozen
class Reply:
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes


class HttpPeer:
    """An HTTP client on one connection. h11 checks that every answer is well formed."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._h11 = h11.Connection(h11.CLIENT)

    async def request(
        self, method: str, target: str, body: bytes = b"", headers: Sequence[tuple[str, str]] = ()
    ) -> Reply:
        """Send a request, with its body chunked, and read the answer."""
        await self.begin(method, target, [*headers, ("transfer-encoding", "chunked")] if body else headers)
        if body:
            await self.send(h11.Data(data=body))
        await self.send(h11.EndOfMessage())
        return await self.reply()

    async def begin(self, method: str, target: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        if self._h11.our_state is h11.DONE:
            self._h11.start_next_cycle()
        await self.send(h11.Request(method=method, target=target, headers=[("host", "localhost:6420"), *headers]))

    async def send(self, event: h11.Request | h11.Data | h11.EndOfMessage) -> None:
        await self.stream.send_all(self._h11.send(event))

    async def next_event(self) -> object:
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            self._h11.receive_data(bytes(await self.stream.receive_some()))
        return event

    async def reply(self) -> Reply:
        body = b""
        head: h11.Response | None = None
        while True:
            event = await self.next_event()
            if isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                headers = {name.decode(): value.decode("latin-1") for name, value in head.headers}
                return Reply(head.status_code, headers, body)
            else:
                raise AssertionError(event)


class WebSocketPeer:
    """A WebSocket client on one connection, wsproto's."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.ws = WSConnection(ConnectionType.CLIENT)
        self.accepted: AcceptConnection | None = None
        self._events: list[Event] = []

    async def open(
        self,
        target: str,
        subprotocols: Sequence[str] = ("rivet", "rivet_encoding.json"),
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> "WebSocketPeer":
        """The opening handshake."""
        request = Request(
            host="localhost:6420", target=target, subprotocols=list(subprotocols), extra_headers=list(headers)
        )
        await self.stream.send_all(self.ws.send(request))
        event = await self.next_event()
        assert isinstance(event, AcceptConnection), event
        self.accepted = event
        return self

    async def send(self, event: Event) -> None:
        await self.stream.send_all(self.ws.send(event))

    async def next_event(self) -> Event:
        """The next frame, or whatever else there is. Raises EOFError at the end."""
        while not self._events:
            data = bytes(await self.stream.receive_some())
            if not data:
                raise EOFError
            self.ws.receive_data(data)
            self._events += self.ws.events()
            assert not any(isinstance(event, RejectConnection) for event in self._events)
        return self._events.pop(0)

    async def send_text(self, text: str) -> None:
        await self.send(TextMessage(data=text))

    async def next_text(self) -> str:
        event = await self.next_event()
        assert isinstance(event, TextMessage), event
        return event.data

    async def next_close(self) -> tuple[int, str]:
        """The server's close frame, whatever comes before it. It is answered."""
        while not isinstance(event := await self.next_event(), CloseConnection):
            pass
        await self.send(event.response())
        return event.code, event.reason or ""


@attrs.frozen
class World:
    """A host without a socket."""

    host: Host
    nursery: trio.Nursery
    allowed_origins: Sequence[str] = ()

    def stream(self) -> trio.abc.Stream:
        """The client's end of a new connection."""
        ours, theirs = trio.testing.memory_stream_pair()
        self.serve(theirs)
        return ours

    def serve(self, stream: trio.abc.Stream) -> None:
        async def run() -> None:
            await serve_stream(self.host, stream, peer="192.0.2.1", allowed_origins=self.allowed_origins)

        self.nursery.start_soon(run)

    def http(self) -> HttpPeer:
        return HttpPeer(self.stream())

    async def websocket(
        self,
        rest: str = "/connect",
        subprotocols: Sequence[str] = ("rivet", "rivet_encoding.json"),
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> WebSocketPeer:
        return await WebSocketPeer(self.stream()).open(to(rest), subprotocols, headers)


def to(rest: str, name: str = "echo") -> str:
    """The request target of an actor's path."""
    return f"/gateway/{name}{rest}{'&' if '?' in rest else '?'}{QUERY}"


@asynccontextmanager
async def open_world(limits: Limits | None = None, allowed_origins: Sequence[str] = ()) -> AsyncGenerator[World, None]:
    """A host and a way to connect to it; at the end everything is cancelled."""
    async with open_host(REGISTRY, limits or Limits()) as host:
        async with trio.open_nursery() as nursery:
            yield World(host, nursery, allowed_origins)
            nursery.cancel_scope.cancel()


async def read_to_end(stream: trio.abc.Stream) -> bytes:
    """Everything until the server closes."""
    data = b""
    while piece := await stream.receive_some():
        data += piece
    return data
