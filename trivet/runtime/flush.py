"""When outboxes are flushed: when whatever filled them is about to wait."""

from typing import Final, Protocol

import trio

# A flush of many connections lets other tasks run after so many seconds.
_YIELD_AFTER: Final = 0.001
# The shortest and the longest time for which a busy actor gathers before it flushes.
_PATIENCE: Final = (0.001, 0.020)


class Gate(Protocol):
    """What a Flusher needs of what holds outputs back until they are saved."""

    @property
    def waiting(self) -> bool:
        """Whether something is held."""
        ...

    def settle(self) -> None:
        """Save, and let go what may go. Must not raise."""
        ...


class Flushable(Protocol):
    """What a Flusher needs of an outbox, or of the audience that many outboxes share."""

    def flush(self) -> bool:
        """Hand over what is queued, or a part of it, when it is for many: True. Must not raise."""
        ...

    def unmark(self) -> None:
        """It is on the flusher's list no more."""
        ...


class Flusher:
    """The outboxes of one actor that have something to flush.

    Inside the actor's own turns (`inline`) the actor flushes before it waits. Whatever else emits (a hook, a
    background task, an action that awaits) has the host's flush task scheduled, which runs as soon as the emitter
    suspends.
    """

    __slots__ = ("_dirty", "_flushes", "_scheduled", "gate", "inline", "patience")

    def __init__(self, flushes: "FlushTask") -> None:
        self.inline = False
        self.patience = _PATIENCE[0]
        """How long a busy actor may gather: as long as its last flush took, for then each connection gets several
        events in one send, and gathering costs at most as much time as sending.
        """
        self.gate: Gate | None = None
        self._dirty: list[Flushable] = []
        self._flushes = flushes
        self._scheduled = False

    def ask(self) -> None:
        """Flush as if something were queued: something is held at the gate."""
        if not self.inline and not self._scheduled:
            self._scheduled = True
            self._flushes.schedule(self)

    def add(self, outbox: Flushable) -> None:
        """Flush this outbox with the next flush."""
        self._dirty.append(outbox)
        if not self.inline and not self._scheduled:
            self._scheduled = True
            self._flushes.schedule(self)

    def leave_inline(self) -> None:
        """The turn is about to await: what it emitted, and what it will emit, is the flush task's."""
        self.inline = False
        gate = self.gate
        if (self._dirty or (gate is not None and gate.waiting)) and not self._scheduled:
            self._scheduled = True
            self._flushes.schedule(self)

    def flush_now(self) -> None:
        """Flush all of them without a pause."""
        self._scheduled = False
        dirty, self._dirty = self._dirty, []
        for outbox in dirty:
            outbox.unmark()
            while outbox.flush():
                pass

    async def flush(self) -> None:
        """Flush all of them, letting other tasks run each millisecond."""
        self._scheduled = False
        if self.gate is not None and self.gate.waiting:
            self.gate.settle()
        if len(self._dirty) == 1:  # mostly one answer: then there is no time to share, and none to measure
            only = self._dirty.pop()
            only.unmark()
            if only.flush():
                self._dirty.insert(0, only)
            else:
                self.patience = _PATIENCE[0]
        if not self._dirty:
            return
        began = trio.current_time()
        while self._dirty:
            dirty, self._dirty = self._dirty, []
            deadline = trio.current_time() + _YIELD_AFTER
            for index, outbox in enumerate(dirty):
                outbox.unmark()
                more = outbox.flush()
                while more or not index & 31:
                    if trio.current_time() > deadline:
                        inline, self.inline = self.inline, False
                        try:
                            await trio.lowlevel.checkpoint()
                        except BaseException:
                            self._dirty = dirty[index:] + self._dirty
                            raise
                        self.inline = inline
                        deadline = trio.current_time() + _YIELD_AFTER
                    if not more:
                        break
                    more = outbox.flush()
        self.patience = min(max(_PATIENCE[0], trio.current_time() - began), _PATIENCE[1])


class FlushTask:
    """One task for a host that flushes for everything that emits outside an actor's own turns."""

    def __init__(self) -> None:
        self._pending: list[Flusher] = []
        self._parked: trio.lowlevel.Task | None = None

    def schedule(self, flusher: Flusher) -> None:
        """Flush once the running task suspends."""
        self._pending.append(flusher)
        if self._parked is not None:
            task, self._parked = self._parked, None
            trio.lowlevel.reschedule(task)

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            while self._pending:
                pending, self._pending = self._pending, []
                for flusher in pending:
                    await flusher.flush()
            self._parked = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort)

    def _abort(self, raise_cancel: object) -> trio.lowlevel.Abort:
        self._parked = None
        return trio.lowlevel.Abort.SUCCEEDED
