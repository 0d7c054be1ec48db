"""Actors in a file of SQLite."""

import os
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar, cast, final

import apsw
import attrs
import trio
from outcome import Error, Outcome, Value

from trivet.store.interface import ActorRow, Changes, Store, Stored, StoreError
from trivet.store.sqlite import reading
from trivet.store.sqlite.checkpoints import Checkpoints
from trivet.store.sqlite.errors import translated
from trivet.store.sqlite.file import Check, OpenFile, Synchronous, open_file, problems
from trivet.store.sqlite.worker import Worker
from trivet.store.sqlite.writer import (
    MOST_BYTES,
    MOST_CHANGES,
    Address,
    Change,
    Commit,
    Create,
    Destroy,
    Nothing,
    Writer,
    concerns,
    weigh,
)

T = TypeVar("T")

CLOSE_SECONDS: Final = 10.0
"""Real seconds that closing may take before what still runs is interrupted; as many again, and it is left alone."""


@attrs.frozen
class StoreStatistics:
    """How a store is doing. Counts are since it was opened."""

    changes: int
    groups: int
    """Transactions: `changes / groups` is how many shared one."""
    waiting: int
    """Changes that are not committed yet."""
    near_reads: int
    """Reads made on the event loop, of what the kernel had in memory."""
    far_reads: int
    """Reads made in a thread."""
    wal_pages: int
    """Pages in the write-ahead log after the last commit."""


@asynccontextmanager
async def open_sqlite_store(
    path: str | os.PathLike[str], *, synchronous: Synchronous = "normal", check: Check = "quick"
) -> AsyncGenerator["SQLiteStore"]:
    """Open a store in a file of SQLite, making it if there is none. No other process can open it meanwhile.

    `path` is a file (something with a suffix) or a directory, which then holds `trivet.sqlite3`; beside the file there
    are its lock and SQLite's write-ahead log. It must be on a local disk.

    `synchronous="normal"`: what was committed survives a crash or a kill of the process; a power failure or a crash of
    the operating system may lose the commits of the last moments, and never more than whole commits. `"full"`: every
    commit is on the disk before it returns.

    `check="quick"` finds a file that is no database, of another program, of a later version, or cut off, and reads
    all of a file up to 16 MiB, in a time that does not grow with the file. `"full"` reads all of any file.

    Leaving the block commits what waits, puts the log into the file and releases the lock, also when cancelled. That
    takes 10 s at most, unless the disk does not answer at all: after 20 s of that StoreError is raised, and the lock
    lasts until the process ends.

    Raises StoreInUse, StoreReadOnly, StoreCorrupt, StoreTooNew, StoreFull or another StoreError, which say what to do.
    """
    file = await trio.to_thread.run_sync(_open, path, synchronous, check)
    store = SQLiteStore(file)
    try:
        yield store
    finally:
        await store._close()


def _open(path: str | os.PathLike[str], synchronous: Synchronous, check: Check) -> OpenFile:
    return open_file(path, synchronous, check)


async def check_sqlite_store(path: str | os.PathLike[str]) -> Sequence[str]:
    """Read all of a store's file, and say what is wrong with it: nothing, in the best case.

    Takes a time that grows with the file, in a thread; if cancelled, ends when that is done. Raises StoreError where
    the file cannot be opened at all, and StoreInUse where a process uses it.
    """

    def check() -> Sequence[str]:
        file = open_file(path, "normal", "quick")
        try:
            return problems(file.reader, full=True)
        except apsw.Error as error:
            raise translated(error, file.path) from error
        finally:
            file.close()

    return await trio.to_thread.run_sync(check)


@final
class SQLiteStore(Store):
    """Keeps actors in a file. Made by `open_sqlite_store`.

    All changes are made by one thread, which puts those that wait for it into one transaction. Reads do not wait for
    it. What the kernel has in memory is read on the event loop; what it has not, in a second thread.
    """

    durable = True

    def __init__(self, file: OpenFile) -> None:
        self._file = file
        self._closed = False
        self._near_reads = 0
        self._far_reads = 0
        self._committer = Writer(file.writer, file.path)
        self._checkpoints = Checkpoints(file)
        self._writer = Worker[Change, None](
            "trivet store: writer", self._apply, most=MOST_CHANGES, most_weight=MOST_BYTES, weigh=weigh
        )
        self._reader = Worker[Callable[[apsw.Connection], object], object]("trivet store: reader", self._query)

    def statistics(self) -> StoreStatistics:
        """A snapshot of how the store is doing."""
        return StoreStatistics(
            self._committer.changes,
            self._committer.groups,
            self._writer.waiting,
            self._near_reads,
            self._far_reads,
            self._checkpoints.wal_pages,
        )

    async def create(self, row: ActorRow, changes: Changes) -> None:
        await self._change(Create(row, changes))

    async def commit(self, actor_id: str, generation: int, changes: Changes) -> None:
        await self._change(Commit(actor_id, generation, changes))

    async def destroy(self, actor_id: str) -> None:
        await self._change(Destroy(actor_id))

    async def find(self, namespace: str, name: str, key: tuple[str, ...]) -> ActorRow | None:
        return await self._read(lambda connection: reading.find(connection, namespace, name, key))

    async def find_id(self, actor_id: str) -> ActorRow | None:
        return await self._read(lambda connection: reading.find_id(connection, actor_id))

    async def load(self, actor_id: str) -> Stored | None:
        await self._settle(actor_id, None)
        return await self._read(lambda connection: reading.load(connection, actor_id))

    async def load_by_key(self, namespace: str, name: str, key: tuple[str, ...]) -> Stored | None:
        address = namespace, name, key
        while True:
            stored = await self._read_far(lambda connection: reading.load_by_key(connection, *address))
            actor_id = None if stored is None else stored.row.actor_id
            if not self._may_change(actor_id, address):
                return stored
            await self._settle(actor_id, address)

    def load_by_key_nowait(self, namespace: str, name: str, key: tuple[str, ...]) -> Stored | None:
        near = self._file.near
        if near is None or self._closed:
            raise trio.WouldBlock
        try:
            stored = near.read(reading.load_by_key, namespace, name, key)
        except Exception:
            raise trio.WouldBlock from None  # as in `_read`
        if self._may_change(None if stored is None else stored.row.actor_id, (namespace, name, key)):
            raise trio.WouldBlock
        self._near_reads += 1
        return stored

    async def list(self, namespace: str, name: str | None, after: tuple[float, str], limit: int) -> Sequence[ActorRow]:
        return await self._read_far(lambda connection: reading.list_actors(connection, namespace, name, after, limit))

    async def next_alarm(self) -> float | None:
        return await self._read(reading.next_alarm)

    async def due(self, now: float, limit: int) -> Sequence[tuple[ActorRow, float]]:
        return await self._read_far(lambda connection: reading.due(connection, now, limit))

    async def _change(self, change: Change) -> None:
        self._refuse_closed()
        await self._writer.do(change)

    def _may_change(self, actor_id: str | None, address: Address | None) -> bool:
        """Whether a change of the actor of that id, or of that address, may be under way that was cut off."""
        return any(concerns(change, actor_id, address) for change in self._writer.cut_off)

    async def _settle(self, actor_id: str | None, address: Address | None) -> None:
        """Wait until there is no such change: what is read then does not change by it."""
        while self._may_change(actor_id, address):
            self._refuse_closed()
            try:
                await self._writer.do(Nothing())
            except StoreError:
                pass  # it has had its turn, after all that came before

    async def _read(self, query: Callable[[apsw.Connection], T]) -> T:
        """For what is small, most of the time."""
        near = self._file.near
        if near is not None:
            await trio.lowlevel.checkpoint()
            self._refuse_closed()
            try:
                result = near.read(query)
            except Exception:
                # Not in memory, or not small. What is really wrong the thread will meet as well, and say.
                pass
            else:
                self._near_reads += 1
                return result
        return await self._read_far(query)

    async def _read_far(self, query: Callable[[apsw.Connection], T]) -> T:
        self._refuse_closed()
        self._far_reads += 1
        return cast("T", await self._reader.do(query))

    def _refuse_closed(self) -> None:
        if self._closed:
            raise StoreError(f"{self._file.path}: the store was closed")

    # In the threads

    def _apply(self, changes: Sequence[Change]) -> Sequence[Outcome[None]]:
        results = self._committer.apply(changes)
        self._checkpoints.after_group()
        return results

    def _query(self, queries: Sequence[Callable[[apsw.Connection], object]]) -> Sequence[Outcome[object]]:
        return [self._answer(query) for query in queries]

    def _answer(self, query: Callable[[apsw.Connection], object]) -> Outcome[object]:
        try:
            return Value(query(self._file.reader))
        except Exception as error:
            translation = translated(error, self._file.path)
            translation.__cause__ = error
            return Error(translation)

    # Closing

    async def _close(self) -> None:
        self._closed = True
        closing = _Closing(self._finish, self._file.interrupt)
        # Its deadline is one of real time, which the thread keeps: Trio's clock may be a test's.
        done = False
        with trio.CancelScope(shield=True):
            done = await trio.to_thread.run_sync(closing.wait)
        if not done:
            self._writer.give_up()
            self._reader.give_up()
            raise StoreError(f"{self._file.path}: the disk does not answer; the lock lasts until this process ends")

    def _finish(self) -> None:
        self._writer.finish()
        self._reader.finish()
        self._writer.join()
        self._reader.join()
        self._checkpoints.finish()
        self._file.close()


class _Closing:
    """Closing in a thread of its own, which can be left alone if a disk never answers."""

    def __init__(self, finish: Callable[[], None], interrupt: Callable[[], None]) -> None:
        self._interrupt = interrupt
        self._thread = threading.Thread(target=finish, name="trivet store: closing", daemon=True)
        self._thread.start()

    def wait(self) -> bool:
        """Whether it is done."""
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            self._interrupt()
            self._thread.join(CLOSE_SECONDS)
        return not self._thread.is_alive()
