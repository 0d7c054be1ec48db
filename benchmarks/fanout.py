"""Fan-out: one actor, many subscribers, and what each delivery costs.

    python -m benchmarks.fanout --pin --json benchmarks/results/fanout.json

A controller calls an action, the action broadcasts, and every subscriber must get every event once and in order, or
the run fails. Beside it, in the same run and pair by pair, the same load measures a floor: a server that does one
non-blocking send() of a ready frame of the same bytes for each delivery, in C and in Python; and the broadcasts of
other libraries and servers. Each measurement has a fresh server and a fresh load process.
"""

import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final, cast

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for `python benchmarks/fanout.py`

from benchmarks.harness import Benchmark, Case, Column, Settings, Target, command
from benchmarks.peers import ENCODINGS, SMALLEST_EVENT, Encoding, Event, Startable
from benchmarks.peers.floor import CFloor, PythonFloor
from benchmarks.peers.relays import (
    Nchan,
    NodeSocketIo,
    NodeWs,
    Picows,
    RivetKit,
    SocketIo,
    TrioWebsocket,
    Websockets,
)
from benchmarks.peers.trivet_actor import ResumableTrivetActor, TrivetActor
from trivet.bench.client import ClientSpec
from trivet.bench.fanout_load import FanoutMeasurement
from trivet.bench.processes import (
    raise_descriptor_limit,
)
from trivet.bench.runs import Measured, fanout_figures, measure_fanout

_RESUMABLE: Final = "trivet-resumable"
PEERS: Final[Mapping[str, Callable[[Event], Startable]]] = MappingProxyType(
    {
        "trivet": TrivetActor,
        _RESUMABLE: ResumableTrivetActor,
        "floor-c": CFloor,
        "floor-python": PythonFloor,
        "picows": Picows,
        "websockets": Websockets,
        "node-ws": NodeWs,
        "nchan": Nchan,
        "socket.io": NodeSocketIo,
        "trio-websocket": TrioWebsocket,
        "python-socketio": SocketIo,
        "rivetkit": RivetKit,
    }
)
_FLOORS: Final = ("floor-c", "floor-python")
_FAST: Final = ("trivet", _RESUMABLE, *_FLOORS, "picows", "websockets", "node-ws", "nchan")
# What an engine in front of its actors can be asked for within the time of a measurement.
_RIVETKIT_SUBSCRIBERS: Final = 200


def make_peer(name: str, size: int, encoding: Encoding) -> Startable:
    """The peer of this name: also the client of its load."""
    return PEERS[name](Event(size, encoding))


def name_case(subscribers: int, in_flight: int, payload: int, encoding: str) -> str:
    """As the tables have it."""
    return f"{subscribers:,} x {in_flight} in flight, {payload:,} B {encoding}"


def _case(subscribers: int, in_flight: int, payload: int, encoding: str, peers: Sequence[str]) -> Case:
    values: dict[str, int | str] = {"subscribers": subscribers, "in_flight": in_flight, "payload": payload}
    return Case(
        name_case(subscribers, in_flight, payload, encoding), values | {"encoding": encoding, "peers": ",".join(peers)}
    )


def _cases(settings: Settings) -> Sequence[Case]:
    if settings.full:
        return [
            _case(n, in_flight, payload, encoding, tuple(PEERS) if encoding == "json" else _FAST)
            for n in (1, 10, 100, 1000, 10_000)
            for in_flight in (1, 8, 64)
            for payload in (32, 128, 1024, 16 * 1024)
            for encoding in ENCODINGS
        ]
    payload, encoding = settings.payload, settings.encoding
    if settings.subscribers is not None:
        numbers = settings.in_flight or (1, 8, 64)
        return [_case(settings.subscribers, n, payload, encoding, tuple(PEERS)) for n in numbers]
    return [
        _case(1000, 1, payload, encoding, tuple(PEERS)),
        _case(1000, 8, payload, encoding, _FAST),
        _case(1000, 64, payload, encoding, _FAST),
        _case(10_000, 1, payload, encoding, ("trivet", "floor-c")),
    ]


def _peers(case: Case) -> Sequence[str]:
    return str(case.values["peers"]).split(",")


def measure_peer(
    settings: Settings, peer: str, in_flight: int, payload: int, encoding: Encoding, subscribers: int, slow: int = 0
) -> FanoutMeasurement:
    """One measurement. Raises Unavailable, ProcessFailed."""
    raise_descriptor_limit(subscribers + 200)
    client = ClientSpec("benchmarks.fanout:make_peer", {"name": peer, "size": payload, "encoding": encoding})
    with tempfile.TemporaryDirectory(prefix="trivet-benchmark-") as directory:
        start = make_peer(peer, payload, encoding).command(Path(directory))
        return measure_fanout(start, client, settings.length, subscribers, in_flight, slow)


def _measure(settings: Settings, case: Case, peer: str) -> Measured:
    subscribers, payload = case.whole("subscribers"), case.whole("payload")
    encoding = cast("Encoding", case.values["encoding"])
    if peer == "rivetkit":
        subscribers = min(subscribers, _RIVETKIT_SUBSCRIBERS)
    return fanout_figures(measure_peer(settings, peer, case.whole("in_flight"), payload, encoding, subscribers))


def _targets() -> Sequence[Target]:
    one, eight, many = (name_case(1000, n, 128, "json") for n in (1, 8, 64))
    ten_thousand = name_case(10_000, 1, 128, "json")
    cpu, last_p50, last_p99 = "cpu_us", "last_p50_us", "last_p99_us"
    others = [name for name in PEERS if name not in ("trivet", _RESUMABLE, *_FLOORS, "rivetkit")]
    return (
        Target("CPU per delivery / C floor, one in flight", one, cpu, 1.35, "floor-c"),
        *(Target(f"CPU per delivery / {name}, one in flight", one, cpu, 1.1, name) for name in others),
        Target("CPU per delivery, RivetKit / trivet", one, cpu, 50, "trivet", peer="rivetkit", at_least=True),
        Target("CPU per delivery, resumable / plain, one in flight", one, cpu, 1.25, "trivet", peer=_RESUMABLE),
        Target("CPU per delivery, resumable / plain, 64 in flight", many, cpu, 2, "trivet", peer=_RESUMABLE),
        Target("last subscriber p50 / C floor", one, last_p50, 1.4, "floor-c"),
        Target("last subscriber p99 / C floor", one, last_p99, 1.6, "floor-c"),
        Target("last subscriber p50, 10,000 / 1,000", ten_thousand, last_p50, 12, "trivet", reference_case=one),
        Target("CPU per delivery / C floor, 8 in flight", eight, cpu, 1 / 3, "floor-c"),
        Target("CPU per delivery / C floor, 64 in flight", many, cpu, 1 / 7, "floor-c"),
    )


BENCHMARK = Benchmark(
    name="fanout",
    description="What each delivery of a broadcast costs, beside the least that it can cost.",
    cases=_cases,
    peers=_peers,
    all_peers=tuple(PEERS),
    subject=lambda _case: "trivet",
    columns=(
        Column("deliveries_per_second", "deliveries/s"),
        Column("cpu_us", "CPU us/delivery"),
        Column("p50_us", "p50 us"),
        Column("p99_us", "p99 us"),
        Column("p999_us", "p99.9 us"),
        Column("last_p50_us", "last p50 us"),
        Column("last_p99_us", "last p99 us"),
        Column("connection_kib", "KiB/conn."),
        Column("events_per_read", "events/read", compared=False),
        Column("server_share", "server core", compared=False, share=True),
        Column("load_share", "load core", compared=False, share=True),
    ),
    measure=_measure,
    targets=_targets(),
    notes=(
        "Every event reached every subscriber once and in order, or there would be no table. CPU is the "
        "server's, user and system, everything that it does included. Latency is from the controller's send "
        "to the receipt, of every delivery, and of each event's last subscriber. Ratios are medians of the "
        "ratios within a pair. The load keeps up while its core is not full; a '!' marks where it was. "
        f"RivetKit has {_RIVETKIT_SUBSCRIBERS} subscribers at most."
    ),
    plotted="cpu_us",
    smallest_payload=SMALLEST_EVENT,
    fans_out=True,
)


if __name__ == "__main__":
    sys.exit(command(BENCHMARK))
