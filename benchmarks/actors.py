"""Actors: how fast one starts, and how many live actors and connections fit.

    python -m benchmarks.actors --pin --json benchmarks/results/actors.json

Cold starts are calls of a new actor over HTTP, beside a second call of the same on the same connection. Live actors
are counted in one process, beside bare Trio tasks with a nursery and a memory channel each; connections beside those
of other libraries, and everything beside RivetKit.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for `python benchmarks/actors.py`

from benchmarks.fanout import measure_peer
from benchmarks.harness import Benchmark, Case, Column, Settings, Target, command
from benchmarks.peers.echoes import make_echo
from trivet.bench.figures import Histogram
from trivet.bench.processes import (
    python,
    raise_descriptor_limit,
    read_announcement,
    read_line,
    resident_bytes,
    running,
    two_cores,
)
from trivet.bench.runs import Measured

_COLD: Final = "cold start over HTTP"
_ACTORS: Final = ("trivet", "bare task")
_CONNECTIONS: Final = ("trivet", "picows", "websockets", "node-ws", "trio-websocket", "python-socketio", "rivetkit")
_RIVETKIT_CONNECTIONS: Final = 200
_ENOUGH_ACTORS: Final = 100


def _cases(settings: Settings) -> Sequence[Case]:
    actors = [Case("10,000 live actors", {"kind": "actors", "count": 10_000})]
    connections = [Case("1,000 connections", {"kind": "connections", "count": 1000})]
    # Memory repeats within a percent: once is enough of what takes long.
    actors.append(Case("100,000 live actors", {"kind": "actors", "count": 100_000, "pairs": 1}))
    connections.append(
        Case(
            "10,000 connections",
            {"kind": "connections", "count": 10_000, "pairs": settings.pairs if settings.full else 1},
        )
    )
    return [Case(_COLD, {"kind": "cold"}), *actors, *connections]


def _peers(case: Case) -> Sequence[str]:
    kind = case.values["kind"]
    if kind == "cold":
        return ("trivet", "rivetkit")
    if kind == "actors":
        return _ACTORS
    return _CONNECTIONS if case.whole("count") <= 1000 else ("trivet", "picows", "websockets", "trio-websocket")


def _measure(settings: Settings, case: Case, peer: str) -> Measured:
    kind = case.values["kind"]
    if kind == "cold":
        return _measure_cold(settings, peer)
    if kind == "actors":
        return _measure_actors(settings, peer, case.whole("count"))
    return _measure_connections(settings, peer, case.whole("count"))


def _measure_cold(settings: Settings, peer: str) -> Measured:
    server_core, load_core = two_cores() if settings.pin else (None, None)
    with tempfile.TemporaryDirectory(prefix="trivet-benchmark-") as directory:
        start = make_echo(f"{peer}-http", settings.payload, "json").command(Path(directory))
        with running(start, server_core) as server:
            announced = read_announcement(server, settings.timeout)
            memory = sum(map(resident_bytes, announced.pids))
            arguments = (str(announced.port), str(settings.seconds), *map(str, announced.pids))
            with running(python("benchmarks.actors_load", *arguments), load_core) as load:
                found: dict[str, list[float]] = json.loads(read_line(load, settings.timeout * 2 + 10))
            memory = sum(map(resident_bytes, announced.pids)) - memory
    cold, warm = (Histogram.of(map(int, found[kind])) for kind in ("cold", "warm"))
    return Measured(
        {
            "p50_us": cold.percentile(50) / 1e3,
            "p99_us": cold.percentile(99) / 1e3,
            "cpu_us": sum(found["cold_cpu"]) / len(found["cold_cpu"]),
            "warm_p50_us": warm.percentile(50) / 1e3,
            "cold_to_warm": cold.percentile(50) / warm.percentile(50),
            # Of few actors it would be the growth of everything else.
            **({"actor_kib": memory / len(found["cold"]) / 1024} if len(found["cold"]) >= _ENOUGH_ACTORS else {}),
        },
        {"first call": cold, "second call": warm},
    )


def _measure_actors(settings: Settings, peer: str, count: int) -> Measured:
    core, _ = two_cores() if settings.pin else (None, None)
    kind = "trivet" if peer == "trivet" else "bare"
    with running(python("benchmarks.many_actors", kind, str(count)), core) as process:
        found: dict[str, float] = json.loads(read_line(process, settings.timeout * 10))
    return Measured({"p50_us": found["wall_us"], **{name: found[name] for name in ("cpu_us", "actor_kib", "live")}})


def _measure_connections(settings: Settings, peer: str, count: int) -> Measured:
    if peer == "rivetkit":
        count = min(count, _RIVETKIT_CONNECTIONS)
    raise_descriptor_limit(count + 200)
    once = attrs.evolve(settings, events=1)
    measured = measure_peer(once, peer, 1, settings.payload, "json", count)
    return Measured(
        {
            "connection_kib": measured.connection_bytes / 1024,
            "p50_us": measured.connect_seconds / count * 1e6,
            "live": count,
        }
    )


BENCHMARK = Benchmark(
    name="actors",
    description="How fast an actor starts, and how many live actors and connections fit.",
    cases=_cases,
    peers=_peers,
    all_peers=(
        "trivet",
        "bare task",
        "picows",
        "websockets",
        "node-ws",
        "trio-websocket",
        "python-socketio",
        "rivetkit",
    ),
    subject=lambda _case: "trivet",
    columns=(
        Column("p50_us", "us each"),
        Column("p99_us", "p99 us"),
        Column("cpu_us", "CPU us each"),
        Column("warm_p50_us", "2nd call us"),
        Column("cold_to_warm", "1st/2nd", compared=False),
        Column("actor_kib", "KiB/actor"),
        Column("connection_kib", "KiB/conn."),
        Column("live", "live", compared=False),
    ),
    measure=_measure,
    targets=(
        Target("cold start / warm call, same HTTP connection", _COLD, "cold_to_warm", 3),
        Target("idle actor / bare Trio task, 10,000", "10,000 live actors", "actor_kib", 1.5, "bare task"),
        Target("idle actor / bare Trio task, 100,000", "100,000 live actors", "actor_kib", 1.5, "bare task"),
        Target("live actors in one process", "100,000 live actors", "live", 100_000, at_least=True),
        Target("KiB for an idle connection, 1,000", "1,000 connections", "connection_kib", 12),
        Target("KiB for an idle connection, 10,000", "10,000 connections", "connection_kib", 12),
    ),
    notes=(
        "Cold start: from the request for an actor that is not there yet to its answer, on a connection that "
        "is kept alive; the second call is the same request again. Live actors: from nothing to the first "
        "answer, one after another, inside one process. Memory is the growth of what is resident, the "
        f"kernel's socket buffers not included. RivetKit holds {_RIVETKIT_CONNECTIONS} connections."
    ),
    plotted="p50_us",
)


if __name__ == "__main__":
    sys.exit(command(BENCHMARK))
