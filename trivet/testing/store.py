"""A store that fails, waits and crashes when a test says so."""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

import attrs
import trio

from trivet.store.interface import ActorRow, Changes, Store, Stored, StoreError

T = TypeVar("T")


@attrs.define(eq=False)
class _Failures:
    """What the next calls raise."""

    left: int = 0
    message: str = ""
    after: bool = False

    def take(self) -> bool:
        self.left -= 1
        return self.left >= 0


class FaultyStore(Store):
    """Another store, with faults. Changes (`create`, `commit`, `destroy`) take effect in the order of the calls.

        store = FaultyStore(MemoryStore(durable=True))
        store.hold()                    # changes wait; what they would release must not be seen
        ...
        store.release()

    It uses Trio's clock alone, so it goes well with virtual time, if the inner store does: MemoryStore, for instance.
    """

    def __init__(self, inner: Store, *, delay: float = 0.0) -> None:
        """`delay`: seconds that each change takes, each for itself. May be changed at any time."""
        self.inner = inner
        self.durable = inner.durable
        self.delay = delay
        self.changes = 0
        """How many changes took effect."""
        self._queue: deque[object] = deque()
        self._moved = trio.Event()
        self._may_pass: int | None = None
        self._failing = _Failures()
        self._failing_reads = _Failures()
        self._crashed = False

    @property
    def waiting(self) -> int:
        """How many changes have begun and are not done."""
        return len(self._queue)

    def hold(self) -> None:
        """Let no change take effect until `release`."""
        self._may_pass = 0

    def release(self, count: int | None = None) -> None:
        """Let the next `count` changes pass, or all, and end the hold."""
        self._may_pass = None if count is None else (self._may_pass or 0) + count
        self._move()

    def fail(self, count: int = 1, message: str = "no room on the disk", *, after: bool = False) -> None:
        """Let the next `count` changes raise StoreError.

        `after`: they take effect all the same, and only then raise: nobody knows of a commit whose answer is lost.
        """
        self._failing = _Failures(count, message, after)

    def fail_reads(self, count: int = 1, message: str = "the disk cannot be read") -> None:
        """Let the next `count` reads raise StoreError."""
        self._failing_reads = _Failures(count, message)

    def crash(self) -> None:
        """End here: what waits never takes effect, and every call, of those too, raises StoreError."""
        self._crashed = True
        self._move()

    def reopened(self) -> "FaultyStore":
        """What a new process finds: a store without faults, of what had taken effect."""
        return FaultyStore(self.inner)

    async def create(self, row: ActorRow, changes: Changes) -> None:
        await self._change(partial(self.inner.create, row, changes))

    async def commit(self, actor_id: str, generation: int, changes: Changes) -> None:
        await self._change(partial(self.inner.commit, actor_id, generation, changes))

    async def destroy(self, actor_id: str) -> None:
        await self._change(partial(self.inner.destroy, actor_id))

    async def find(self, namespace: str, name: str, key: tuple[str, ...]) -> ActorRow | None:
        return await self._read(partial(self.inner.find, namespace, name, key))

    async def find_id(self, actor_id: str) -> ActorRow | None:
        return await self._read(partial(self.inner.find_id, actor_id))

    async def load(self, actor_id: str) -> Stored | None:
        return await self._read(partial(self.inner.load, actor_id))

    async def load_by_key(self, namespace: str, name: str, key: tuple[str, ...]) -> Stored | None:
        return await self._read(partial(self.inner.load_by_key, namespace, name, key))

    def load_by_key_nowait(self, namespace: str, name: str, key: tuple[str, ...]) -> Stored | None:
        if self._crashed or self._failing_reads.left > 0:
            raise trio.WouldBlock
        return self.inner.load_by_key_nowait(namespace, name, key)

    async def list(self, namespace: str, name: str | None, after: tuple[float, str], limit: int) -> Sequence[ActorRow]:
        return await self._read(partial(self.inner.list, namespace, name, after, limit))

    async def next_alarm(self) -> float | None:
        return await self._read(self.inner.next_alarm)

    async def due(self, now: float, limit: int) -> Sequence[tuple[ActorRow, float]]:
        return await self._read(partial(self.inner.due, now, limit))

    async def _change(self, change: Callable[[], Awaitable[None]]) -> None:
        self._refuse_crashed()
        await trio.lowlevel.checkpoint_if_cancelled()
        place = object()
        self._queue.append(place)
        try:
            if self.delay > 0:
                await trio.sleep(self.delay)
            await self._until_first(place)
            fails = self._failing.take()
            if fails and not self._failing.after:
                raise StoreError(self._failing.message)
            await change()
            self.changes += 1
            if fails:
                raise StoreError(self._failing.message)
        finally:
            self._queue.remove(place)
            self._move()

    async def _until_first(self, place: object) -> None:
        while not self._crashed and (self._queue[0] is not place or self._may_pass == 0):
            await self._moved.wait()
        self._refuse_crashed()
        if self._may_pass is not None:
            self._may_pass -= 1

    async def _read(self, read: Callable[[], Awaitable[T]]) -> T:
        self._refuse_crashed()
        if self._failing_reads.take():
            await trio.lowlevel.checkpoint()
            raise StoreError(self._failing_reads.message)
        return await read()

    def _refuse_crashed(self) -> None:
        if self._crashed:
            raise StoreError("the store has crashed")

    def _move(self) -> None:
        self._moved.set()
        self._moved = trio.Event()
