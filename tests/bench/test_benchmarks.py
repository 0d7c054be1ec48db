"""The benchmarks run, count what was delivered, and judge. Their speed is no matter here."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

if not sys.platform.startswith("linux"):
    pytest.skip("the benchmarks need Linux: epoll, CPU clocks of other processes", allow_module_level=True)

from benchmarks import actions, actors, contention, fanout
from benchmarks.harness import (
    Benchmark,
    Case,
    Column,
    Run,
    Settings,
    Target,
    command,
    judge,
    render,
    summarise,
)
from benchmarks.peers import SMALLEST_EVENT
from trivet.bench.runs import Measured

_ROOT = Path(__file__).parent.parent.parent
_FLOORS = ["floor-python", *(["floor-c"] if shutil.which("cc") else [])]


def _run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    started = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    return subprocess.run(started, cwd=_ROOT, capture_output=True, text=True, timeout=150, check=False)


def _document(name: str, path: Path, *arguments: str) -> Any:
    done = _run(name, "--pairs", "1", "--json", str(path), *arguments)
    assert done.returncode == 0, done.stderr + done.stdout
    document = json.loads(path.read_text())
    assert document["benchmark"] == name
    assert document["machine"]["trio"]
    assert document["skipped"] == {}
    return document


def test_a_tiny_fan_out_counts_every_delivery(tmp_path: Path) -> None:
    peers = ["trivet", *sorted(_FLOORS)]
    document = _document(
        "fanout", tmp_path / "out.json", "--subscribers", "20", "--in-flight", "1,4", "--events", "8",
        "--peers", ",".join(peers),
    )  # fmt: skip
    assert len(document["runs"]) == 2 * len(peers)
    for run in document["runs"]:
        figures = run["figures"]
        assert (figures["events"], figures["deliveries"]) == (8, 8 * 20)
        assert 0 < figures["p50_us"] <= figures["p99_us"] <= figures["p999_us"]
        assert figures["cpu_us"] > 0
        assert sum(count for _, count in run["histograms"]["latency"]) == 8 * 20
        assert sum(count for _, count in run["histograms"]["last subscriber"]) == 8
    ratios = {(line["peer"], line["reference"]) for line in document["summary"] if line["reference"]}
    assert ratios == {("trivet", floor) for floor in _FLOORS}


@pytest.mark.parametrize("encoding", ["bare"])
def test_a_tiny_fan_out_in_a_binary_encoding(tmp_path: Path, encoding: str) -> None:
    document = _document(
        "fanout", tmp_path / "out.json", "--subscribers", "20", "--in-flight", "2", "--events", "8",
        "--encoding", encoding, "--peers", "trivet",
    )  # fmt: skip
    assert [run["figures"]["deliveries"] for run in document["runs"]] == [160]


def test_tiny_actions_are_all_answered(tmp_path: Path) -> None:
    peers = ["trivet", "trio-websocket", "trivet-http", "echo-python-http"]
    document = _document("actions", tmp_path / "out.json", "--events", "70", "--peers", ",".join(peers))
    assert {run["peer"] for run in document["runs"]} == set(peers)
    for run in document["runs"]:
        assert sum(count for _, count in run["histograms"]["latency"]) >= 64
        assert run["figures"]["cpu_us"] > 0
    judged = {verdict["target"]["reference"]: verdict["met"] for verdict in document["targets"]}
    assert judged["trio-websocket"] in (True, False)
    assert "echo-c" not in judged


def test_tiny_contention_has_latencies_with_and_without_the_load(tmp_path: Path) -> None:
    document = _document(
        "contention", tmp_path / "out.json", "--subscribers", "20", "--events", "40", "--peers", "trivet"
    )
    busy, slow = document["runs"]
    assert all(sum(count for _, count in busy["histograms"][name]) == 40 for name in ("idle", "busy"))
    assert busy["figures"]["deliveries_per_second"] > 0
    assert slow["figures"]["ended"] in (0, 1)


def test_actors_and_bare_tasks_are_counted() -> None:
    for kind in ("trivet", "bare"):
        started = [sys.executable, "-m", "benchmarks.many_actors", kind, "200"]
        done = subprocess.run(started, cwd=_ROOT, capture_output=True, text=True, timeout=100, check=True)
        assert json.loads(done.stdout)["live"] == 200


def test_each_cold_start_has_a_warm_call(tmp_path: Path) -> None:
    settings = Settings(
        pairs=1, seconds=0.05, events=None, subscribers=None, in_flight=None, peers=("trivet",), encoding="json",
        payload=64, pin=False, timeout=60, full=False, budget=60, json=None, plot=None,
    )  # fmt: skip
    cold = next(case for case in actors.BENCHMARK.cases(settings) if case.values["kind"] == "cold")
    measured = actors.BENCHMARK.measure(settings, cold, "trivet")
    assert measured.histograms["first call"].count == measured.histograms["second call"].count >= 1
    assert measured.figures["cold_to_warm"] > 0


@pytest.mark.parametrize("benchmark_", [fanout.BENCHMARK, actions.BENCHMARK, actors.BENCHMARK, contention.BENCHMARK])
def test_help_names_every_option(benchmark_: Benchmark, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        command(benchmark_, ["--help"])
    shown = capsys.readouterr().out
    options = ["--pairs", "--seconds", "--peers", "--full", "--json", "--plot", "--pin"]
    assert [option for option in options if option not in shown] == []


@pytest.mark.parametrize("benchmark_", [fanout.BENCHMARK, actions.BENCHMARK, actors.BENCHMARK, contention.BENCHMARK])
def test_every_target_is_of_a_case_and_a_peer_that_are_measured(benchmark_: Benchmark) -> None:
    settings = Settings(
        pairs=1, seconds=1, events=None, subscribers=None, in_flight=None, peers=(), encoding="json", payload=128,
        pin=False, timeout=60, full=False, budget=60, json=None, plot=None,
    )  # fmt: skip
    cases = {case.name: case for case in benchmark_.cases(settings)}
    for target in benchmark_.targets:
        assert target.peer in benchmark_.peers(cases[target.case])
        reference_case = cases[target.reference_case or target.case]
        assert target.reference is None or target.reference in benchmark_.peers(reference_case)


def test_an_impossible_payload_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command(fanout.BENCHMARK, ["--payload", str(SMALLEST_EVENT - 1)])
    assert f"at least {SMALLEST_EVENT}" in capsys.readouterr().err


def _never(_settings: Settings, _case: Case, _peer: str) -> Measured:
    raise AssertionError


_BENCHMARK = Benchmark(
    name="example",
    description="",
    cases=lambda _settings: [Case("only")],
    peers=lambda _case: ("trivet", "floor"),
    all_peers=("trivet", "floor"),
    subject=lambda _case: "trivet",
    columns=(Column("cpu", "CPU"),),
    measure=_never,
    notes="",
)
_RUNS = [
    Run(pair, "only", peer, {"cpu": cpu})
    for pair, cpus in enumerate([(2.0, 1.0), (30.0, 10.0), (8.0, 2.0)])
    for peer, cpu in zip(("trivet", "floor"), cpus, strict=True)
]


def test_ratios_are_taken_within_a_pair() -> None:
    lines = summarise(_BENCHMARK, [Case("only")], _RUNS)
    assert [(line.peer, line.reference, line.figures) for line in lines] == [
        ("trivet", None, {"cpu": 8.0}),
        ("floor", None, {"cpu": 2.0}),
        ("trivet", "floor", {"cpu": pytest.approx(3)}),
    ]
    assert "x 3.00" in render(_BENCHMARK, lines)


def test_targets_are_judged_by_the_median() -> None:
    targets = [
        Target("below", "only", "cpu", 3.5, "floor"),
        Target("above", "only", "cpu", 2.5, "floor"),
        Target("absolute", "only", "cpu", 8, at_least=True),
        Target("elsewhere", "another", "cpu", 1),
    ]
    assert [verdict.met for verdict in judge(targets, _RUNS)] == [True, False, True, None]


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # tests that run in the background inherit that it is ignored


def test_an_interrupted_run_reports_what_it_has_and_leaves_no_process() -> None:
    arguments = ["--subscribers", "20", "--events", "8", "--pairs", "1000", "--peers", "trivet,floor-python"]
    started = [sys.executable, "-m", "benchmarks.fanout", *arguments]
    with subprocess.Popen(
        started, cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_heed_interrupts
    ) as process:
        assert process.stderr is not None
        while not process.stderr.readline().startswith("3/"):
            pass
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "trivet / floor-python" in output
    # On a busy machine the last of them may take a moment to be reaped by whoever inherited it.
    deadline = time.monotonic() + 10
    while remaining := [child for child in children if Path(f"/proc/{child}").exists()]:
        assert time.monotonic() < deadline, f"still there: {remaining}"
        time.sleep(0.05)
