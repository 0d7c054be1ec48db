"""One WebSocket of a client, over trio-websocket.

trio-websocket parses and frames. What it leaves to its users is done here: a send that is cancelled midway ends the
socket instead of leaving half a frame on it; opening, closing and silence have deadlines; a reader that ends, or fails,
ends the opening too; and no error comes out in a group.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection, wrap_client_stream
from wsproto.utilities import ProtocolError

from trivet.errors import ConnectionLost
from trivet.limits import Limits
from trivet.nurseries import open_quiet_nursery
from trivet.raw import Request, WebSocket, WebSocketClosed

GOODBYE_TIMEOUT = 0.5
"""How long writing a close frame may hold up a task that is being cancelled, in seconds."""


class Rejected(Exception):
    """The server answered the upgrade with something else."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers
        self.body = body


class _WatchedStream(trio.abc.Stream):
    """Knows for how long its reader has been waiting for bytes, and when a write is done."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._waiting_since: float | None = None
        self.torn = False
        """A write was cancelled: the peer may have half a frame, and would take what comes next for the rest of it."""
        self.after_send: Callable[[], None] | None = None

    @property
    def silence(self) -> float:
        """Seconds. None pass while the reader is busy: then it is not the peer that is silent."""
        return 0.0 if self._waiting_since is None else trio.current_time() - self._waiting_since

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        self._waiting_since = trio.current_time()
        try:
            return await self._stream.receive_some(max_bytes)
        finally:
            self._waiting_since = None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.torn:
            raise trio.BrokenResourceError("an earlier write was cut short")
        try:
            await self._stream.send_all(data)
        except BaseException:
            self.torn = True
            raise
        if self.after_send is not None:
            self.after_send()

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


class _ReaderNursery:
    """Stands in for the nursery in which trio-websocket starts its reader.

    The reader raises when the server refuses the upgrade, and in some races of a closing handshake; and it may return
    without letting the opening know. `ended` is called in each case.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.error: Exception | None = None
        self.ended: Callable[[], None] = lambda: None

    def start_soon(self, reader: Callable[[], Awaitable[None]]) -> None:
        self._nursery.start_soon(self._run, reader)

    async def _run(self, reader: Callable[[], Awaitable[None]]) -> None:
        try:
            await reader()
        except Exception as error:
            self.error = error
        finally:
            self.ended()


class ClientWebSocket(WebSocket):
    """One WebSocket. Pings are answered, and silence noticed, as long as what arrives is received."""

    def __init__(self, connection: WebSocketConnection, stream: _WatchedStream, limits: Limits) -> None:
        self._connection = connection
        self._stream = stream
        self._limits = limits
        self._sending = trio.StrictFIFOLock()
        self._dead = ""
        self._closing: trio.Event | None = None
        self.subprotocol = connection.subprotocol
        """What the server chose of those that were offered."""

    async def send(self, data: str | bytes) -> None:
        async with self._sending:
            try:
                await self._connection.send_message(data)
            except (ConnectionClosed, ProtocolError):
                raise self._closed() from None
            except trio.Cancelled:
                if self._stream.torn:
                    await trio.aclose_forcefully(self._stream)
                raise

    async def receive(self) -> str | bytes:
        try:
            return await self._connection.get_message()
        except ConnectionClosed:
            if self._closing is not None:  # the handshake goes on: how it ends is known after it
                await self._closing.wait()
            raise self._closed() from None

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        if self._closing is not None:
            await self._closing.wait()
            return
        self._closing = trio.Event()
        try:
            with trio.move_on_after(self._limits.close_timeout):
                await self._connection.aclose(code, reason or None)
        except (ConnectionClosed, ProtocolError):
            pass
        finally:
            self._closed()
            self._closing.set()
            await trio.aclose_forcefully(self._stream)

    async def say_goodbye(self) -> None:
        """Send a close frame if that is possible at once, and do not wait for the answer."""
        with trio.move_on_after(GOODBYE_TIMEOUT, shield=True) as scope:
            self._stream.after_send = scope.cancel
            try:
                await self._connection.aclose()
            except (ConnectionClosed, ProtocolError):
                pass

    def _closed(self) -> WebSocketClosed:
        if self.close_code is None:
            closed = self._connection.closed
            if self._dead or closed is None:
                self.close_code, self.close_reason = 1006, self._dead
            else:
                self.close_code, self.close_reason = int(closed.code), closed.reason or ""
        return WebSocketClosed(self.close_code, self.close_reason)

    async def keep_alive(self, nursery: trio.Nursery) -> None:
        """Ping a silent peer, and end the socket of a dead one."""
        interval, dead = self._limits.ping_interval, self._limits.ping_timeout
        pinged = False
        while True:
            silence = self._stream.silence
            if silence >= dead:
                self._dead = f"no sign of life for {dead:g} s"
                await trio.aclose_forcefully(self._stream)
                return
            if silence < interval:
                pinged = False
            elif not pinged:
                pinged = True
                nursery.start_soon(self._ping)
            await trio.sleep((interval if silence < interval else dead) - silence)

    async def _ping(self) -> None:
        try:
            async with self._sending:
                with trio.CancelScope() as scope:
                    # Only the sending is of interest: any byte that comes is a sign of life.
                    self._stream.after_send = scope.cancel
                    try:
                        await self._connection.ping()
                    finally:
                        self._stream.after_send = None
        except (ConnectionClosed, ProtocolError):
            pass


@asynccontextmanager
async def open_websocket(
    open_stream: Callable[[], Awaitable[trio.abc.Stream]],
    host: str,
    resource: str,
    *,
    url: str,
    subprotocols: Sequence[str],
    headers: Sequence[tuple[str, str]],
    limits: Limits,
    max_message: int,
    queue: int = 1,
) -> AsyncGenerator[ClientWebSocket]:
    """Open a WebSocket, and end it on leaving: at once, with a close frame where that costs no waiting.

    `host` is the Host header's value, `resource` the path and query; at most `queue` received messages wait, and one of
    more than `max_message` bytes ends the socket with 1009. Raises ConnectionLost (not executed), or Rejected when the
    server answers without upgrading.
    """
    async with open_quiet_nursery() as nursery:
        stream = _WatchedStream(await open_stream())
        try:
            reader = _ReaderNursery(nursery)
            connection = await _shake_hands(
                stream, reader, host, resource, subprotocols, headers, limits, max_message, queue
            )
            websocket = ClientWebSocket(connection, stream, limits)
            websocket.request = Request("GET", url, {name.lower(): value for name, value in headers})
            nursery.start_soon(websocket.keep_alive, nursery)
            try:
                yield websocket
            finally:
                await websocket.say_goodbye()
        finally:
            await trio.aclose_forcefully(stream)


async def _shake_hands(
    stream: _WatchedStream,
    reader: _ReaderNursery,
    host: str,
    resource: str,
    subprotocols: Sequence[str],
    headers: Sequence[tuple[str, str]],
    limits: Limits,
    max_message: int,
    queue: int,
) -> WebSocketConnection:
    connection: WebSocketConnection | None = None
    with trio.CancelScope() as opening:
        opening.deadline = trio.current_time() + limits.handshake_timeout
        reader.ended = opening.cancel
        connection = await wrap_client_stream(
            cast("Any", reader),  # it only ever starts a task
            cast("Any", stream),  # any stream will do
            host,
            resource,
            subprotocols=subprotocols,
            extra_headers=[(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers],
            message_queue_size=queue,
            max_message_size=max_message,
            receive_buffer_size=None,
        )
    reader.ended = lambda: None
    if connection is not None:
        return connection
    error = reader.error
    if isinstance(error, ConnectionRejected):
        names = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in error.headers}
        raise Rejected(error.status_code, names, bytes(error.body or b""))
    if trio.current_time() >= opening.deadline:
        message = f"{host} did not answer the WebSocket handshake within {limits.handshake_timeout:g} s"
    else:
        message = f"{host} closed the connection during the WebSocket handshake"
    raise ConnectionLost(message, maybe_executed=False) from error
