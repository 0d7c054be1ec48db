"""What every benchmark does alike: interleave the peers, take ratios within a pair, show and keep the numbers."""

import argparse
import json
import os
import signal
import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn, TypeAlias

import attrs

from benchmarks.peers import ENCODINGS, Encoding, Unavailable
from benchmarks.versions import peer_versions
from trivet.bench.figures import median, number, table
from trivet.bench.processes import ProcessFailed, machine
from trivet.bench.runs import Length, Measured

ROOT = Path(__file__).resolve().parent.parent

SATURATED = 0.9
"""The load keeps up as long as it is idle at times; above this share of a core it may be what is measured."""

_LARGEST_PAYLOAD = 60_000


@attrs.frozen
class Case:
    """One point of a benchmark's matrix: what is done, in words and in numbers; `pairs` limits how often."""

    name: str
    values: Mapping[str, int | str] = attrs.field(factory=dict[str, int | str])

    def whole(self, key: str) -> int:
        """A number of it."""
        return int(self.values[key])


@attrs.frozen
class Run:
    """One measurement of one peer: its figures by name, and the distributions that they were read from."""

    pair: int
    case: str
    peer: str
    figures: Mapping[str, float]
    histograms: Mapping[str, Sequence[tuple[int, int]]] = attrs.field(factory=dict[str, Sequence[tuple[int, int]]])


@attrs.frozen
class Column:
    """A figure as the table shows it. Only `compared` ones are divided by those of the peers."""

    name: str
    heading: str
    compared: bool = True
    share: bool = False


@attrs.frozen
class Target:
    """What trivet should reach: a figure of a case, absolute or divided by a reference's, at most or at least."""

    text: str
    case: str
    figure: str
    bound: float
    reference: str | None = None
    peer: str = "trivet"
    at_least: bool = False
    reference_case: str | None = None


@attrs.frozen
class Settings:
    """What the command line says of any benchmark."""

    pairs: int
    seconds: float
    events: int | None
    subscribers: int | None
    in_flight: tuple[int, ...] | None
    peers: tuple[str, ...]
    encoding: Encoding
    payload: int
    pin: bool
    timeout: float
    full: bool
    budget: float
    json: Path | None
    plot: Path | None

    @property
    def length(self) -> Length:
        """Of each measurement."""
        return Length(self.seconds, self.events, self.timeout, self.pin)


Measure: TypeAlias = Callable[[Settings, Case, str], Measured]


@attrs.frozen
class Benchmark:
    """A command. `subject` is the peer that all others are compared with, `measure` makes one measurement."""

    name: str
    description: str
    cases: Callable[[Settings], Sequence[Case]]
    peers: Callable[[Case], Sequence[str]]
    all_peers: Sequence[str]
    subject: Callable[[Case], str]
    columns: Sequence[Column]
    measure: Measure
    notes: str
    targets: Sequence[Target] = ()
    plotted: str | None = None
    smallest_payload: int = 1
    fans_out: bool = False


class Progress:
    """A bar on a terminal; elsewhere a line for each step."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._began = time.monotonic()
        self._done = 0

    def step(self, text: str) -> None:
        """The next step begins."""
        if sys.stderr.isatty():
            filled = 30 * self._done // self._total
            elapsed = time.monotonic() - self._began
            left = elapsed / self._done * (self._total - self._done) if self._done else 0
            shown = f"about {left // 60:.0f}:{left % 60:02.0f} left" if self._done else ""
            bar = "#" * filled + "." * (30 - filled)
            print(f"\r\x1b[K[{bar}] {self._done}/{self._total} {text} {shown}", end="", file=sys.stderr, flush=True)
        else:
            print(f"{self._done + 1}/{self._total}: {text}", file=sys.stderr, flush=True)
        self._done += 1

    def end(self) -> None:
        """Leave the terminal's line to others."""
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def measure_all(benchmark: Benchmark, settings: Settings, runs: list[Run], skipped: dict[str, str]) -> None:
    """All measurements, interleaved, into `runs`; into `skipped` which peers cannot run here, and why.

    When the budget of time is spent, no further pair begins, unless there is none yet.
    """
    plan = [(case, [p for p in benchmark.peers(case) if p in settings.peers]) for case in benchmark.cases(settings)]
    steps = sum(min(settings.pairs, int(case.values.get("pairs", settings.pairs))) * len(peers) for case, peers in plan)
    progress = Progress(max(steps, 1))
    began = time.monotonic()
    try:
        for pair in range(settings.pairs):
            spent = time.monotonic() - began
            if pair and spent + spent / pair > settings.budget:
                skipped[f"pairs after the {pair}."] = f"{settings.budget:.0f} s are spent"
                return
            for case, peers in plan:
                if pair >= int(case.values.get("pairs", settings.pairs)):
                    continue
                # Alternating, so that what drifts favours nobody.
                for peer in peers if pair % 2 == 0 else peers[::-1]:
                    progress.step(f"pair {pair + 1}, {case.name}, {peer}")
                    if peer in skipped or f"{peer}, {case.name}" in skipped:
                        continue
                    try:
                        measured = benchmark.measure(settings, case, peer)
                    except Unavailable as exc:
                        skipped[peer] = str(exc)
                    except ProcessFailed as exc:
                        if peer == benchmark.subject(case):
                            raise
                        skipped[f"{peer}, {case.name}"] = str(exc)
                    else:
                        shapes = {name: histogram.to_json() for name, histogram in measured.histograms.items()}
                        runs.append(Run(pair, case.name, peer, measured.figures, shapes))
    finally:
        progress.end()


@attrs.frozen
class Line:
    """A line of the summary: medians of a peer's figures, or of its ratios to another's within a pair."""

    case: str
    peer: str
    reference: str | None
    pairs: int
    figures: Mapping[str, float]


def summarise(benchmark: Benchmark, cases: Sequence[Case], runs: Sequence[Run]) -> list[Line]:
    """Case by case: each peer's medians, then trivet's ratios to every other peer, each taken within a pair."""
    lines: list[Line] = []
    by_key = {(run.case, run.peer, run.pair): run.figures for run in runs}
    for case in cases:
        own = [run for run in runs if run.case == case.name]
        peers = [peer for peer in benchmark.peers(case) if any(run.peer == peer for run in own)]
        for peer in peers:
            values = [run.figures for run in own if run.peer == peer]
            names = [column.name for column in benchmark.columns if column.name in values[0]]
            lines.append(Line(case.name, peer, None, len(values), {n: median([v[n] for v in values]) for n in names}))
        subject = benchmark.subject(case)
        for other in peers:
            pairs = [
                (by_key[case.name, subject, run.pair], run.figures)
                for run in own
                if run.peer == other != subject and (case.name, subject, run.pair) in by_key
            ]
            ratios = {
                column.name: median([ours[column.name] / theirs[column.name] for ours, theirs in pairs])
                for column in benchmark.columns
                if column.compared and all(ours.get(column.name) and theirs.get(column.name) for ours, theirs in pairs)
            }
            if pairs:
                lines.append(Line(case.name, subject, other, len(pairs), ratios))
    return lines


def render(benchmark: Benchmark, lines: Sequence[Line]) -> str:
    """The table."""
    rows = [["case", "peer", *(column.heading for column in benchmark.columns)]]
    for line in lines:
        cells: list[str] = []
        for column in benchmark.columns:
            value = line.figures.get(column.name)
            if value is None:
                cells.append("")
            elif line.reference is not None:
                cells.append(f"x {value:.2f}")
            elif column.share:
                cells.append(f"{value:.0%}" + ("!" if column.name == "load_share" and value > SATURATED else ""))
            else:
                cells.append(number(value))
        label = line.peer if line.reference is None else f"{line.peer} / {line.reference}"
        rows.append([line.case, label, *cells])
    return table(rows)


@attrs.frozen
class Verdict:
    """Whether a target was met; `figure` is None where it was not measured."""

    target: Target
    figure: float | None

    @property
    def met(self) -> bool | None:
        """None where it was not measured."""
        if self.figure is None:
            return None
        return self.figure >= self.target.bound if self.target.at_least else self.figure <= self.target.bound


def judge(targets: Sequence[Target], runs: Sequence[Run]) -> list[Verdict]:
    """Each target with the median of its figure."""
    by_key = {(run.case, run.peer, run.pair): run.figures for run in runs}
    verdicts: list[Verdict] = []
    for target in targets:
        values: list[float] = []
        for (case, peer, pair), figures in by_key.items():
            if (case, peer) != (target.case, target.peer) or target.figure not in figures:
                continue
            value = figures[target.figure]
            if target.reference is not None:
                other = by_key.get((target.reference_case or case, target.reference, pair), {}).get(target.figure)
                if not other:
                    continue
                value /= other
            values.append(value)
        verdicts.append(Verdict(target, median(values) if values else None))
    return verdicts


def render_verdicts(verdicts: Sequence[Verdict]) -> str:
    """The targets, a line each."""
    rows = [["target", "", "figure", ""]]
    for verdict in verdicts:
        target = verdict.target
        bound = f"{'>=' if target.at_least else '<='} {target.bound:g}"
        figure = "not measured" if verdict.figure is None else f"{verdict.figure:.4g}"
        met = {None: "", True: "met", False: "NOT MET"}[verdict.met]
        rows.append([target.text, bound, figure, met])
    return table(rows)


def write(benchmark: Benchmark, settings: Settings, runs: Sequence[Run], skipped: Mapping[str, str]) -> None:
    """Write the JSON and the plot, print the tables."""
    lines = summarise(benchmark, benchmark.cases(settings), runs)
    verdicts = [verdict for verdict in judge(benchmark.targets, runs) if verdict.figure is not None]
    document = {
        "benchmark": benchmark.name,
        "command": sys.argv,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "settings": {
            name: str(value) if isinstance(value, Path) else value for name, value in attrs.asdict(settings).items()
        },
        "machine": {**machine(), **peer_versions()},
        "skipped": skipped,
        "summary": [attrs.asdict(line) for line in lines],
        "targets": [attrs.asdict(verdict) | {"met": verdict.met} for verdict in verdicts],
        "runs": [attrs.asdict(run) for run in runs],
    }
    if settings.json is not None:
        settings.json.parent.mkdir(parents=True, exist_ok=True)
        settings.json.write_text(json.dumps(document, indent=1) + "\n")
    print(f"{benchmark.name}: medians of {max((run.pair for run in runs), default=-1) + 1} interleaved pairs")
    if runs:
        print(render(benchmark, lines))
    if verdicts:
        print("\n" + render_verdicts(verdicts))
    print("\n" + textwrap.fill(benchmark.notes, 118))
    for what, reason in skipped.items():
        print(f"not measured: {what}: {reason}")
    about = {**machine(), **peer_versions()}
    print(textwrap.fill(", ".join(f"{name} {value}" for name, value in about.items()), 118))
    if settings.plot is not None and runs:
        from benchmarks.plots import plot_runs  # matplotlib takes its time to import, and may be absent

        print(plot_runs(benchmark, runs, settings.plot))


def command(benchmark: Benchmark, arguments: Sequence[str] | None = None) -> int:
    """Run a benchmark as a command. Ctrl-C reports what there is."""
    settings = parse(benchmark, arguments)
    use_source_tree()
    signal.signal(signal.SIGTERM, _terminate)  # the processes are ended on the way out
    runs: list[Run] = []
    skipped: dict[str, str] = {}
    status = 0
    try:
        measure_all(benchmark, settings, runs, skipped)
    except ProcessFailed as exc:
        skipped["the rest"] = str(exc)
        status = 1
    except KeyboardInterrupt:
        status = 130  # what was measured so far is worth seeing
    write(benchmark, settings, runs, skipped)
    return status


def use_source_tree() -> None:
    """Let child processes import this package, wherever they are started."""
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(143)


def parse(benchmark: Benchmark, arguments: Sequence[str] | None) -> Settings:
    """The command line; with no arguments, the defaults."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{benchmark.name}", description=benchmark.description)
    peers = ",".join(benchmark.all_peers)
    parser.add_argument("--pairs", type=positive, default=7, metavar="N", help="repetitions, interleaved (7)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=float, default=1.0, metavar="S", help="of each measurement (1)")
    length.add_argument("--events", type=positive, metavar="N", help="or calls, of each measurement, instead of a time")
    parser.add_argument(
        "--peers", type=_names(benchmark.all_peers), default=tuple(benchmark.all_peers), help=f"({peers})"
    )
    parser.add_argument("--encoding", choices=ENCODINGS, default="json", help="of trivet's clients (json)")
    parser.add_argument("--payload", type=positive, default=128, metavar="BYTES", help="of a message (128)")
    parser.add_argument("--pin", action="store_true", help="the server on one core, the load on another")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="S", help="of each measurement (60)")
    parser.add_argument("--full", action="store_true", help="the whole matrix, however long it takes")
    parser.add_argument(
        "--budget",
        type=float,
        default=600.0,
        metavar="S",
        help="begin no pair that would end later (600; --full: none)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw it there, as PNG (needs matplotlib)")
    parser.set_defaults(subscribers=None, in_flight=None)
    if benchmark.fans_out:
        parser.add_argument("--subscribers", type=positive, metavar="N", help="that many and no others")
        parser.add_argument("--in-flight", type=positives, metavar="N,...", help="with --subscribers (1,8,64)")
    parsed = parser.parse_args(arguments)
    if parsed.payload < benchmark.smallest_payload:
        parser.error(f"--payload is at least {benchmark.smallest_payload}")
    if parsed.payload > _LARGEST_PAYLOAD:
        parser.error(f"--payload is at most {_LARGEST_PAYLOAD}: servers limit what clients send")
    if parsed.full:
        parsed.budget = float("inf")
    return Settings(**vars(parsed))


def positive(text: str) -> int:
    """A number of one or more, on a command line."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def positives(text: str) -> tuple[int, ...]:
    """Several of them, with commas between."""
    return tuple(map(positive, text.split(",")))


def _names(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    def read(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return names

    return read
