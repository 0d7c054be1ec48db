"""What the store in a file of SQLite costs: ratios of one run, on this machine.

    python -m benchmarks.store [--actors 100000] [--seconds 1] [--directory DIR]

Measures start-up with few and with many sleeping actors, loading a sleeping actor beside a bare read of SQLite, and
commits: one actor after the other, and many at once; beside an idle event loop and beside a busy one.
"""

import argparse
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Final

import trio

from trivet.store import ActorRow, Changes
from trivet.store.sqlite import SQLiteStore, open_sqlite_store
from trivet.store.sqlite.file import FILE_NAME, Synchronous

# As an actor stores it. One in another form, with spaces for instance, would be saved anew in the first turn of a life.
STATE: Final = b'{"messages":[' + b",".join(b'{"id":%d,"text":"hello everyone"}' % n for n in range(10)) + b"]}"

TOGETHER: Final = (1, 8, 64, 1000)


def percentile(times: Sequence[float], share: float) -> float:
    """In microseconds."""
    return sorted(times)[min(len(times) - 1, int(len(times) * share))] * 1e6


def told(times: Sequence[float]) -> str:
    return f"p50 {percentile(times, 0.5):9.0f} us   p99 {percentile(times, 0.99):9.0f} us"


async def fill(directory: Path, actors: int) -> None:
    async with open_sqlite_store(directory) as store:
        for start in range(0, actors, 1000):
            async with trio.open_nursery() as nursery:
                for number in range(start, min(start + 1000, actors)):
                    row = ActorRow(f"actor-{number:06d}", "default", "room", (f"room {number}",), float(number))
                    nursery.start_soon(store.create, row, Changes(STATE, 1))


async def start_up(directory: Path) -> float:
    times: list[float] = []
    for _ in range(5):
        began = time.perf_counter()
        async with open_sqlite_store(directory):
            times.append(time.perf_counter() - began)
    return min(times)


async def timed(call: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await call()
    return time.perf_counter() - began


async def wake(directory: Path, actors: int) -> None:
    """By turns, so that both see the same machine."""
    random = Random(0)
    bare = sqlite3.connect(directory / FILE_NAME)
    bare_times: list[float] = []
    store_times: list[float] = []
    async with open_sqlite_store(directory) as store:
        for _ in range(5_000):
            actor_id = f"actor-{random.randrange(actors):06d}"
            began = time.perf_counter()
            bare.execute("SELECT state FROM actors JOIN states ON actor = number WHERE id = ?", (actor_id,)).fetchone()
            bare_times.append(time.perf_counter() - began)
            actor_id = f"actor-{random.randrange(actors):06d}"
            store_times.append(await timed(partial(store.load, actor_id)))
        statistics = store.statistics()
    bare.close()
    print(f"a bare read                      {told(bare_times)}")
    print(f"load of a sleeping actor         {told(store_times)}   {statistics.near_reads} on the event loop")
    print(f"ratio of the medians             {percentile(store_times, 0.5) / percentile(bare_times, 0.5):.1f}\n")


async def busy() -> None:
    """A loop that computes for 0.2 ms whenever it can."""
    while True:
        until = time.perf_counter() + 0.0002
        while time.perf_counter() < until:
            pass
        await trio.lowlevel.checkpoint()


async def commit_together(store: SQLiteStore, count: int, seconds: float) -> list[float]:
    times: list[float] = []

    async def commit(number: int) -> None:
        times.append(await timed(partial(store.commit, f"actor-{number:06d}", 1, Changes(STATE, 1))))

    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        async with trio.open_nursery() as nursery:
            for number in range(count):
                nursery.start_soon(commit, number)
    return times


async def commits(directory: Path, synchronous: Synchronous, seconds: float) -> None:
    async with open_sqlite_store(directory, synchronous=synchronous) as store:
        for loop in ("idle", "busy"):
            for count in TOGETHER:
                before = store.statistics()
                async with trio.open_nursery() as nursery:
                    if loop == "busy":
                        nursery.start_soon(busy)
                    times = await commit_together(store, count, seconds)
                    nursery.cancel_scope.cancel()
                after = store.statistics()
                shared = (after.changes - before.changes) / (after.groups - before.groups)
                print(
                    f"{synchronous:7}{loop} loop  {count:5} at once  {told(times)}  "
                    f"{len(times) / sum(times) * count:9.0f}/s  {shared:6.1f} in a transaction"
                )
    print()


async def main(directory: Path, actors: int, seconds: float) -> None:
    await fill(directory / "few", 1000)
    await fill(directory / "many", actors)
    few, many = await start_up(directory / "few"), await start_up(directory / "many")
    size = (directory / "many" / FILE_NAME).stat().st_size / 2**20
    print(f"start-up: {few * 1000:.1f} ms with 1,000 actors, {many * 1000:.1f} ms with {actors:,} ({size:.0f} MiB)\n")
    await wake(directory / "many", actors)
    await commits(directory / "many", "normal", seconds)
    await commits(directory / "many", "full", seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--actors", type=int, default=100_000, help="sleeping actors on disk (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each row about commits (default: %(default)s)")
    parser.add_argument("--directory", type=Path, help="on the disk to measure (default: a temporary one)")
    arguments = parser.parse_args()
    where = Path(tempfile.mkdtemp(prefix="trivet-", dir=arguments.directory))
    try:
        trio.run(main, where, arguments.actors, arguments.seconds)
    finally:
        shutil.rmtree(where)
