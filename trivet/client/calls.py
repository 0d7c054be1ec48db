"""What a connection asks and waits for: calls, and the marks of `sync`."""

import math
from collections.abc import Callable, Hashable, Sequence

import attrs
import trio

from trivet.client.outgoing import ExtensionMessage, Frame, Outbound, Outgoing, extension_frame
from trivet.errors import ConnectionLost, Unsupported
from trivet.limits import Limits
from trivet.protocol.extension import Cancel, Sync, Timeout
from trivet.protocol.values import UNDEFINED, Value


@attrs.define(eq=False)
class Pending(Outbound):
    """One question, from its encoding to its answer. `on_answer` runs in the reader, at the answer's place."""

    settled: trio.Event = attrs.field(factory=trio.Event, init=False)
    output: Value = attrs.field(default=UNDEFINED, init=False)
    error: Exception | None = attrs.field(default=None, init=False)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    on_answer: Callable[[], None] | None = attrs.field(default=None, kw_only=True)

    def on_taken(self, extended: bool) -> None:
        # The time in the queue is bounded by the caller's patience; the answer, by the server's and by the pings.
        self.scope.deadline = math.inf

    def settle(self, output: Value = UNDEFINED, error: Exception | None = None) -> None:
        """Give it its answer; only the first counts."""
        if not self.settled.is_set():
            self.output = output
            self.error = error
            self.settled.set()

    def cancelled(self) -> Outbound | None:
        """What tells the server that nobody waits any more."""
        return None


@attrs.define(eq=False)
class PendingCall(Pending):
    """A call. `timeout` is the time that the server gives it anyway, `deadline` when its caller loses patience."""

    id: int
    payload: bytes
    context: object
    timeout: float
    deadline: float = math.inf

    def frames(self, extended: bool) -> Sequence[Frame]:
        call = Frame(self.payload, self.context)
        left = max(0.0, self.deadline - trio.current_time())
        if extended and left < self.timeout:
            return [extension_frame(Timeout(self.id, left)), call]
        return [call]

    def cancelled(self) -> Outbound | None:
        return ExtensionMessage(Cancel(self.id))


@attrs.define(eq=False)
class PendingSync(Pending):
    """A mark that comes back in order with the events."""

    id: int

    def frames(self, extended: bool) -> Sequence[Frame]:
        return [extension_frame(Sync(self.id))] if extended else []

    def on_taken(self, extended: bool) -> None:
        Pending.on_taken(self, extended)
        if not extended:
            self.settle(error=Unsupported("this server has nothing that sync() could wait for"))


class Calls:
    """Sends questions through `outgoing` and hands them their answers, whatever the order in which those come."""

    def __init__(self, outgoing: Outgoing, limits: Limits) -> None:
        self._outgoing = outgoing
        self._timeout = limits.action_timeout
        self._room = trio.Semaphore(limits.inbox)
        self._pending: dict[Hashable, Pending] = {}
        self._next_id = 0

    def new_id(self) -> int:
        """An id that nothing on this connection had before."""
        self._next_id += 1
        return self._next_id - 1

    async def send(self, key: Hashable, pending: Pending, ended: Callable[[], Exception | None]) -> Value:
        """Queue a question and wait for its answer, which names it by `key`.

        Raises ConnectionLost (not executed) when it was not sent in time. A call that raises, for a cancellation too,
        is not sent any more; if it was being sent already, the server is told, where it understands that.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        pending.scope.deadline = trio.current_time() + self._timeout
        queued = False
        with pending.scope:
            await self._take_room()
            if error := ended():
                self._room.release()
                raise error
            queued = True
            self._pending[key] = pending
            self._outgoing.put(pending)
            try:
                await pending.settled.wait()
            finally:
                del self._pending[key]
                self._outgoing.withdraw(pending)
                self._room.release()
                if pending.taken and not pending.settled.is_set():
                    self._abandon(pending)
        if pending.error is not None:
            await trio.lowlevel.checkpoint_if_cancelled()  # what ended the connection may have cancelled the caller too
            raise pending.error
        if not pending.settled.is_set():
            what = "answered" if pending.taken else "sent"
            place = "" if queued else ": too many calls were waiting"
            raise ConnectionLost(f"The call was not {what} in time{place}", maybe_executed=pending.taken)
        return pending.output

    def _abandon(self, pending: Pending) -> None:
        message = pending.cancelled()
        if message is not None and self._outgoing.extended:
            self._outgoing.put_urgent(message)

    async def _take_room(self) -> None:
        try:
            self._room.acquire_nowait()  # without a checkpoint, so that calls are queued in the order they are made
        except trio.WouldBlock:
            await self._room.acquire()

    def answer(self, key: Hashable, output: Value = UNDEFINED, error: Exception | None = None) -> bool:
        """Settle one of them. False when nobody waits for it any more."""
        pending = self._pending.get(key)
        if pending is None:
            return False
        if pending.on_answer is not None and not pending.settled.is_set():
            pending.on_answer()
        pending.settle(output, error)
        return True

    def fail_sent(self, error: Callable[[], Exception]) -> None:
        """Settle all that were sent; those that wait in the queue go on waiting."""
        for pending in self._pending.values():
            if pending.taken:
                pending.settle(error=error())

    def fail_all(self, error: Callable[[], Exception], unanswered: Callable[[], Exception]) -> None:
        """Settle all of them."""
        for pending in self._pending.values():
            pending.settle(error=unanswered() if pending.taken else error())
