"""The calls of a connection that wait for their answers."""

import math
from collections.abc import Callable

import attrs
import trio

from trivet.client.outgoing import Outbound, Outgoing
from trivet.errors import ConnectionLost
from trivet.limits import Limits
from trivet.protocol.values import UNDEFINED, Value


@attrs.define(eq=False)
class PendingCall(Outbound):
    """One call, from its encoding to its answer."""

    settled: trio.Event = attrs.field(factory=trio.Event)
    output: Value = UNDEFINED
    error: Exception | None = None
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    def on_taken(self) -> None:
        # The time in the queue is bounded by the caller's patience; the answer, by the server's and by the pings.
        self.scope.deadline = math.inf

    def settle(self, output: Value = UNDEFINED, error: Exception | None = None) -> None:
        """Give it its answer; only the first counts."""
        if not self.settled.is_set():
            self.output = output
            self.error = error
            self.settled.set()


class Calls:
    """Sends calls through `outgoing` and hands them their answers, whatever the order in which those come."""

    def __init__(self, outgoing: Outgoing, limits: Limits) -> None:
        self._outgoing = outgoing
        self._timeout = limits.action_timeout
        self._room = trio.Semaphore(limits.inbox)
        self._pending: dict[int, PendingCall] = {}
        self._next_id = 0

    def new_id(self) -> int:
        """An id that no call of this connection had before."""
        self._next_id += 1
        return self._next_id - 1

    async def send(self, call_id: int, payload: bytes, context: object, ended: Callable[[], Exception | None]) -> Value:
        """Queue a call and wait for its answer.

        Raises ConnectionLost (not executed) when it was not sent in time. A call that raises, for a cancellation too,
        is not sent any more, unless it was being sent already.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        call = PendingCall(payload, context)
        call.scope.deadline = trio.current_time() + self._timeout
        queued = False
        with call.scope:
            await self._take_room()
            if error := ended():
                self._room.release()
                raise error
            queued = True
            self._pending[call_id] = call
            self._outgoing.put(call)
            try:
                await call.settled.wait()
            finally:
                del self._pending[call_id]
                self._outgoing.withdraw(call)
                self._room.release()
        if call.error is not None:
            await trio.lowlevel.checkpoint_if_cancelled()  # what ended the connection may have cancelled the caller too
            raise call.error
        if not call.settled.is_set():
            what = "answered" if call.taken else "sent"
            place = "" if queued else ": too many calls were waiting"
            raise ConnectionLost(f"The call was not {what} in time{place}", maybe_executed=call.taken)
        return call.output

    async def _take_room(self) -> None:
        try:
            self._room.acquire_nowait()  # without a checkpoint, so that calls are queued in the order they are made
        except trio.WouldBlock:
            await self._room.acquire()

    def answer(self, call_id: int, output: Value = UNDEFINED, error: Exception | None = None) -> bool:
        """Settle one call. False when nobody waits for it any more."""
        call = self._pending.get(call_id)
        if call is None:
            return False
        call.settle(output, error)
        return True

    def fail_sent(self, error: Callable[[], Exception]) -> None:
        """Settle every call that was sent; those that wait in the queue go on waiting."""
        for call in self._pending.values():
            if call.taken:
                call.settle(error=error())

    def fail_all(self, error: Callable[[], Exception], unanswered: Callable[[], Exception]) -> None:
        """Settle every call."""
        for call in self._pending.values():
            call.settle(error=unanswered() if call.taken else error())
