"""Fan-out: one actor, many subscribers, and what each delivery costs.

    python -m benchmarks.fanout --subscribers 1000 --in-flight 1,8,64 --pin

A controller calls an action, the action broadcasts, and every subscriber must get every event once and in order, or
the run fails. Beside it, in the same run and pair by pair, the same load measures a floor: a server that does one
non-blocking send() of a ready frame of the same bytes for each delivery, in Python and, where there is a compiler, in
C. Ratios are taken within a pair, so that what else the machine does weighs on both sides alike. Each measurement has
a fresh server and a fresh load process.
"""

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn, cast

import attrs

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for `python benchmarks/fanout.py`

from benchmarks.fanout_load import Load, Measurement
from benchmarks.peers import ENCODINGS, FLOORS, PEERS, SMALLEST_EVENT, Encoding, Event, Unavailable, make_peer
from benchmarks.processes import (
    ProcessFailed,
    machine,
    python,
    raise_descriptor_limit,
    read_line,
    running,
    two_cores,
)
from benchmarks.summary import median, number, table

# The load keeps up as long as it is idle at times; above this share of a core it may be what is measured.
_SATURATED = 0.9


@attrs.frozen
class Options:
    """What to measure: see the command's help."""

    subscribers: int
    in_flight: tuple[int, ...]
    payload: int
    encoding: Encoding
    pairs: int
    seconds: float
    events: int | None
    peers: tuple[str, ...]
    pin: bool
    timeout: float
    json: Path | None


@attrs.frozen
class Run:
    """One measurement of one peer."""

    pair: int
    peer: str
    in_flight: int
    measured: Measurement

    @property
    def cpu_per_delivery(self) -> float:
        """Microseconds of the server, everything that it does included."""
        return self.measured.server_cpu / self.measured.deliveries * 1e6

    @property
    def deliveries_per_second(self) -> float:
        """Over all subscribers."""
        return self.measured.deliveries / self.measured.wall

    @property
    def server_share(self) -> float:
        """Of one core."""
        return self.measured.server_cpu / self.measured.wall

    @property
    def load_share(self) -> float:
        """Of one core."""
        return self.measured.load_cpu / self.measured.wall


# Columns of the table and of the JSON summary: name, heading, what of a run.
COLUMNS: Sequence[tuple[str, str, Callable[[Run], float]]] = (
    ("deliveries_per_second", "deliveries/s", lambda run: run.deliveries_per_second),
    ("cpu_us_per_delivery", "CPU us/delivery", lambda run: run.cpu_per_delivery),
    ("latency_us_p50", "p50 us", lambda run: run.measured.latency_p50),
    ("latency_us_p99", "p99 us", lambda run: run.measured.latency_p99),
    ("latency_us_last", "last us", lambda run: run.measured.latency_last),
    ("events_per_read", "events/read", lambda run: run.measured.deliveries / run.measured.reads),
    ("server_share", "server core", lambda run: run.server_share),
    ("load_share", "load core", lambda run: run.load_share),
)
_RATIOS = 5  # of the columns, the first so many are compared with the floor


def measure(options: Options, pair: int, peer: str, in_flight: int) -> Run:
    """One measurement. Raises Unavailable, ProcessFailed."""
    server_core, load_core = two_cores() if options.pin else (None, None)
    with tempfile.TemporaryDirectory(prefix="trivet-benchmark-") as directory:
        command = make_peer(peer, Event(options.payload, options.encoding)).command(Path(directory))
        with running(command, server_core) as server:
            load = Load(
                peer=peer,
                port=int(read_line(server)),
                server_pid=server.pid,
                subscribers=options.subscribers,
                in_flight=in_flight,
                payload=options.payload,
                encoding=options.encoding,
                seconds=options.seconds,
                events=options.events,
                timeout=options.timeout,
            )
            with running(python("benchmarks.fanout_load", json.dumps(attrs.asdict(load))), load_core) as loading:
                # The load gives up by itself; this is for one that hangs.
                answer = read_line(loading, options.timeout * 2 + 10)
    return Run(pair, peer, in_flight, Measurement(**json.loads(answer)))


def measure_all(options: Options, runs: list[Run], skipped: dict[str, str]) -> None:
    """All measurements, interleaved, into `runs`; into `skipped` which peers cannot run here, and why."""
    total = options.pairs * len(options.in_flight) * len(options.peers)
    done = 0
    for pair in range(options.pairs):
        for in_flight in options.in_flight:
            # Alternating, so that what drifts favours nobody.
            for peer in options.peers if pair % 2 == 0 else options.peers[::-1]:
                done += 1
                _progress(f"{done}/{total}: pair {pair + 1}, {in_flight} in flight, {peer}")
                if peer in skipped:
                    continue
                try:
                    runs.append(measure(options, pair, peer, in_flight))
                except Unavailable as exc:
                    skipped[peer] = str(exc)


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


def summarise(runs: Sequence[Run]) -> list[dict[str, object]]:
    """Medians of each peer, and the medians of its ratios to each floor within a pair, in the order of the table."""
    summary: list[dict[str, object]] = []
    by_key = {(run.in_flight, run.peer, run.pair): run for run in runs}
    for in_flight in dict.fromkeys(run.in_flight for run in runs):
        peers = sorted({run.peer for run in runs}, key=PEERS.index)
        for peer in peers:
            own = [run for run in runs if run.in_flight == in_flight and run.peer == peer]
            values = {name: median([value(run) for run in own]) for name, _, value in COLUMNS}
            saturated = median([run.load_share for run in own]) > _SATURATED
            summary.append({"in_flight": in_flight, "peer": peer, "load_saturated": saturated, **values})
        for floor in (floor for floor in FLOORS if floor in peers):
            for peer in (peer for peer in peers if peer not in FLOORS):
                pairs = [
                    (run, by_key[in_flight, floor, run.pair])
                    for run in runs
                    if run.in_flight == in_flight and run.peer == peer and (in_flight, floor, run.pair) in by_key
                ]
                ratios = {
                    name: median([value(run) / value(other) for run, other in pairs])
                    for name, _, value in COLUMNS[:_RATIOS]
                }
                summary.append({"in_flight": in_flight, "peer": peer, "floor": floor, **ratios})
    return summary


def render(summary: Sequence[Mapping[str, object]]) -> str:
    """The table."""
    rows = [["in flight", "peer", *(heading for _, heading, _ in COLUMNS)]]
    for line in summary:
        label = str(line["peer"])
        ratio = "floor" in line
        if ratio:
            label = f"{label} / {line['floor']}"
        cells: list[str] = []
        for name, _, _ in COLUMNS:
            value = cast("float | None", line.get(name))
            if value is None:
                cells.append("")
            elif ratio:
                cells.append(f"x {value:.2f}")
            elif name.endswith("_share"):
                cells.append(f"{value:.0%}" + ("!" if name == "load_share" and line["load_saturated"] else ""))
            else:
                cells.append(number(value))
        rows.append([str(line["in_flight"]), label, *cells])
    return table(rows)


def report(options: Options, runs: Sequence[Run], skipped: Mapping[str, str]) -> None:
    """Write the JSON, print the table."""
    about, summary = machine(), summarise(runs)
    if options.json is not None:
        document = {
            "benchmark": "fanout",
            "options": attrs.asdict(options) | {"json": str(options.json)},
            "machine": about,
            "skipped": skipped,
            "summary": summary,
            "runs": [attrs.asdict(run) for run in runs],
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    if runs:
        first = runs[0].measured
        print(
            f"{options.subscribers} subscribers, events of {options.payload} bytes of JSON in {options.encoding} frames"
            f" of {first.frame_bytes} bytes; medians of {max(run.pair for run in runs) + 1} interleaved pairs"
            f"{', server and load on a core each' if options.pin else ''}"
        )
        print(render(summary))
        print(
            f"\nEvery event reached every subscriber once and in order: {sum(r.measured.deliveries for r in runs):,}"
            " deliveries.\nCPU is the server's, user and system, everything that it does included. Latency is from the"
            " controller's send\nto the receipt: of an event's subscribers the median, the 99th percentile and the"
            " last. Ratios are medians of\nthe ratios within a pair. The load keeps up while its core is not full; a"
            " '!' marks where it was."
        )
    for peer, reason in skipped.items():
        print(f"{peer} was not measured: {reason}")
    print(", ".join(f"{name} {value}" for name, value in about.items()))


def parse(arguments: Sequence[str] | None = None) -> Options:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fanout",
        description="What each delivery of a broadcast costs, beside the least that it can cost.",
    )
    parser.add_argument("--subscribers", type=_positive, default=1000, metavar="N", help="connections (1000)")
    parser.add_argument(
        "--in-flight", type=_positives, default=(1, 8, 64), metavar="N,...", help="events under way (1,8,64)"
    )
    parser.add_argument("--payload", type=_positive, default=128, metavar="BYTES", help="of an event as JSON (128)")
    parser.add_argument("--encoding", choices=ENCODINGS, default="json", help="of the clients (json)")
    parser.add_argument("--pairs", type=_positive, default=7, metavar="N", help="repetitions, interleaved (7)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=float, default=1.5, metavar="S", help="of each measurement (1.5)")
    length.add_argument("--events", type=_positive, metavar="N", help="of each measurement, instead of a time")
    parser.add_argument("--peers", type=_peers, default=PEERS, metavar="NAME,...", help=f"({','.join(PEERS)})")
    parser.add_argument("--pin", action="store_true", help="the server on one core, the load on another")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="S", help="of each measurement (60)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number there")
    options = Options(**vars(parser.parse_args(arguments)))
    if options.payload < SMALLEST_EVENT:
        parser.error(f"--payload is at least {SMALLEST_EVENT}")
    if options.payload > 60_000:
        parser.error("--payload is at most 60000: the controller sends it, and servers limit what clients send")
    return options


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _positives(text: str) -> tuple[int, ...]:
    return tuple(_positive(item) for item in text.split(","))


def _peers(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in PEERS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(PEERS)}")
    return names


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(143)


def main() -> None:
    """Run the command. Ends with 1 when something was lost, doubled or reordered; Ctrl-C reports what there is."""
    options = parse()
    signal.signal(signal.SIGTERM, _terminate)  # the processes are ended on the way out
    runs: list[Run] = []
    skipped: dict[str, str] = {}
    status = 0
    try:
        raise_descriptor_limit(options.subscribers + 200)
        measure_all(options, runs, skipped)
    except ProcessFailed as exc:
        _progress("")
        sys.exit(str(exc))
    except KeyboardInterrupt:
        status = 130  # what was measured so far is worth seeing
    _progress("")
    report(options, runs, skipped)
    sys.exit(status)


if __name__ == "__main__":
    main()
