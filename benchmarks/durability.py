"""Durability: what it costs that nothing is seen before it is saved.

    python -m benchmarks.durability [--pairs 5] [--seconds 1] [--only gate,room,wake,calls] [--json FILE]

Everything runs in one process, on a store in a file: actors, connections whose transport takes everything at once, and
the calls. What is compared is measured by turns within a run, and ratios are medians of the ratios within a pair.
"""

import argparse
import json
import os
import shutil
import socket
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

import attrs
import trio
import trio.testing

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for `python benchmarks/durability.py`

from benchmarks.store import fill
from trivet import Actor, Event, Limits, Options, Registry, action
from trivet.bench.figures import median, table
from trivet.bench.processes import machine
from trivet.protocol.codec import Codec, codec_for
from trivet.protocol.messages import SubscriptionRequest
from trivet.raw import Request
from trivet.runtime.host import Host, open_host
from trivet.runtime.instance import Instance
from trivet.runtime.saving import Saver
from trivet.store.sqlite import open_sqlite_store
from trivet.store.sqlite.file import FILE_NAME, Synchronous

REQUEST: Final = Request("GET", "http://127.0.0.1/connect")
SUBSCRIBERS: Final = 1000
SLEEPING: Final = 100_000


@attrs.frozen
class Message:
    id: str
    user_id: str
    text: str
    timestamp: float


@attrs.define
class Messages:
    messages: list[Message] = attrs.field(factory=list[Message])


@attrs.define
class Tally:
    value: int = 0


class Gated(Actor[Tally]):
    options = Options(durability="gated")
    counted = Event(int)

    @action
    def count(self) -> int:
        self.state.value += 1
        self.broadcast(self.counted, self.state.value)
        return self.state.value


class Interval(Gated):
    name = "interval"
    options = Options(durability="interval")


class Unsaved(Gated):
    name = "none"
    options = Options(durability="none")


class GatedRoom(Actor[Messages]):
    name = "gatedRoom"
    options = Options(durability="gated")

    @action
    def fill(self, count: int) -> None:
        text = "hello everyone, this is a message of a usual length " * 2
        self.state.messages = [Message(f"{n:08x}", f"user {n % 50}", text, 1e9 + n) for n in range(count)]

    @action
    def post(self, text: str) -> int:
        self.state.messages.append(Message(f"{len(self.state.messages):08x}", "user 1", text, 2e9))
        return len(self.state.messages)


class UnsavedRoom(GatedRoom):
    name = "unsavedRoom"
    options = Options(durability="none")


class Sleeper(Actor[dict[str, Any]]):
    name = "room"

    @action(readonly=True)
    def look(self) -> int:
        return len(self.state)


REGISTRY: Final = Registry(Gated, Interval, Unsaved, GatedRoom, UnsavedRoom, Sleeper)


class Lines:
    """Messages without a WebSocket around them."""

    def __init__(self) -> None:
        codec = codec_for("json")
        assert codec is not None
        self.codec: Codec = codec

    def frame(self, payload: bytes) -> bytes:
        return payload

    def extension_frame(self, payload: bytes) -> bytes:
        return payload

    def close_frame(self, code: int, reason: str) -> bytes:
        return b""


class Sink:
    """A transport that takes everything, and notes when. Each send is one of the kernel's, to where nobody reads."""

    def __init__(self, last: list[float], sock: socket.socket) -> None:
        self._last = last
        self._sock = sock

    def send_nowait(self, data: bytes) -> int:
        self._sock.send(data)
        self._last[0] = time.perf_counter()
        return len(data)

    async def send_all(self, data: bytes) -> None:
        self.send_nowait(data)
        await trio.lowlevel.checkpoint()

    def finish(self) -> None: ...

    def abort(self) -> None: ...


@attrs.frozen
class Figure:
    """One line: medians over the pairs, and whether the target is met."""

    case: str
    value: float
    unit: str
    bound: float | None = None

    @property
    def met(self) -> bool | None:
        return None if self.bound is None else self.value <= self.bound


def percentile(times: Sequence[float], share: float) -> float:
    return sorted(times)[min(len(times) - 1, int(len(times) * share))]


@asynccontextmanager
async def hosting(directory: Path, synchronous: Synchronous = "normal") -> AsyncGenerator[Host]:
    limits = Limits(sleep_after=float("inf"))
    async with open_sqlite_store(directory, synchronous=synchronous) as store:
        async with open_host(REGISTRY, limits, store=store) as host:
            yield host


async def actor(host: Host, name: str, key: str = "k") -> Instance:
    return (await host.get_or_create("default", name, (key,), soon=True))[0]


async def repeat(seconds: float, call: Callable[[], Awaitable[object]]) -> list[float]:
    """The seconds that each call took."""
    times: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.perf_counter()
        await call()
        times.append(time.perf_counter() - began)
    return times


async def measure_gate(directory: Path, pairs: int, seconds: float) -> list[Figure]:
    """From the call to the last of so many subscribers."""
    found: dict[str, list[float]] = {}
    async with hosting(directory) as host, AsyncExitStack() as stack:
        last = {name: [0.0] for name in ("none", "gated")}
        lines = Lines()
        drain, sock = (stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in range(2))
        drain.bind(("127.0.0.1", 0))
        sock.connect(drain.getsockname())
        for name, moment in last.items():
            instance = await actor(host, name)
            for _ in range(SUBSCRIBERS):
                session = instance.open_session(Sink(moment, sock), lines, params=None, request=REQUEST)
                await stack.enter_async_context(session)
                session.receive(SubscriptionRequest("counted", True))
        for pair in range(pairs):
            for name in list(last) if pair % 2 else list(last)[::-1]:
                instance = await actor(host, name)
                times: list[float] = []
                until = time.perf_counter() + seconds
                while time.perf_counter() < until:
                    began = time.perf_counter()
                    await instance.call("count", [], request=REQUEST)
                    await trio.testing.wait_all_tasks_blocked()
                    times.append(last[name][0] - began)
                for share in (0.5, 0.99):
                    found.setdefault(f"{name} p{share * 100:g}", []).append(percentile(times, share))
    figures = [Figure(f"last of {SUBSCRIBERS:,}, {name}", median(times) * 1e3, "ms") for name, times in found.items()]
    for percent in ("p50", "p99"):
        ratios = [a / b for a, b in zip(found[f"gated {percent}"], found[f"none {percent}"], strict=True)]
        figures.append(Figure(f"last of {SUBSCRIBERS:,}, gated / none, {percent}", median(ratios), "x", 2))
    return figures


async def measure_room(directory: Path, pairs: int, seconds: float) -> list[Figure]:
    """Calls of a chat room that remembers many messages, and for how long saving keeps the loop.

    A block is counted in CPU time of the loop's thread, so that what else the machine does is no part of it.
    """
    figures: list[Figure] = []
    blocks: list[float] = []
    collect = Saver._collect

    def timed(self: Saver, *, every_conn: bool) -> Any:
        began = time.thread_time()
        try:
            return collect(self, every_conn=every_conn)
        finally:
            blocks.append(time.thread_time() - began)

    Saver._collect = timed  # type: ignore[method-assign]
    try:
        for count in (10_000, 100_000):
            async with hosting(directory) as host:
                names = ("unsavedRoom", "gatedRoom")
                rooms = {name: await actor(host, name, str(count)) for name in names}
                for room in rooms.values():
                    await room.call("fill", [count], request=REQUEST)
                    await room.call("post", ["warm"], request=REQUEST)
                size = len(rooms["gatedRoom"].state.encode() or b"") / 1e6
                added: list[float] = []
                shares: list[float] = []
                longest: list[float] = []
                for pair in range(pairs):
                    p50: dict[str, float] = {}
                    for name in names if pair % 2 else names[::-1]:
                        blocks.clear()
                        began = time.perf_counter()
                        post = partial(rooms[name].call, "post", ["hi"], request=REQUEST)
                        times = await repeat(seconds, post)
                        p50[name] = percentile(times, 0.5)
                        if name == "gatedRoom":
                            shares.append(sum(blocks) / (time.perf_counter() - began))
                            longest.append(max(blocks))
                    added.append(p50["gatedRoom"] - p50["unsavedRoom"])
                label = f"{count:,} messages ({size:.1f} MB)"
                small = count == 10_000
                figures += [
                    Figure(f"{label}: gating adds to a call, p50", median(added) * 1e3, "ms", 15 if small else None),
                    Figure(f"{label}: longest block", median(longest) * 1e3, "ms", 5 if small else None),
                    Figure(f"{label}: share of the loop", median(shares) * 100, "%", None if small else 20),
                ]
    finally:
        Saver._collect = collect  # type: ignore[method-assign]
    return figures


async def measure_wake(directory: Path, pairs: int, seconds: float) -> list[Figure]:
    """Start-up with few and many sleeping actors, and a wake beside a bare read.

    Whoever was woken sleeps again, untimed, before the next one wakes: as many wake as fall asleep.
    """
    few, many = directory / "few", directory / "many"
    await fill(few, 100)
    await fill(many, SLEEPING)
    starts: dict[Path, list[float]] = {few: [], many: []}
    for _ in range(max(pairs, 3)):
        for where in (few, many):
            began = time.perf_counter()
            async with hosting(where):
                starts[where].append(time.perf_counter() - began)
    ratios: list[float] = []
    wakes: list[float] = []
    random = Random(0)
    bare = sqlite3.connect(many / FILE_NAME)
    query = (
        "SELECT state FROM actors JOIN states ON actor = number "
        "WHERE namespace = 'default' AND name = 'room' AND key = ?"
    )
    async with hosting(many) as host:
        numbers = iter(random.sample(range(SLEEPING), SLEEPING))
        warm = await actor(host, "room", f"room {next(numbers)}")
        for _ in range(pairs):
            until = time.perf_counter() + seconds
            reads, woken, turns = list[float](), list[float](), list[float]()
            while time.perf_counter() < until:
                for times, call in (
                    (reads, None),
                    (woken, host),
                    (turns, warm),
                ):
                    key = f"room {next(numbers)}"
                    began = time.perf_counter()
                    if call is None:
                        bare.execute(query, (json.dumps([key]),)).fetchone()
                    elif call is host:
                        await (await actor(host, "room", key)).call("look", [], request=REQUEST)
                    else:
                        await warm.call("look", [], request=REQUEST)
                    times.append(time.perf_counter() - began)
                    if call is host:
                        await (await actor(host, "room", key)).sleep()
            read, wake, turn = (percentile(times, 0.5) for times in (reads, woken, turns))
            wakes.append(wake)
            ratios.append((wake - turn) / read)
    bare.close()
    return [
        Figure("start-up, 100 sleeping actors", min(starts[few]) * 1e3, "ms"),
        Figure(f"start-up, {SLEEPING:,} sleeping actors", min(starts[many]) * 1e3, "ms"),
        Figure("a call that wakes, p50", median(wakes) * 1e6, "us"),
        Figure("(a call that wakes - a call) / a bare read, p50", median(ratios), "x", 5),
    ]


async def count_calls(instance: Instance, seconds: float, counts: list[int]) -> None:
    counts.append(len(await repeat(seconds, partial(instance.call, "count", [], request=REQUEST))))


async def measure_calls(directory: Path, pairs: int, seconds: float) -> list[Figure]:
    """Small calls, 64 at a time, of one actor."""
    rates: dict[str, list[float]] = {}
    for pair in range(pairs):
        levels: list[tuple[Synchronous, str]] = [
            ("normal", "none"),
            ("normal", "interval"),
            ("normal", "gated"),
            ("full", "gated"),
        ]
        for synchronous, name in levels if pair % 2 else levels[::-1]:
            async with hosting(directory, synchronous) as host:
                instance = await actor(host, name)
                counts: list[int] = []

                async with trio.open_nursery() as nursery:
                    for _ in range(64):
                        nursery.start_soon(count_calls, instance, seconds, counts)
                rates.setdefault(f"{name}, synchronous={synchronous}", []).append(sum(counts) / seconds)
    figures = [Figure(f"calls, 64 at once, {name}", median(values), "/s") for name, values in rates.items()]
    none = rates["none, synchronous=normal"]
    for name, values in rates.items():
        ratios = [b / a for a, b in zip(values, none, strict=True)]
        figures.append(Figure(f"time of a call, {name} / none", median(ratios), "x"))
    return figures


MEASURES: Final = {"gate": measure_gate, "room": measure_room, "wake": measure_wake, "calls": measure_calls}


def show(figures: Sequence[Figure]) -> str:
    rows = [["", "figure", "", "target", ""]]
    for figure in figures:
        bound = "" if figure.bound is None else f"<= {figure.bound:g}"
        met = {None: "", True: "met", False: "NOT MET"}[figure.met]
        rows.append([figure.case, f"{figure.value:.3g}", figure.unit, bound, met])
    return table(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5, metavar="N", help="repetitions, interleaved (%(default)s)")
    parser.add_argument("--seconds", type=float, default=1.0, metavar="S", help="of each measurement (%(default)s)")
    parser.add_argument("--only", default=",".join(MEASURES), help="(%(default)s)")
    parser.add_argument("--directory", type=Path, help="on the disk to measure (default: a temporary one)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number there")
    arguments = parser.parse_args()
    figures: list[Figure] = []
    where = Path(tempfile.mkdtemp(prefix="trivet-", dir=arguments.directory))
    try:
        for name in arguments.only.split(","):
            print(f"{name} ...", file=sys.stderr, flush=True)
            os.mkdir(where / name)
            figures += trio.run(MEASURES[name], where / name, arguments.pairs, arguments.seconds)
    finally:
        shutil.rmtree(where)
    print(show(figures))
    about = machine()
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    if arguments.json is not None:
        lines = [attrs.asdict(figure) | {"met": figure.met} for figure in figures]
        arguments.json.write_text(json.dumps({"machine": dict(about), "figures": lines}, indent=1) + "\n")


if __name__ == "__main__":
    main()
