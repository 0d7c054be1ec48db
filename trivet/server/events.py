"""The WebSocket of one `/connect` connection: the runtime's way out, and the reader of what comes in."""

from collections.abc import Callable
from typing import final

import trio

from trivet.errors import DecodeError, PublicError
from trivet.limits import Limits
from trivet.protocol import extension
from trivet.runtime.session import Session
from trivet.runtime.timers import TimerHandle, Timers
from trivet.server.frames import PING_FRAME, FrameFormat, pong_frame
from trivet.server.heartbeat import Heartbeat
from trivet.server.incoming import CloseReceived, Incoming, IncomingMessages, MessageTooLong, PingReceived
from trivet.server.peers import RATE_LIMIT, TRY_AGAIN_LATER, Visit
from trivet.server.wire import Wire

# A client may send very small frames; other tasks run after so many.
_FRAMES_BETWEEN_CHECKPOINTS = 64


@final
class EventsTransport:
    """Carries one events connection. Its only task is the one that reads, which `run` is called in."""

    __slots__ = (
        "_aborted",
        "_deadline",
        "_finished",
        "_format",
        "_heartbeat",
        "_incoming",
        "_limits",
        "_scope",
        "_timers",
        "_visit",
        "_wire",
    )

    def __init__(
        self,
        wire: Wire,
        format: FrameFormat,
        timers: Timers,
        limits: Limits,
        trailing_data: bytes,
        visit: Visit | None = None,
    ) -> None:
        self._wire = wire
        self._format = format
        self._timers = timers
        self._limits = limits
        self._visit = visit
        self._incoming = IncomingMessages(limits.incoming_message, trailing_data)
        self._scope = trio.CancelScope()
        self._deadline: TimerHandle | None = None
        self._heartbeat: Heartbeat | None = None
        self._finished = False
        self._aborted = False

    @property
    def send_nowait(self) -> Callable[[bytes], int | None]:
        """Writes what the connection takes without waiting."""
        return self._wire.write

    async def send_all(self, data: bytes) -> None:
        """Send the rest. Raises trio.BrokenResourceError, also once `run` has ended."""
        await self._wire.send_all(data)

    def finish(self) -> None:
        """Our close frame is out. End now if the peer's is here, or in `close_timeout` at the latest."""
        if self._finished:
            return
        self._finished = True
        if self._incoming.closed:
            self.abort()
            return
        if self._incoming.deaf:
            # No close frame can be recognised any more: the peer's end of stream has to do.
            self._wire.half_close()
        self._deadline = self._timers.call_later(self._limits.close_timeout, self.abort)

    def abort(self) -> None:
        """Stop reading, which ends `run`. Nothing is handled any more, also not what is here already.

        A session that goes on without this transport asks its client again for what it has not counted.
        """
        self._aborted = True
        self._scope.cancel()

    async def run(self, session: Session) -> None:
        """Hand over what the client sends, until the connection is gone. Closes the wire."""
        self._heartbeat = Heartbeat(
            self._timers, self._limits, ping=lambda: session.send_control(PING_FRAME), dead=self.abort
        )
        try:
            with self._scope:
                await self._read(session, self._heartbeat)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the connection is gone, or was closed here
        finally:
            self._heartbeat.stop()
            if self._deadline is not None:
                self._deadline.cancel()
            await self._wire.aclose()

    async def _read(self, session: Session, heartbeat: Heartbeat) -> None:
        frames = 0
        while True:
            for event in self._incoming.events():
                if self._aborted:
                    return
                self._handle(session, event)
                frames += 1
                if frames % _FRAMES_BETWEEN_CHECKPOINTS == 0:
                    await trio.lowlevel.checkpoint()
            if self._finished and self._incoming.closed:
                return
            # Not `Wire.receive`: its frames would be there as long as the connection, and it reads in vain first.
            if self._wire.socket is None:
                data = await self._wire.receive()
            else:
                await trio.lowlevel.wait_readable(self._wire.socket)
                received = self._wire.receive_nowait()
                if received is None:
                    continue
                data = received
            if not data:
                return
            heartbeat.heard()
            self._incoming.feed(data)

    def _handle(self, session: Session, event: Incoming) -> None:
        if self._visit is not None and not isinstance(event, CloseReceived) and not self._visit.take():
            session.end(TRY_AGAIN_LATER, RATE_LIMIT)
        elif isinstance(event, (str, bytes)):
            try:
                if session.extended and isinstance(event, str) == self._format.codec.binary:
                    session.receive_extension(extension.decode_to_server(event))
                else:
                    session.receive(self._format.codec.decode_to_server(event), size=len(event))
            except DecodeError as exc:
                session.protocol_error(PublicError("actor", "invalid_request", str(exc)))
        elif isinstance(event, PingReceived):
            session.send_control(pong_frame(event.payload))
        elif isinstance(event, MessageTooLong):
            session.protocol_error(PublicError("message", "incoming_too_long", "Incoming message too long"))
        elif isinstance(event, CloseReceived):
            session.end(event.code, event.reason)
            # Should the answer not get out, the connection ends nevertheless.
            if self._deadline is None:
                self._deadline = self._timers.call_later(self._limits.close_timeout, self.abort)
        elif event is not None:
            session.end(event.code, event.reason)
