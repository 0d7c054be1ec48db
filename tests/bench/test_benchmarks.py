"""The benchmarks run, and notice what they must notice. Their speed is no matter here."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if not sys.platform.startswith("linux"):
    pytest.skip("the benchmarks need Linux: epoll, CPU clocks of other processes", allow_module_level=True)

from benchmarks import fanout, fanout_load
from benchmarks.peers import SMALLEST_EVENT, Encoding, Event, Role, make_peer
from benchmarks.peers.trivet_actor import TrivetActor
from benchmarks.sockets import BINARY, FrameReader, Violation, client_frame, server_frame
from benchmarks.summary import median, percentile, table

_ROOT = Path(__file__).parent.parent


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.fanout", *arguments]
    return subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=100, check=False)


def _tiny_fanout(path: Path, *arguments: str) -> Any:
    done = _run("--subscribers", "20", "--pairs", "1", "--events", "8", "--json", str(path), *arguments)
    assert done.returncode == 0, done.stderr
    assert "trivet / floor-python" in done.stdout
    return json.loads(path.read_text())


def test_a_tiny_fan_out_counts_every_delivery(tmp_path: Path) -> None:
    document = _tiny_fanout(tmp_path / "out.json", "--in-flight", "1,4")
    peers = ["trivet", "floor-python", *(["floor-c"] if shutil.which("cc") else [])]
    assert [(run["in_flight"], run["peer"]) for run in document["runs"]] == [
        (n, peer) for n in (1, 4) for peer in peers
    ]
    for run in document["runs"]:
        measured = run["measured"]
        assert measured["events"] == 8
        assert measured["deliveries"] == 8 * 20
        assert 0 < measured["latency_p50"] <= measured["latency_p99"] <= measured["latency_last"]
        assert measured["server_cpu"] > 0
        assert measured["reads"] <= measured["deliveries"]
    assert {line["peer"] for line in document["summary"]} == set(peers)


@pytest.mark.parametrize("encoding", ["cbor", "bare"])
def test_a_tiny_fan_out_in_a_binary_encoding(tmp_path: Path, encoding: str) -> None:
    document = _tiny_fanout(
        tmp_path / "out.json", "--in-flight", "2", "--encoding", encoding, "--peers", "trivet,floor-python"
    )
    assert [run["measured"]["deliveries"] for run in document["runs"]] == [160, 160]


def test_help_names_every_option() -> None:
    done = _run("--help")
    assert done.returncode == 0
    for option in (
        "--subscribers",
        "--in-flight",
        "--payload",
        "--encoding",
        "--pairs",
        "--seconds",
        "--json",
        "--pin",
    ):
        assert option in done.stdout


def test_an_impossible_payload_is_refused() -> None:
    done = _run("--payload", str(SMALLEST_EVENT - 1))
    assert done.returncode == 2
    assert f"at least {SMALLEST_EVENT}" in done.stderr


@pytest.mark.parametrize("encoding", ["json", "cbor", "bare"])
def test_an_event_has_the_size_that_was_asked_for(encoding: Encoding) -> None:
    event = Event(128, encoding)
    assert len(json.dumps(event.value(7), separators=(",", ":"))) == 128
    assert make_peer("floor-python", event).event_frame(7) == TrivetActor(event).event_frame(7)


class _FakeServer:
    """Stands in for the sockets of a run: a controller, and one subscriber."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.peer = make_peer("floor-python", Event(64, "json"))
        self.controller, near_controller = socket.socketpair()
        self.subscriber, near_subscriber = socket.socketpair()
        readers: dict[Role, list[FrameReader]] = {
            "controller": [FrameReader(near_controller)],
            "subscriber": [FrameReader(near_subscriber)],
        }

        def connect(_fanout: fanout_load.Fanout, role: Role, _count: int) -> list[FrameReader]:
            return readers[role]

        monkeypatch.setattr(fanout_load.Fanout, "_connect", connect)
        self.fanout = fanout_load.Fanout(self.peer, 0, 1, timeout=0.2)
        self._near = [near_controller, near_subscriber]

    def send(self, *numbers: int) -> None:
        self.subscriber.sendall(b"".join(self.peer.event_frame(number) for number in numbers))

    def close(self) -> None:
        for sock in (self.controller, self.subscriber, *self._near):
            sock.close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[_FakeServer]:
    fake = _FakeServer(monkeypatch)
    yield fake
    fake.close()


def test_events_in_order_are_accepted(server: _FakeServer) -> None:
    server.send(0, 1, 2)
    server.fanout.run(3, 1.0, 3)
    server.fanout.finish()
    assert [(first, count) for _, first, count in server.fanout.records] == [(0, 3)]


def test_a_lost_event_is_noticed(server: _FakeServer) -> None:
    server.send(0, 2)
    with pytest.raises(Violation, match="should get event 1"):
        server.fanout.run(3, 1.0, 3)


def test_an_event_lost_at_the_end_is_noticed(server: _FakeServer) -> None:
    server.send(0, 1)
    with pytest.raises(Violation, match="subscriber 0 has 2"):
        server.fanout.run(3, 1.0, 3)


def test_reordered_events_are_noticed(server: _FakeServer) -> None:
    server.send(1, 0)
    with pytest.raises(Violation, match="should get event 0"):
        server.fanout.run(2, 1.0, 2)


def test_a_doubled_event_is_noticed(server: _FakeServer) -> None:
    server.send(0, 0)
    with pytest.raises(Violation, match="should get event 1"):
        server.fanout.run(2, 1.0, 2)


def test_an_event_doubled_after_the_last_is_noticed(server: _FakeServer) -> None:
    server.send(0)
    server.fanout.run(1, 1.0, 1)
    server.send(0)
    with pytest.raises(Violation, match="should get event 1"):
        server.fanout.finish()


def test_an_event_that_nobody_sent_is_noticed(server: _FakeServer) -> None:
    server.send(0)
    server.fanout.run(1, 1.0, 1)
    server.send(1)
    with pytest.raises(Violation, match="nobody had sent"):
        server.fanout.finish()


def test_frames_in_pieces_are_put_together() -> None:
    near, far = socket.socketpair()
    with near, far:
        reader = FrameReader(near)
        stream = b"".join(server_frame(BINARY, bytes([n]) * size) for n, size in enumerate((0, 125, 126, 70_000)))
        messages = [message for at in range(0, len(stream), 1000) for message in reader.feed(stream[at : at + 1000])]
        assert [len(message) for message in messages] == [0, 125, 126, 70_000]
        assert not reader.pending


def test_a_ping_is_answered() -> None:
    near, far = socket.socketpair()
    with near, far:
        assert FrameReader(near).feed(b"\x89\x02hi") == []
        assert far.recv(100) == client_frame(0x8A, b"hi")


def test_percentiles_are_nearest_ranks() -> None:
    values = [float(n) for n in range(1, 101)]
    assert (percentile(values, 50), percentile(values, 99), percentile(values, 100)) == (50, 99, 100)
    assert percentile([5.0], 99) == 5
    assert median([3, 1, 2]) == 2


def test_ratios_are_taken_within_a_pair() -> None:
    def run(pair: int, peer: str, cpu: float) -> fanout.Run:
        measured = fanout_load.Measurement(1, 10, 1.0, cpu, 0.5, 1.0, 2.0, 3.0, 100, 10, 0.1, 0.0)
        return fanout.Run(pair, peer, 1, measured)

    runs = [run(pair, peer, cpu) for pair, cpus in enumerate([(2, 1), (30, 10), (8, 2)])
            for peer, cpu in zip(("trivet", "floor-python"), cpus, strict=True)]  # fmt: skip
    ratios = next(line for line in fanout.summarise(runs) if "floor" in line)
    assert ratios["cpu_us_per_delivery"] == pytest.approx(3)
    assert "x 3.00" in fanout.render(fanout.summarise(runs))


def test_a_table_lines_up() -> None:
    assert table([["a", "b", "c"], ["1", "long", "2.5"]]).splitlines() == [
        "a  b       c",
        "-  ----  ---",
        "1  long  2.5",
    ]


def test_an_interrupted_run_reports_what_it_has_and_leaves_no_process() -> None:
    command = [sys.executable, "-m", "benchmarks.fanout", "--subscribers", "20", "--events", "8", "--pairs", "1000"]
    with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
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
