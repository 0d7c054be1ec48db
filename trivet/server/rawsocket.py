"""The server's side of a low-level WebSocket: what an actor's `on_websocket` gets."""

from collections import deque
from typing import Final, final

import trio

from trivet.limits import KIB, MIB, Limits
from trivet.raw import Request, WebSocket, WebSocketClosed
from trivet.runtime.timers import Timers
from trivet.server.budget import Share
from trivet.server.frames import PING_FRAME, close_frame, message_frame, pong_frame
from trivet.server.heartbeat import Heartbeat
from trivet.server.http import HttpError
from trivet.server.incoming import (
    INVALID_UTF8,
    CloseReceived,
    Incoming,
    IncomingMessages,
    MessageTooLong,
    PingReceived,
)
from trivet.server.peers import RATE_LIMIT, TRY_AGAIN_LATER, Visit
from trivet.server.wire import Wire

_NORMAL: Final = 1000
_ABNORMAL: Final = 1006
_TOO_BIG: Final = 1009

# Received messages that nobody has asked for yet: above either, nothing is read, and TCP slows the peer down.
_QUEUED_MESSAGES: Final = 64
_QUEUED_BYTES: Final = MIB

# Pongs that could not be sent yet. A peer that asks for more without reading gets none.
_CONTROL_BYTES: Final = 4 * KIB

_FRAMES_BETWEEN_CHECKPOINTS: Final = 64


@final
class ServerWebSocket(WebSocket):
    """One raw WebSocket. `read` is to run in a task of `nursery` as long as the socket is in use."""

    def __init__(
        self,
        wire: Wire,
        request: Request,
        *,
        limits: Limits,
        timers: Timers,
        nursery: trio.Nursery,
        trailing_data: bytes,
        share: Share,
        visit: Visit | None = None,
    ) -> None:
        self.request = request
        self._wire = wire
        self._limits = limits
        self._nursery = nursery
        self._share = share
        self._visit = visit
        self._incoming = IncomingMessages(limits.raw_message, trailing_data)
        self._queue: deque[str | bytes] = deque()
        self._queued_bytes = 0
        self._receivers = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()
        self._sending = trio.Lock()
        self._control = bytearray()
        self._flushing = False
        self._closing = False
        self._listening = True
        self._ended = trio.Event()
        self._heartbeat = Heartbeat(timers, limits, ping=self._ping, dead=self._end)

    # -- out ----------------------------------------------------------------------------------------------------------

    async def send(self, data: str | bytes) -> None:
        """Send one message, waiting for room. Raises WebSocketClosed. When cancelled midway the socket is ended."""
        async with self._sending:
            if self._closing:
                raise self._closed()
            await self._send(message_frame(data))

    async def _send(self, frame: bytes) -> None:
        try:
            taken = self._wire.send_nowait(frame)
            if taken == len(frame):
                return
            complete = False
            try:
                await self._wire.send_all(memoryview(frame)[taken:])
                complete = True
            finally:
                if not complete:
                    # Part of a frame is out: nothing that followed it would be understood.
                    self._end()
        except trio.BrokenResourceError:
            self._end()
            raise self._closed() from None

    def _send_control(self, frame: bytes) -> None:
        if not self._closing and len(self._control) + len(frame) <= _CONTROL_BYTES:
            self._control += frame
            if not self._flushing:
                self._flushing = True
                self._nursery.start_soon(self._flush_control)

    async def _flush_control(self) -> None:
        try:
            async with self._sending:
                while self._control and not self._closing:
                    frames, self._control = bytes(self._control), bytearray()
                    await self._send(frames)
        except WebSocketClosed:
            pass
        finally:
            self._flushing = False

    # -- in -----------------------------------------------------------------------------------------------------------

    async def receive(self) -> str | bytes:
        """The next message. Raises WebSocketClosed once everything that came before the close was received."""
        await trio.lowlevel.checkpoint()
        while not self._queue:
            if self._closing:
                raise self._closed()
            await self._receivers.park()
        message = self._queue.popleft()
        self._queued_bytes -= len(message)
        self._count_held()
        self._room.unpark_all()
        return message

    async def read(self) -> None:
        """Read until the connection is over."""
        try:
            await self._read()
        except trio.BrokenResourceError:
            pass
        finally:
            self._end()

    async def _read(self) -> None:
        frames = 0
        while not self._ended.is_set():
            for event in self._incoming.events():
                self._handle(event)
                frames += 1
                if frames % _FRAMES_BETWEEN_CHECKPOINTS == 0:
                    await trio.lowlevel.checkpoint()
            if self._incoming.closed:
                return await self._answer_close()
            self._count_held()
            await self._wait_for_room()
            data = await self._wire.receive()
            if not data:
                return None
            self._heartbeat.heard()
            self._incoming.feed(data)
        return None

    def _count_held(self) -> None:
        try:
            self._share.hold(self._incoming.held + self._queued_bytes)
        except HttpError as error:
            self._incoming.ignore()
            self._nursery.start_soon(self.aclose, TRY_AGAIN_LATER, f"{error.group}.{error.code}")

    async def _wait_for_room(self) -> None:
        while not self._closing and (len(self._queue) >= _QUEUED_MESSAGES or self._queued_bytes >= _QUEUED_BYTES):
            self._listening = False
            await self._room.park()
            self._listening = True
            self._heartbeat.heard()

    def _ping(self) -> None:
        if not self._listening:
            # While nothing is read, silence says nothing about the peer; but that it cannot be sent a ping does.
            self._heartbeat.heard()
        self._send_control(PING_FRAME)

    def _handle(self, event: Incoming) -> None:
        if self._visit is not None and not isinstance(event, CloseReceived) and not self._visit.take():
            if not self._closing:
                self._nursery.start_soon(self.aclose, TRY_AGAIN_LATER, RATE_LIMIT)
        elif isinstance(event, (str, bytes)):
            if not self._closing:
                self._queue.append(event)
                self._queued_bytes += len(event)
                self._receivers.unpark_all()
        elif isinstance(event, PingReceived):
            self._send_control(pong_frame(event.payload))
        elif isinstance(event, CloseReceived):
            self._note_close(event.code, event.reason)
        elif isinstance(event, MessageTooLong):
            self._nursery.start_soon(self.aclose, _TOO_BIG, "message.incoming_too_long")
        elif event is not None:
            reason = "message.invalid_utf8" if event.code == INVALID_UTF8 else event.reason
            self._nursery.start_soon(self.aclose, event.code, reason)

    async def _answer_close(self) -> None:
        """The peer's close frame is here: answer it, unless it was the answer to ours, and that is the end."""
        if self._closing:
            return
        self._closing = True
        self._receivers.unpark_all()
        with trio.move_on_after(self._limits.close_timeout):
            async with self._sending:
                try:
                    await self._send(close_frame(self.close_code or _NORMAL, self.close_reason))
                except WebSocketClosed:
                    pass

    # -- ends ---------------------------------------------------------------------------------------------------------

    async def aclose(self, code: int = _NORMAL, reason: str = "") -> None:
        """Close, and wait for the answer within a deadline. Idempotent; when cancelled, ends the socket at once."""
        try:
            if not self._closing:
                self._closing = True
                self._incoming.ignore()
                self._wake()
                with trio.move_on_after(self._limits.close_timeout):
                    async with self._sending:
                        self._note_close(code, reason)
                        await self._send(close_frame(code, reason))
                        if self._incoming.deaf:
                            self._wire.half_close()
                    await self._ended.wait()
            else:
                with trio.move_on_after(self._limits.close_timeout):
                    await self._ended.wait()
        except WebSocketClosed:
            pass
        finally:
            self._end()

    def _note_close(self, code: int, reason: str) -> None:
        if self.close_code is None:
            self.close_code = code
            self.close_reason = reason

    def _end(self) -> None:
        """No byte will go either way any more. Idempotent."""
        if self._ended.is_set():
            return
        self._closing = True
        self._note_close(_ABNORMAL, "")
        self._heartbeat.stop()
        self._ended.set()
        self._wake()
        self._nursery.start_soon(self._wire.aclose)

    def _wake(self) -> None:
        self._receivers.unpark_all()
        self._room.unpark_all()

    def _closed(self) -> WebSocketClosed:
        return WebSocketClosed(_ABNORMAL if self.close_code is None else self.close_code, self.close_reason)
