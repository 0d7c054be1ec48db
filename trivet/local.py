"""Clients and actors in one process, without a socket."""

import struct
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final, TypeAlias, cast
from urllib.parse import urlsplit

import trio

from trivet.client.api import Client
from trivet.client.backend import Backend, ById, MessageStream, Target
from trivet.client.contracts import Contracts
from trivet.client.ending import copy_error
from trivet.client.endpoint import DEFAULT_NAMESPACE
from trivet.client.outgoing import Frame
from trivet.errors import ActorError, PublicError, http_status
from trivet.limits import Limits
from trivet.nurseries import Ungrouped, open_quiet_nursery
from trivet.protocol import extension
from trivet.protocol.closing import format_reason
from trivet.protocol.codec import Codec, codec_for
from trivet.protocol.subprotocols import SessionClaim
from trivet.protocol.values import UNDEFINED, Value
from trivet.raw import Request, Response, WebSocket, WebSocketClosed
from trivet.registry import Registry, check_registry
from trivet.runtime.answers import error_message
from trivet.runtime.context import Chain, current_chain
from trivet.runtime.host import Host, open_host
from trivet.runtime.instance import Instance
from trivet.runtime.session import Session
from trivet.store import Store, check_store

PIPE_SIZE: Final = 64 * 1024
"""Bytes that wait between an actor and a client: about what the buffers of a socket hold, so that a client that does
not read is as slow here as over a network.
"""

_Before: TypeAlias = Callable[[], Awaitable[None]]

_CODEC: Final = cast("Codec", codec_for("bare"))
_JSON: Final = cast("Codec", codec_for("json"))
_MESSAGE: Final = 0
_CLOSE: Final = 1
_EXTENSION: Final = 2
_HEADER: Final = struct.Struct(">BI")
_CODE: Final = struct.Struct(">H")


class LocalFormat:
    """Frames of the in-process transport: a kind and a length, then a message, or a close code and reason.

    A message is one of the protocol's, encoded, or one of the extension's, in JSON.
    """

    codec = _CODEC

    def frame(self, payload: bytes) -> bytes:
        return _HEADER.pack(_MESSAGE, len(payload)) + payload

    def extension_frame(self, payload: bytes) -> bytes:
        return _HEADER.pack(_EXTENSION, len(payload)) + payload

    def close_frame(self, code: int, reason: str) -> bytes:
        content = _CODE.pack(code) + reason.encode()
        return _HEADER.pack(_CLOSE, len(content)) + content


FORMAT: Final = LocalFormat()


class Pipe:
    """The way from an actor to one client: a bounded run of bytes. The transport of a session, and its reader."""

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._room = trio.lowlevel.ParkingLot()
        self._content = trio.lowlevel.ParkingLot()
        self._buffer = bytearray()

    # -- the session's side -------------------------------------------------------------------------------------------

    def send_nowait(self, data: bytes) -> int:
        """Take what there is room for."""
        if self._ended:
            raise trio.BrokenResourceError
        taken = min(len(data), PIPE_SIZE - self._size)
        if taken:
            self._chunks.append(data if taken == len(data) else data[:taken])
            self._size += taken
            self._content.unpark_all()
        return taken

    async def send_all(self, data: bytes) -> None:
        """Wait for room until all is taken."""
        rest = memoryview(data)
        await trio.lowlevel.checkpoint()
        while taken := len(rest):
            taken = self.send_nowait(bytes(rest[: PIPE_SIZE - self._size]))
            rest = rest[taken:]
            if rest:
                await self._room.park()

    def finish(self) -> None:
        """The client ends it when it reads the close frame."""

    def abort(self) -> None:
        """End at once."""
        self._ended = True
        self._room.unpark_all()
        self._content.unpark_all()

    # -- the client's side --------------------------------------------------------------------------------------------

    async def receive(self) -> tuple[int, bytes] | None:
        """The next frame's kind and content; None at the end."""
        await trio.lowlevel.checkpoint()
        while True:
            if (frame := self._next_frame()) is not None:
                return frame
            if self._chunks:
                self._buffer += b"".join(self._chunks)
                self._chunks.clear()
                self._size = 0
                self._room.unpark_all()
            elif self._ended:
                return None
            else:
                await self._content.park()

    def _next_frame(self) -> tuple[int, bytes] | None:
        if len(self._buffer) < _HEADER.size:
            return None
        kind, length = _HEADER.unpack_from(self._buffer)
        end = _HEADER.size + length
        if len(self._buffer) < end:
            return None
        content = bytes(self._buffer[_HEADER.size : end])
        del self._buffer[:end]
        return kind, content


class _LocalStream:
    """The messages of one connection: to its session directly, from it through the pipe."""

    extended = True

    def __init__(self, session: Session, pipe: Pipe, limits: Limits, before: _Before | None) -> None:
        self._before = before
        self._session = session
        self._pipe = pipe
        self._limits = limits
        self._closed: WebSocketClosed | None = None
        self._answered = trio.Event()

    async def send(self, frame: Frame) -> None:
        await trio.lowlevel.checkpoint()
        if self._before is not None:
            await self._before()
        if self._closed is not None:
            raise WebSocketClosed(self._closed.code, self._closed.reason)
        # Through the encoding, so that no value is shared between the actor and its client.
        chain = cast("Chain", frame.context)
        if frame.extension:
            self._session.receive_extension(extension.decode_to_server(frame.payload))
        else:
            message = _CODEC.decode_to_server(frame.payload)
            self._session.receive(message, size=len(frame.payload), chain=chain)

    async def receive(self) -> tuple[bytes, bool]:
        if self._closed is None:
            frame = await self._pipe.receive()
            if frame is not None and frame[0] != _CLOSE:
                return frame[1], frame[0] == _EXTENSION
            code, reason = 1006, ""
            if frame is not None:
                (code,) = _CODE.unpack_from(frame[1])
                reason = frame[1][_CODE.size :].decode()
            self._closed = WebSocketClosed(code, reason)
            self._answered.set()
        raise WebSocketClosed(self._closed.code, self._closed.reason)

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        self._session.end(code, reason)
        # The close frame comes after what is queued; `receive`, in the connection's reader, finds it.
        with trio.move_on_after(self._limits.close_timeout):
            await self._answered.wait()
        self._pipe.abort()


class _Side:
    """One direction of an in-process WebSocket."""

    def __init__(self, size: int) -> None:
        self.send, self.receive = trio.open_memory_channel[str | bytes](size)
        self.closed: tuple[int, str] | None = None


class LocalWebSocket(WebSocket):
    """One end of a raw WebSocket inside the process."""

    def __init__(self, out: _Side, into: _Side, limits: Limits, request: Request | None) -> None:
        self._out = out
        self._into = into
        self._limits = limits
        self.request = request

    async def send(self, data: str | bytes) -> None:
        size = len(data.encode() if isinstance(data, str) else data)
        if size > self._limits.raw_message:
            await self.aclose(1009, "message too big")
            raise self._end()
        try:
            await self._out.send.send(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise self._end() from None

    async def receive(self) -> str | bytes:
        try:
            return await self._into.receive.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise self._end() from None

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        if self._out.closed is None:
            self._out.closed = (code, reason)
        self._end()
        self._out.send.close()
        self._into.receive.close()
        await trio.lowlevel.checkpoint()

    def _end(self) -> WebSocketClosed:
        if self.close_code is None:
            self.close_code, self.close_reason = self._into.closed or self._out.closed or (1006, "")
        return WebSocketClosed(self.close_code, self.close_reason)


class LocalBackend(Backend):
    """The actors of a host in the same process. Calls run in their caller's task.

    `before` is awaited before anything reaches another actor: an actor's own changes are saved first.
    """

    def __init__(self, host: Host, namespace: str, before: _Before | None = None) -> None:
        self._before = before
        self._host = host
        self._namespace = namespace
        self._limits = host.limits

    @property
    def codec(self) -> Codec:
        return _CODEC

    def capture_context(self) -> Chain:
        return current_chain()

    async def _instance(self, target: Target, *, soon: bool = False) -> Instance:
        await self._save_first()
        if isinstance(target, ById):
            return await self._host.by_id(target.actor_id, soon=soon)
        if target.creates:
            instance, _ = await self._host.get_or_create(
                self._namespace, target.name, target.key, _copy(target.input), soon=soon
            )
            return instance
        return await self._host.get(self._namespace, target.name, target.key, soon=soon)

    async def resolve(self, target: Target) -> str:
        try:
            return (await self._instance(target)).actor_id
        except PublicError as error:
            raise copy_error(error) from None

    async def _save_first(self) -> None:
        if self._before is not None:
            await self._before()

    async def create(self, name: str, key: tuple[str, ...], input: Value) -> str:
        await self._save_first()
        try:
            return (await self._host.create(self._namespace, name, key, _copy(input))).actor_id
        except PublicError as error:
            raise copy_error(error) from None

    async def call(self, target: Target, action: str, args: list[Value], params: Value, timeout: float) -> Value:
        payload = _CODEC.encode_action_request(args)
        if len(payload) > self._limits.incoming_message:
            raise ActorError("message", "incoming_too_long", "Incoming message too long")
        request = Request("POST", f"local:///action/{action}")
        try:
            instance = await self._instance(target, soon=True)
            output = await instance.call(
                action, _CODEC.decode_action_request(payload), params=_copy(params), request=request
            )
        except PublicError as error:
            raise copy_error(error) from None
        answer = _CODEC.encode_action_response(output)
        if len(answer) > self._limits.outgoing_message:
            raise ActorError("message", "outgoing_too_long", "Outgoing message too long")
        return _CODEC.decode_action_response(answer)

    @asynccontextmanager
    async def open_stream(
        self, target: Target, params: Value, claim: SessionClaim | None
    ) -> AsyncGenerator[MessageStream]:
        try:
            instance = await self._instance(target)
        except PublicError as error:
            raise copy_error(error) from None
        pipe = Pipe()
        request = Request("GET", "local:///connect")
        # A pipe does not break, so nothing is ever resumed: leaving it ends the session.
        async with instance.open_session(pipe, FORMAT, params=_copy(params), request=request, extended=True) as session:
            try:
                yield _LocalStream(session, pipe, self._limits, self._before)
            finally:
                if not session.ended:
                    session.end(1000, "")
                pipe.abort()

    async def fetch(
        self,
        target: Target,
        path: str,
        method: str,
        headers: Mapping[str, str],
        body: bytes,
        params: Value,
        timeout: float,
    ) -> Response:
        url = urlsplit(path)._replace(fragment="").geturl()
        request = Request(
            method,
            "local://" + (url if url.startswith("/") else f"/{url}"),
            {name.lower(): value for name, value in headers.items()},
            None,
            body,
        )
        try:
            instance = await self._instance(target)
        except PublicError as error:
            raise copy_error(error) from None
        try:
            return await instance.fetch(request, params=_copy(params))
        except PublicError as error:  # over a network these are answers, too
            content = _JSON.encode_error(error_message(error, actor=instance.ref))
            return Response(content, http_status(error), {"content-type": _JSON.content_type})

    @asynccontextmanager
    async def websocket(self, target: Target, path: str, params: Value) -> AsyncGenerator[WebSocket]:
        try:
            instance = await self._instance(target)
        except PublicError as error:
            raise copy_error(error) from None
        there, back = _Side(64), _Side(64)
        request = Request("GET", "local:///websocket" + (path if path.startswith("/") else f"/{path}"))
        ours = LocalWebSocket(there, back, self._limits, request)
        theirs = LocalWebSocket(back, there, self._limits, request)
        async with open_quiet_nursery() as nursery:
            done = trio.Event()
            nursery.start_soon(_serve, instance, theirs, _copy(params), done)
            yield ours
            await ours.aclose()
            with trio.move_on_after(self._limits.close_timeout):
                await done.wait()


async def _serve(instance: Instance, websocket: LocalWebSocket, params: Value, done: trio.Event) -> None:
    try:
        await instance.serve_websocket(websocket, params=params)
        await websocket.aclose()
    except PublicError as error:
        await websocket.aclose(1011, format_reason(error.group, error.code))
    finally:
        done.set()


def _copy(value: Value) -> Value:
    """The value as it would arrive over a network."""
    if value is UNDEFINED:
        return value
    return _CODEC.decode_action_request(_CODEC.encode_action_request([value]))[0]


def client_for_host(host: Host, namespace: str = DEFAULT_NAMESPACE, before: _Before | None = None) -> Client:
    """A client of the actors of a host. It needs no scope: connections have their own, calls run in their callers."""
    registry = host.registry
    converter = next((definition.converter for definition in registry.values()), None)
    contracts = Contracts(converter, registry.rename, registry.values())
    return Client(LocalBackend(host, namespace, before), contracts, host.limits)


@asynccontextmanager
async def open_local(
    registry: Registry,
    *,
    store: Store | None = None,
    limits: Limits | None = None,
    namespace: str = DEFAULT_NAMESPACE,
    wall_clock: Callable[[], float] | None = None,
) -> AsyncGenerator[Client]:
    """Actors and their client for the time of the `async with`, in the caller's own task tree, without a socket.

    The `store` keeps the actors, and stays open at the end; without one they are kept in memory. `wall_clock` gives
    seconds since 1970, for schedules; by default it is the machine's, and in virtual time, as of a MockClock, it goes
    with Trio's, from 2030 on.

    The client and its connections have the same API and guarantees as those of `open_client`. Leaving stops the actors
    within `Limits.shutdown_grace`; leaving by an exception ends them at once, and the exception comes out alone.
    """
    check_registry(registry, "open_local")
    check_store(store, "open_local")
    ungrouped = Ungrouped()
    with ungrouped.outside():
        async with open_host(registry, limits, store=store, wall_clock=wall_clock) as host:
            with ungrouped.inside():
                yield client_for_host(host, namespace)
