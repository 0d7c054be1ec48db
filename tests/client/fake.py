"""A server that does what a test tells it, over streams in memory: HTTP and WebSocket, by hand.

It shares no WebSocket code with the client, and reads strictly: half a frame, or an unmasked one, is an error here.
"""

import base64
import hashlib
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import attrs
import trio
import trio.testing

from trivet.client import Client, Connection, Handle, open_client
from trivet.limits import Limits
from trivet.nurseries import open_quiet_nursery
from trivet.protocol import extension
from trivet.protocol.codec import Codec, codec_for
from trivet.protocol.extension import Extension, ExtensionToServer, SessionOpened
from trivet.protocol.messages import (
    ActionRequest,
    ActionResponse,
    Error,
    Event,
    Init,
    SubscriptionRequest,
    ToClient,
    ToServer,
)
from trivet.protocol.subprotocols import parse_subprotocols
from trivet.protocol.values import Value

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

JSON = cast("Codec", codec_for("json"))


class StreamEnded(Exception):
    """The client's stream ended, between frames."""


class CutShort(AssertionError):
    """The client's stream ended in the middle of a frame: no client should do that while it goes on talking."""


class Reader:
    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    async def until(self, mark: bytes) -> bytes:
        while (index := self._buffer.find(mark)) < 0:
            await self._more()
        return await self.exactly(index + len(mark))

    async def exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            await self._more()
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    async def _more(self) -> None:
        try:
            data = await self._stream.receive_some()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            data = b""
        if not data:
            raise CutShort if self._buffer else StreamEnded
        self._buffer += data


@attrs.frozen
class HttpRequest:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@attrs.frozen
class HttpAnswer:
    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    close: bool = False


def frame(opcode: int, payload: bytes, fin: bool = True) -> bytes:
    head = bytes([opcode | (0x80 if fin else 0)])
    size = len(payload)
    if size < 126:
        return head + bytes([size]) + payload
    if size < 65536:
        return head + b"\x7e" + struct.pack(">H", size) + payload
    return head + b"\x7f" + struct.pack(">Q", size) + payload


class Peer:
    """The server's side of one WebSocket."""

    def __init__(self, stream: trio.abc.Stream, reader: Reader, request: HttpRequest, extended: bool) -> None:
        self.stream = stream
        self.extended = extended
        self.request = request
        self.subprotocols = [part.strip() for part in request.headers.get("sec-websocket-protocol", "").split(",")]
        encoding = next(
            (part.removeprefix("rivet_encoding.") for part in self.subprotocols if part.startswith("rivet_encoding.")),
            "json",
        )
        self.codec = cast("Codec", codec_for(encoding))
        self.pings: list[bytes] = []
        self.pongs: list[bytes] = []
        self.close_code: int | None = None
        self.acks: list[int] = []
        self.claim = parse_subprotocols(self.subprotocols).session
        self._reader = reader

    async def send_raw(self, data: bytes) -> None:
        await self.stream.send_all(data)

    def framed(self, *messages: ToClient) -> bytes:
        opcode = BINARY if self.codec.binary else TEXT
        return b"".join(frame(opcode, self.codec.encode_to_client(message)) for message in messages)

    async def send(self, *messages: ToClient) -> None:
        """All of them in one segment."""
        await self.send_raw(self.framed(*messages))

    def framed_extension(self, *messages: Extension) -> bytes:
        opcode = TEXT if self.codec.binary else BINARY
        return b"".join(frame(opcode, extension.encode(message)) for message in messages)

    async def say(self, *messages: Extension) -> None:
        """Messages of the extension, in one segment."""
        await self.send_raw(self.framed_extension(*messages))

    async def init(self, conn_id: str = "conn-1", actor_id: str = "actor-1", window: float = 30) -> None:
        opened = self.framed_extension(SessionOpened(f"token-of-{conn_id}", window)) if self.extended else b""
        await self.send_raw(self.framed(Init(actor_id, conn_id)) + opened)

    async def event(self, name: str, *args: Value) -> None:
        await self.send(Event(name, list(args)))

    async def answer(self, call: ActionRequest, output: Value = None) -> None:
        await self.send(ActionResponse(call.id, output))

    async def refuse(self, call: ActionRequest, group: str, code: str, message: str = "") -> None:
        await self.send(Error(group, code, message, action_id=call.id))

    async def close(self, code: int, reason: str = "") -> None:
        await self.send_raw(frame(CLOSE, struct.pack(">H", code) + reason.encode()))

    async def drop(self) -> None:
        await trio.aclose_forcefully(self.stream)

    async def receive_frame(self) -> tuple[int, bytes]:
        first, second = await self._reader.exactly(2)
        assert second & 0x80, "a client masks its frames"
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack(">H", await self._reader.exactly(2))
        elif size == 127:
            (size,) = struct.unpack(">Q", await self._reader.exactly(8))
        mask = await self._reader.exactly(4)
        data = await self._reader.exactly(size)
        assert first & 0x80, "this client does not fragment"
        key = (mask * (size // 4 + 1))[:size]
        plain = (int.from_bytes(data) ^ int.from_bytes(key)).to_bytes(size) if size else b""
        return first & 0x0F, plain

    async def receive_data(self) -> bytes | str:
        """The next data frame. Raises StreamEnded after the client's close frame, or its end."""
        while True:
            opcode, data = await self.receive_frame()
            if opcode == PING:
                self.pings.append(data)
            elif opcode == PONG:
                self.pongs.append(data)
            elif opcode == CLOSE:
                self.close_code = struct.unpack(">H", data[:2])[0] if data else 1005
                raise StreamEnded
            else:
                return data.decode() if opcode == TEXT else data

    async def receive(self) -> ToServer:
        return self.codec.decode_to_server(await self.receive_data())

    async def hear(self) -> ToServer | ExtensionToServer:
        """The next message of either kind, acknowledgements left out: those are in `acks`."""
        while True:
            data = await self.receive_data()
            if not self.extended or isinstance(data, bytes) == self.codec.binary:
                return self.codec.decode_to_server(data)
            message = extension.decode_to_server(data)
            if not isinstance(message, extension.Ack):
                return message
            self.acks.append(message.received)

    async def hear_call(self) -> ActionRequest:
        """The next message of either kind, which must be a call."""
        message = await self.hear()
        assert isinstance(message, ActionRequest), message
        return message

    async def call(self) -> ActionRequest:
        """The next message, which must be a call."""
        message = await self.receive()
        assert isinstance(message, ActionRequest), message
        return message

    async def subscription(self) -> tuple[str, bool]:
        """The next message, which must be a subscription."""
        message = await self.receive()
        assert isinstance(message, SubscriptionRequest), message
        return message.event_name, message.subscribe

    async def gone(self, *, echo: bool = True) -> int | None:
        """Wait for the client's close frame, answer it, and end; its code."""
        try:
            while True:
                await self.receive_data()
        except StreamEnded:
            pass
        if echo and self.close_code is not None:
            try:
                await self.close(self.close_code)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
        await self.drop()
        return self.close_code


Handler = Callable[[HttpRequest], Awaitable[HttpAnswer]]


class FakeServer:
    """Answers HTTP with `handler`, and hands every WebSocket to `accept`."""

    last: Peer

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.requests: list[HttpRequest] = []
        self.dials = 0
        self.extended = False
        self.refusing = False
        self.upgrade: Callable[[HttpRequest], bytes | None] = lambda request: None
        self.streams: list[trio.abc.Stream] = []
        self.pair: Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]] = trio.testing.memory_stream_pair
        self._peers, self._accepted = trio.open_memory_channel[Peer](100)
        self.handler: Handler | None = None

    async def connect(self, host: str, port: int) -> trio.abc.Stream:
        self.dials += 1
        await trio.lowlevel.checkpoint()
        if self.refusing:
            raise ConnectionRefusedError("nobody listens")
        ours, theirs = self.pair()
        self.streams.append(ours)
        self.nursery.start_soon(self._serve, ours)
        return theirs

    async def accept(self) -> Peer:
        """The next WebSocket."""
        self.last = await self._accepted.receive()
        return self.last

    async def admit(self, conn_id: str = "conn-1") -> Peer:
        """The next WebSocket, admitted."""
        peer = await self.accept()
        await peer.init(conn_id)
        return peer

    async def _serve(self, stream: trio.abc.Stream) -> None:
        try:
            reader = Reader(stream)
            while True:
                request = await self._read(reader)
                if request.headers.get("upgrade", "").lower() == "websocket":
                    await self._upgrade(stream, reader, request)
                    return
                self.requests.append(request)
                answer = await self._answer(request)
                head = (
                    f"HTTP/1.1 {answer.status} X\r\ncontent-length: {len(answer.body)}\r\n"
                    f"content-type: {answer.content_type}\r\nx-rivet-ray-id: ray-1\r\n\r\n"
                )
                if answer.close:
                    await trio.aclose_forcefully(stream)
                    return
                await stream.send_all(head.encode() + answer.body)
        except (StreamEnded, CutShort, trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.aclose_forcefully(stream)

    async def _answer(self, request: HttpRequest) -> HttpAnswer:
        if "/metadata?" in request.target:
            return HttpAnswer(body=b"{}") if self.handler is None else await self.handler(request)
        if self.handler is None:
            return HttpAnswer(404, b'{"group":"api","code":"not_found","message":"no"}')
        return await self.handler(request)

    async def _read(self, reader: Reader) -> HttpRequest:
        head = (await reader.until(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.exactly(int(headers.get("content-length", "0")))
        return HttpRequest(method, target, headers, body)

    async def _upgrade(self, stream: trio.abc.Stream, reader: Reader, request: HttpRequest) -> None:
        refusal = self.upgrade(request)
        if refusal is not None:
            await stream.send_all(refusal)
            await trio.aclose_forcefully(stream)
            return
        digest = hashlib.sha1(request.headers["sec-websocket-key"].encode() + GUID).digest()
        await stream.send_all(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
            b"sec-websocket-protocol: " + (b"trivet.1" if self.extended else b"rivet") + b"\r\n"
            b"sec-websocket-accept: " + base64.b64encode(digest) + b"\r\n\r\n"
        )
        await self._peers.send(Peer(stream, reader, request, self.extended))


@attrs.frozen
class World:
    server: FakeServer
    client: Client

    @property
    def handle(self) -> Handle[Any]:
        return self.client.get_or_create("chatRoom", "general")

    @asynccontextmanager
    async def room(self, connection: Connection[Any] | None = None) -> AsyncGenerator[tuple[Connection[Any], Peer]]:
        """An admitted connection and its peer. At the end the last peer answers the closing handshake."""
        if connection is None:
            connection = self.handle.connect()
        async with open_quiet_nursery() as nursery:
            nursery.start_soon(self.server.admit)
            async with connection:
                yield connection, self.server.last
                nursery.start_soon(self.server.last.gone)


@asynccontextmanager
async def open_world(
    *, limits: Limits | None = None, encoding: Any = "bare", extended: bool = False, **options: Any
) -> AsyncGenerator[World]:
    """A client and its server; `extended`: one that speaks trivet's extension."""
    async with open_quiet_nursery() as nursery:
        server = FakeServer(nursery)
        server.extended = extended
        async with open_client(
            "http://fake:6420", connect=server.connect, limits=limits, encoding=encoding, **options
        ) as client:
            yield World(server, client)


async def soon(condition: Callable[[], bool]) -> None:
    """Wait, in virtual time at most a minute, until something is so."""
    with trio.fail_after(60):
        while not condition():  # noqa: ASYNC110 - what tests wait for has no event
            await trio.sleep(0.01)
