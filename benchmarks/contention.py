"""Contention: what one actor's load does to others, and one slow reader to all other subscribers.

    python -m benchmarks.contention --pin --json benchmarks/results/contention.json

While an actor broadcasts to its subscribers as fast as they take it, a hundred others answer actions at a fixed rate;
their latencies are compared with those before the load came. And an actor broadcasts to a thousand subscribers, with
one more that never reads, and without. Beside trivet the floor has both loads, and other libraries the second.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for `python benchmarks/contention.py`

from benchmarks.fanout import make_peer, measure_peer
from benchmarks.harness import Benchmark, Case, Column, Settings, Target, command
from trivet.bench.calls_load import CallsLoad, CallsMeasurement
from trivet.bench.client import ClientSpec
from trivet.bench.fanout_load import FanoutLoad, FanoutMeasurement
from trivet.bench.figures import Histogram
from trivet.bench.processes import (
    python,
    raise_descriptor_limit,
    read_announcement,
    read_line,
    running,
    two_cores,
    urgent,
)
from trivet.bench.runs import Measured

_CALLERS: Final = 100
_RATE: Final = 400.0  # calls a second of all callers together: a small part of what a server can
_SUBSCRIBERS: Final = 1000
_IN_FLIGHT: Final = 64
_SLOW_PAYLOAD: Final = 4096  # so that the buffers of the one that does not read are soon full
_BUSY: Final = f"{_CALLERS} actors beside a fan-out to {_SUBSCRIBERS:,}"
_SLOW: Final = f"one of {_SUBSCRIBERS:,} does not read"
# The client whose calls these are, beside the server that gets them.
_CALL_CLIENTS: Final = {"trivet": "trivet", "floor-c": "echo-c", "floor-python": "echo-python"}
_RELAYS: Final = ("picows", "websockets", "node-ws", "trio-websocket")


def _cases(settings: Settings) -> Sequence[Case]:
    # trio-websocket's senders wait for the slow one: that ends with the timeout, and is for those who have the time.
    relays = ("trivet", *_RELAYS) if settings.full else ("trivet", *_RELAYS[:-1])
    return [
        Case(_BUSY, {"kind": "busy", "peers": ",".join(_CALL_CLIENTS)}),
        Case(_SLOW, {"kind": "slow", "peers": ",".join(relays)}),
    ]


def _peers(case: Case) -> Sequence[str]:
    return str(case.values["peers"]).split(",")


def _measure(settings: Settings, case: Case, peer: str) -> Measured:
    raise_descriptor_limit(_SUBSCRIBERS + _CALLERS + 200)
    return _measure_busy(settings, peer) if case.values["kind"] == "busy" else _measure_slow(settings, peer)


def _measure_busy(settings: Settings, peer: str) -> Measured:
    server_core, load_core = two_cores() if settings.pin else (None, None)
    seconds = settings.seconds * 2  # of few calls, so that a 99th percentile is one of something
    with tempfile.TemporaryDirectory(prefix="trivet-benchmark-") as directory:
        with running(make_peer(peer, settings.payload, "json").command(Path(directory)), server_core) as server:
            announced = read_announcement(server, settings.timeout)
            arguments: dict[str, str | int] = {"size": settings.payload, "encoding": "json"}
            calls = CallsLoad(
                client=ClientSpec("benchmarks.peers.echoes:make_echo", {"name": _CALL_CLIENTS[peer]} | arguments),
                port=announced.port,
                pids=announced.pids,
                connections=_CALLERS,
                in_flight=1,
                seconds=seconds,
                calls=settings.events,
                rate=_RATE,
                timeout=settings.timeout,
            )
            fan_out = FanoutLoad(
                client=ClientSpec("benchmarks.fanout:make_peer", {"name": peer} | arguments),
                port=announced.port,
                pids=announced.pids,
                subscribers=settings.subscribers or _SUBSCRIBERS,
                in_flight=_IN_FLIGHT,
                seconds=settings.timeout / 2,
                events=None,
                timeout=settings.timeout,
                until_input_ends=True,
            )
            calling = python("trivet.bench.calls_load", json.dumps(attrs.asdict(calls)))
            fanning = python("trivet.bench.fanout_load", json.dumps(attrs.asdict(fan_out)))
            wait = settings.timeout * 2 + 10
            # Both loads share a core, and a caller that waited for it would measure the other load.
            with urgent(), running(calling, load_core) as load:
                idle = CallsMeasurement(**json.loads(read_line(load, wait))).histogram
            with running(fanning, load_core) as background:
                read_line(background, wait)
                with urgent(), running(calling, load_core) as load:
                    busy = CallsMeasurement(**json.loads(read_line(load, wait))).histogram
                assert background.stdin is not None
                background.stdin.close()
                measured = FanoutMeasurement(**json.loads(read_line(background, wait)))
    return Measured(
        {
            "idle_p50_us": idle.percentile(50) / 1e3,
            "p50_us": busy.percentile(50) / 1e3,
            "idle_p99_us": idle.percentile(99) / 1e3,
            "p99_us": busy.percentile(99) / 1e3,
            "added_p99_ms": (busy.percentile(99) - idle.percentile(99)) / 1e6,
            "deliveries_per_second": measured.deliveries / measured.wall,
        },
        {"idle": idle, "busy": busy},
    )


def _measure_slow(settings: Settings, peer: str) -> Measured:
    subscribers = (settings.subscribers or _SUBSCRIBERS) - 1
    without, slow = (measure_peer(settings, peer, 8, _SLOW_PAYLOAD, "json", subscribers, slow) for slow in (0, 1))
    before, after = Histogram.from_json(without.last), Histogram.from_json(slow.last)
    return Measured(
        {
            "idle_p50_us": before.percentile(50) / 1e3,
            "p50_us": after.percentile(50) / 1e3,
            "idle_p99_us": before.percentile(99) / 1e3,
            "p99_us": after.percentile(99) / 1e3,
            "added_p99_ms": (after.percentile(99) - before.percentile(99)) / 1e6,
            "deliveries_per_second": slow.deliveries / slow.wall,
            "slower": (slow.server_cpu / slow.deliveries) / (without.server_cpu / without.deliveries),
            "ended": slow.slow_ended,
        },
        {"without": before, "with": after},
    )


BENCHMARK = Benchmark(
    name="contention",
    description="What one actor's load does to others, and one slow reader to all other subscribers.",
    cases=_cases,
    peers=_peers,
    all_peers=(*_CALL_CLIENTS, *_RELAYS),
    subject=lambda _case: "trivet",
    columns=(
        Column("idle_p50_us", "p50 us alone"),
        Column("p50_us", "p50 us"),
        Column("idle_p99_us", "p99 us alone"),
        Column("p99_us", "p99 us"),
        Column("added_p99_ms", "p99 added ms", compared=False),
        Column("deliveries_per_second", "deliveries/s"),
        Column("slower", "CPU with/without", compared=False),
        Column("ended", "slow one ended", compared=False),
    ),
    measure=_measure,
    targets=(
        Target("an action beside a fan-out, p99 above idle, ms", _BUSY, "added_p99_ms", 20),
        Target("CPU per delivery with a slow reader / without", _SLOW, "slower", 1.1),
    ),
    notes=(
        f"Above: {_CALLERS} actors are called {_RATE:.0f} times a second in all, each call at its time "
        f"whatever became of the ones before, alone and beside a fan-out with {_IN_FLIGHT} events in flight; a "
        "floor sends the bytes back. Below: latency to the last subscriber that reads, of events of "
        f"{_SLOW_PAYLOAD} bytes, 8 in flight, without and with one that does not read. Whether its connection "
        "was ended is 1 or 0: a server that keeps it keeps its messages."
    ),
    plotted="p99_us",
    fans_out=True,
)


if __name__ == "__main__":
    sys.exit(command(BENCHMARK))
