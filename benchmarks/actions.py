"""Actions: what a call costs, one at a time and many, over a connection and over HTTP.

    python -m benchmarks.actions --pin --json benchmarks/results/actions.json

Beside trivet, pair by pair, the same bytes are sent back by a loop of recv() and send() in C and in Python, by a
trio.SocketStream, by a Trio task that gets them through a memory channel, and by trio-websocket; python-socketio and
RivetKit answer a call as their own protocols have it.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for `python benchmarks/actions.py`

from benchmarks.harness import Benchmark, Case, Column, Settings, Target, command
from benchmarks.peers.echoes import ECHOES, make_echo
from trivet.bench.client import ClientSpec
from trivet.bench.runs import Measured, calls_figures, measure_calls

_HTTP = "-http"


def _cases(settings: Settings) -> Sequence[Case]:
    in_flight = (1, 8, 64)
    return [
        *(Case(f"connection, {n} in flight", {"in_flight": n, "http": 0}) for n in in_flight),
        *(Case(f"HTTP, {n} at a time", {"in_flight": n, "http": 1}) for n in (in_flight if settings.full else (1, 8))),
    ]


def _peers(case: Case) -> Sequence[str]:
    return [name for name in ECHOES if name.endswith(_HTTP) == bool(case.whole("http"))]


def _subject(case: Case) -> str:
    return "trivet-http" if case.whole("http") else "trivet"


def _measure(settings: Settings, case: Case, peer: str) -> Measured:
    in_flight, http = case.whole("in_flight"), bool(case.whole("http"))
    arguments: dict[str, str | int] = {"name": peer, "size": settings.payload, "encoding": settings.encoding}
    client = ClientSpec("benchmarks.peers.echoes:make_echo", arguments)
    with tempfile.TemporaryDirectory(prefix="trivet-benchmark-") as directory:
        start = make_echo(peer, settings.payload, settings.encoding).command(Path(directory))
        # HTTP has as many connections as calls under way.
        shape = (in_flight, 1) if http else (1, in_flight)
        return calls_figures(measure_calls(start, client, settings.length, *shape))


BENCHMARK = Benchmark(
    name="actions",
    description="What an action call costs, beside the least that sending its bytes back can cost.",
    cases=_cases,
    peers=_peers,
    all_peers=tuple(ECHOES),
    subject=_subject,
    columns=(
        Column("calls_per_second", "calls/s"),
        Column("cpu_us", "CPU us/call"),
        Column("p50_us", "p50 us"),
        Column("p99_us", "p99 us"),
        Column("p999_us", "p99.9 us"),
        Column("server_share", "server core", compared=False, share=True),
        Column("load_share", "load core", compared=False, share=True),
    ),
    measure=_measure,
    targets=(
        Target(
            "pipelined sync action, server CPU / trio-websocket echo",
            "connection, 64 in flight",
            "cpu_us",
            1 / 3,
            "trio-websocket",
        ),
        Target("single round trip, p50 / raw echo in Python", "connection, 1 in flight", "p50_us", 2, "echo-python"),
        Target("single round trip, p50 / raw echo in Trio", "connection, 1 in flight", "p50_us", 2, "echo-trio"),
        Target(
            "single round trip, p50 / raw echo by another Trio task",
            "connection, 1 in flight",
            "p50_us",
            2,
            "echo-trio-channel",
        ),
        Target("single round trip, p50 / raw echo in C", "connection, 1 in flight", "p50_us", 2, "echo-c"),
    ),
    notes=(
        "CPU is the server's, user and system, everything that it does included. Latency is from the send of "
        "a request to the receipt of its answer, each of which was checked. Ratios are medians of the ratios "
        "within a pair. A '!' marks a load that filled its core, and may be what was measured."
    ),
    plotted="cpu_us",
)


if __name__ == "__main__":
    sys.exit(command(BENCHMARK))
