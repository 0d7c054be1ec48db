"""Servers on real sockets, peers that can misbehave, and what must be as it was afterwards."""

import json
import logging
import os
import socket
import struct
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
import trio

from trivet import Actor, Event, Limits, Registry, Response, Server, UserError, WebSocket, action, serve
from trivet import Request as RawRequest
from trivet.runtime.instance import Instance

LOCALHOST: Final = "127.0.0.1"
PATIENCE: Final = 60.0
"""Seconds of real time after which what has not happened will not, also on a machine that has much else to do."""

STARVED: Final = 20.0
"""Seconds of real time in which a call is answered, whatever others do. Far too many for a machine that is idle."""

KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT: Final = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


class Room(Actor[None, None, object]):
    """What the tests of this folder connect to."""

    ticked = Event(int)
    filled = Event(int, str)
    hidden = Event(int)

    @hidden.can_subscribe
    def may_see(self, conn: object) -> bool:
        return False

    @action
    def echo(self, text: str) -> str:
        return text

    @action
    def tick(self, first: int, count: int = 1) -> int:
        for number in range(first, first + count):
            self.broadcast(self.ticked, number)
        return first + count

    @action
    async def tick_slowly(self, first: int, count: int) -> int:
        for number in range(first, first + count):
            self.broadcast(self.ticked, number)
            await trio.lowlevel.checkpoint()
        return first + count

    @action
    def fill(self, number: int, size: int) -> None:
        self.broadcast(self.filled, number, "x" * size)

    @action
    def whoami(self) -> str:
        return self.conn.id

    @action
    def send_to(self, conn_id: str, number: int, size: int) -> bool:
        return self.conns[conn_id].send(self.filled, number, "x" * size)

    @action
    def fail(self) -> None:
        raise UserError("no", code="my_code")

    async def on_request(self, request: RawRequest) -> Response:
        return Response(request.body)

    async def on_websocket(self, websocket: WebSocket) -> None:
        async for message in websocket:
            await websocket.send(message)


REGISTRY: Final = Registry(Room)


WHOLE_TEST: Final = 170.0
"""Seconds of real time for a test: a little less than pytest allows, who says less of where it hung."""

_dialed: Final[list[trio.socket.SocketType]] = []
"""What was opened towards the running server, closed with it."""


async def until(condition: Callable[[], bool], what: str = "") -> None:
    """Wait for what other tasks and the network bring about. Goes by real time, whatever Trio's clock says."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen: {what or condition}"
        await trio.to_thread.run_sync(time.sleep, 0.002)


@asynccontextmanager
async def running(
    registry: Registry = REGISTRY,
    limits: Limits | None = None,
    *,
    send_buffer: int | None = None,
    within: float = WHOLE_TEST,
) -> AsyncGenerator[Server]:
    """A server, cancelled at the end. `send_buffer`: about what the kernel holds for each of its connections."""
    listeners = await trio.open_tcp_listeners(0, host=LOCALHOST)
    if send_buffer is not None:
        for listener in listeners:
            listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    async with trio.open_nursery() as nursery:

        async def start(*, task_status: trio.TaskStatus[Server]) -> None:
            await serve(registry, listeners=listeners, limits=limits, task_status=task_status)

        server: Server = await nursery.start(start)
        try:
            with trio.fail_after(within):
                yield server
        finally:
            nursery.cancel_scope.cancel()
            while _dialed:
                _dialed.pop().close()


def instance_of(server: Server, key: str = "k") -> Instance:
    """The live actor under that key."""
    (instance,) = [instance for instance in server.host.instances() if instance.key == (key,)]
    return instance


def to(rest: str, name: str = "room", key: str = "k") -> str:
    """The request target of an actor's path."""
    join = "&" if "?" in rest else "?"
    return f"/gateway/{name}{rest}{join}rvt-namespace=default&rvt-method=getOrCreate&rvt-runner=default&rvt-key={key}"


async def dial(port: int, *, receive_buffer: int | None = None, remember: bool = True) -> trio.SocketStream:
    """A TCP connection; `receive_buffer` is about what the kernel takes while nobody reads.

    Those that are remembered are closed with the server, if not before.
    """
    sock = trio.socket.socket()
    if remember:
        _dialed.append(sock)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    await sock.connect((LOCALHOST, port))
    return trio.SocketStream(sock)


def vanish(stream: trio.SocketStream) -> None:
    """Make the coming close a reset, as when a process dies or a network breaks."""
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


# -- frames -----------------------------------------------------------------------------------------------------------


@attrs.frozen
class Frame:
    opcode: int
    payload: bytes

    @property
    def close(self) -> tuple[int, str]:
        assert self.opcode == CLOSE, self
        return (struct.unpack("!H", self.payload[:2])[0], self.payload[2:].decode()) if self.payload else (1005, "")


class Frames:
    """Reads a server's frames strictly: whatever RFC 6455 does not allow a server is an assertion."""

    def __init__(self) -> None:
        self.buffer = bytearray()

    def next(self) -> Frame | None:
        buffer = self.buffer
        if len(buffer) < 2:
            return None
        first, size = buffer[0], buffer[1]
        assert first & 0x70 == 0, f"reserved bits: {bytes(buffer[:40])!r}"
        assert first & 0x80, f"a server that fragments: {bytes(buffer[:40])!r}"
        assert size < 128, f"a masked frame from a server: {bytes(buffer[:40])!r}"
        at = 2
        if size == 126:
            if len(buffer) < 4:
                return None
            (size,) = struct.unpack_from("!H", buffer, 2)
            assert size >= 126
            at = 4
        elif size == 127:
            if len(buffer) < 10:
                return None
            (size,) = struct.unpack_from("!Q", buffer, 2)
            assert size >= 1 << 16
            at = 10
        opcode = first & 15
        assert opcode in (TEXT, BINARY, CLOSE, PING, PONG), f"opcode {opcode}: {bytes(buffer[:40])!r}"
        assert opcode < 8 or size < 126
        if len(buffer) < at + size:
            return None
        payload = bytes(buffer[at : at + size])
        del buffer[: at + size]
        if opcode == TEXT:
            payload.decode()
        return Frame(opcode, payload)


def client_frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """A client's frame, right unless asked for otherwise. The mask is zero, which is allowed."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    bit = 0x80 if masked else 0
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", first, bit | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", first, bit | 126, size)
    else:
        head = struct.pack("!BBQ", first, bit | 127, size)
    return head + (bytes(4) if masked else b"") + payload


def close_payload(code: int, reason: bytes = b"") -> bytes:
    return struct.pack("!H", code) + reason


def upgrade(target: str, encoding: str | None = "json", headers: Iterable[str] = ()) -> bytes:
    """A WebSocket's opening request."""
    offered = "rivet" if encoding is None else f"rivet, rivet_encoding.{encoding}"
    lines = [
        f"GET {target} HTTP/1.1",
        "Host: localhost",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {KEY}",
        f"Sec-WebSocket-Protocol: {offered}",
        *headers,
        "",
        "",
    ]
    return "\r\n".join(lines).encode()


def action_request(call_id: int, name: str, args: Sequence[object]) -> bytes:
    val = {"id": ["$BigInt", str(call_id)], "name": name, "args": args}
    return json.dumps({"body": {"tag": "ActionRequest", "val": val}}).encode()


def subscription(event: str, subscribe: bool = True) -> bytes:
    val = {"eventName": event, "subscribe": subscribe}
    return json.dumps({"body": {"tag": "SubscriptionRequest", "val": val}}).encode()


class EndOfStream(Exception):
    """The server has ended the connection."""


class Peer:
    """A WebSocket client made by hand, which does only what it is told: no pongs, no answers to close frames."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.frames = Frames()
        self.conn_id = ""
        self._ids = 0
        self.passed_over: list[Any] = []
        """What came while an answer was waited for, in order."""

    async def open(self, target: str, encoding: str | None = "json") -> "Peer":
        """The opening handshake."""
        await self.stream.send_all(upgrade(target, encoding))
        await self.upgraded()
        return self

    async def upgraded(self) -> None:
        """Read the answer to the opening request."""
        buffer = self.frames.buffer
        while b"\r\n\r\n" not in buffer:
            await self._receive()
        head, _, rest = bytes(buffer).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        assert ACCEPT in head
        self.frames.buffer = bytearray(rest)

    async def _receive(self) -> None:
        try:
            with trio.fail_after(PATIENCE):
                data = await self.stream.receive_some(1 << 20)
        except trio.BrokenResourceError:
            data = b""
        if not data:
            raise EndOfStream
        self.frames.buffer += data

    async def frame(self) -> Frame:
        """The next frame. Raises EndOfStream."""
        while (frame := self.frames.next()) is None:
            await self._receive()
        return frame

    async def message(self) -> tuple[str, Any]:
        """The next message of the json encoding: tag and content."""
        while (frame := await self.frame()).opcode == PING:
            pass  # A test may last longer than the silence that a server wonders about.
        assert frame.opcode == TEXT, frame
        body = json.loads(frame.payload)["body"]
        return body["tag"], body["val"]

    async def init(self) -> "Peer":
        tag, val = await self.message()
        assert tag == "Init", (tag, val)
        self.conn_id = val["connectionId"]
        return self

    async def send(self, opcode: int, payload: bytes = b"", **options: Any) -> None:
        await self.stream.send_all(client_frame(opcode, payload, **options))

    async def subscribe(self, *events: str) -> "Peer":
        """In force when it returns."""
        for event in events:
            await self.send(TEXT, subscription(event))
        await self.call("whoami")
        return self

    async def act(self, name: str, *args: object) -> int:
        self._ids += 1
        await self.send(TEXT, action_request(self._ids, name, args))
        return self._ids

    async def answer(self, call_id: int) -> Any:
        """The output of a call; an Error's content is raised as AssertionError."""
        while True:
            tag, val = await self.message()
            if tag in ("ActionResponse", "Error"):
                assert tag == "ActionResponse", val
                assert val["id"] in (call_id, ["$BigInt", str(call_id)]), val
                return val.get("output")
            self.passed_over.append((tag, val))

    async def call(self, name: str, *args: object) -> Any:
        return await self.answer(await self.act(name, *args))

    async def closed(self, *, answer: bool = True) -> tuple[int, str]:
        """The server's close frame, whatever comes before it; then nothing else may come."""
        while (frame := await self.frame()).opcode != CLOSE:
            pass
        if answer:
            try:
                await self.send(CLOSE, frame.payload)
            except trio.BrokenResourceError:
                pass  # It said what it had to say.
        await self.ended()
        return frame.close

    async def ended(self) -> None:
        """The end of the stream, between frames."""
        try:
            frame = await self.frame()
        except EndOfStream:
            assert not self.frames.buffer, f"half a frame: {bytes(self.frames.buffer[:80])!r}"
        else:
            raise AssertionError(f"a frame after the end: {frame}")


def events_in(messages: Iterable[tuple[str, Any]], name: str) -> list[Any]:
    """The arguments of those events."""
    return [val["args"] for tag, val in messages if tag == "Event" and val["name"] == name]


async def connect(server: Server, *, key: str = "k", **options: Any) -> Peer:
    """An events connection, admitted."""
    peer = Peer(await dial(server.port, **options))
    return await (await peer.open(to("/connect", key=key))).init()


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    """Everything until the end, a clean one or not."""
    data = b""
    try:
        with trio.fail_after(PATIENCE):
            while piece := await stream.receive_some():
                data += piece
    except trio.BrokenResourceError:
        pass
    return data


# -- what must not change ---------------------------------------------------------------------------------------------


class Innocent:
    """A connection that keeps calling, and counts. Any wrong answer, and any end of it, fails the test."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.calls = 0
        self.longest = 0.0

    async def run(self) -> None:
        while True:
            began = time.monotonic()
            text = f"call {self.calls}"
            assert await self.peer.call("echo", text) == text
            self.longest = max(self.longest, time.monotonic() - began)
            self.calls += 1
            # Not so often that it takes the processor from what it is there to watch.
            await trio.to_thread.run_sync(time.sleep, 0.001)


@attrs.frozen
class _Resources:
    connections: int
    websockets: int
    conns: int
    tasks: int
    descriptors: int
    queued_bytes: int


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def _resources(server: Server) -> _Resources:
    gateway, host = server.statistics().gateway, server.statistics().host
    return _Resources(
        gateway.connections,
        gateway.websockets,
        host.connections,
        trio.lowlevel.current_statistics().tasks_living - host.actors,  # which live on, with a task each
        descriptors(),
        host.queued_bytes,
    )


@asynccontextmanager
async def unharmed(server: Server) -> AsyncGenerator[Innocent]:
    """Whatever is done to the server inside leaves no task, connection, descriptor or byte, and an innocent intact."""
    peer = await connect(server, key="innocent")
    innocent = Innocent(peer)
    async with trio.open_nursery() as nursery:
        # Its waiting takes a worker thread, and that a descriptor or two: here, so that they count as there before.
        await trio.to_thread.run_sync(time.sleep, 0)
        before = _resources(server)
        nursery.start_soon(innocent.run)
        await until(lambda: innocent.calls > 0)
        yield innocent
        calls = innocent.calls
        await until(lambda: innocent.calls > calls, "the innocent connection gets no answer any more")
        nursery.cancel_scope.cancel()
    try:
        await until(lambda: _resources(server) == before)
    except AssertionError:
        raise AssertionError(f"before {before}, after {_resources(server)}") from None
    await peer.stream.aclose()
    await until(lambda: server.statistics().host.connections == before.conns - 1)


def logged(records: Iterable[logging.LogRecord]) -> list[str]:
    """What was logged as a failure, with the exception's text."""
    found: list[str] = []
    for record in records:
        if record.levelno >= logging.ERROR:
            exception = record.exc_info[1] if record.exc_info else None
            found.append(record.getMessage() + (f": {exception!r}" if exception is not None else ""))
    return found
