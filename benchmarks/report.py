"""What has become more expensive, on any machine and beside any load: calls of functions counted, not time.

    python -m benchmarks.report [--ratios] [--update]

A server counts the calls of functions, Python's and C's, that each kind of work takes, which hardly varies; beside the
counts that were kept it says what grew. With --ratios, CPU is measured beside the floor's, which counts cannot tell.
It is a report: its status says whether it could be made, and not what it found.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for `python benchmarks/report.py`

from benchmarks.fanout import make_peer
from benchmarks.harness import use_source_tree
from benchmarks.peers import Event
from benchmarks.peers.echoes import TrivetCalls, TrivetHttp, post, room
from benchmarks.peers.trivet_actor import TrivetActor
from trivet.bench.client import ClientSpec, Reader
from trivet.bench.figures import median, number, table
from trivet.bench.processes import ProcessFailed, python, read_announcement, running
from trivet.bench.runs import Length, fanout_figures, measure_fanout
from trivet.bench.sockets import FrameReader, HttpReader, Violation, client_frame, connect
from trivet.protocol import messages
from trivet.protocol.codec import codec_for
from trivet.protocol.gateway import by_key_path

_KEPT: Final = Path(__file__).parent / "counts.json"
_MARGIN: Final = 1.10
_RATIO_MARGIN: Final = 1.5
_TIMEOUT: Final = 20.0
_SUBSCRIBERS: Final = 100
_PAIRS: Final = 3


def _ask(reader: Reader, request: bytes) -> bytes:
    """The answer to one request."""
    reader.sock.sendall(request)
    return _next(reader)


def _next(reader: Reader) -> bytes:
    answers: list[bytes] = []
    while not answers:
        data = reader.sock.recv(65536)
        if not data:
            raise Violation("the server ended a connection")
        answers = reader.feed(data)
    return answers[0]


class _Counts:
    """A server that counts, and how much each piece of work adds."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._json = codec_for("json")
        self._controller = TrivetCalls(16, "json").connect(port, _TIMEOUT, 0)
        self._own = 0.0
        self._own = self._added(1, lambda _: None)

    def _count(self) -> int:
        assert self._json is not None
        request = self._json.encode_to_server(messages.ActionRequest(1, "counted", []))
        answer = self._json.decode_to_client(_ask(self._controller, client_frame(0x81, request)))
        assert isinstance(answer, messages.ActionResponse)
        assert isinstance(answer.output, int)
        return answer.output

    def _added(self, times: int, work: Callable[[int], object]) -> float:
        """Calls of functions for each of so many pieces of work, without those of asking for the count."""
        before = self._count()
        for index in range(times):
            work(index)
        return (self._count() - before - self._own) / times

    def all(self) -> dict[str, float]:
        """By what the work is."""
        return {
            "action over a connection": self._action(),
            "action over HTTP": self._http_action(),
            "first call of a new actor over HTTP": self._new_actor(),
            "connection, subscribed": self._connections(),
            f"delivery, one event to {_SUBSCRIBERS}": self._deliveries(),
        }

    def _action(self) -> float:
        client = TrivetCalls(128, "json")
        reader = client.connect(self._port, _TIMEOUT, 1)
        return self._added(200, lambda number: client.answered(_ask(reader, client.request(number))))

    def _http_action(self) -> float:
        client = TrivetHttp(128, "json")
        reader = client.connect(self._port, _TIMEOUT, 0)
        client.answered(_ask(reader, client.request(0)))
        return self._added(100, lambda number: client.answered(_ask(reader, client.request(number))))

    def _new_actor(self) -> float:
        assert self._json is not None
        codec = self._json
        reader = HttpReader(connect(self._port, _TIMEOUT))

        def work(number: int) -> None:
            path = by_key_path(room(f"new-{number}"), "/action/echo")
            if not _ask(reader, post(path, codec, ["hello"])).startswith(b"HTTP/1.1 200 "):
                raise Violation("a call failed")

        return self._added(50, work)

    def _connections(self) -> float:
        client = TrivetActor(Event(128, "json"))
        self._subscribers: list[FrameReader] = []

        def work(_number: int) -> None:
            reader = FrameReader(connect(self._port, _TIMEOUT))
            reader.sock.sendall(client.opening("subscriber"))
            reader.read_head()
            reader.sock.sendall(client.greeting("subscriber"))
            reader.read(client.welcomes("subscriber"))
            self._subscribers.append(reader)

        return self._added(_SUBSCRIBERS, work)

    def _deliveries(self) -> float:
        """After `_connections`."""
        client = TrivetActor(Event(128, "json"))
        controller = FrameReader(connect(self._port, _TIMEOUT))
        controller.sock.sendall(client.opening("controller"))
        controller.read_head()
        controller.read(1)

        def work(number: int) -> None:
            client.check_answer(number, _ask(controller, client.call(number)))
            for subscriber in self._subscribers:
                if not client.is_event(number, _next(subscriber)):
                    raise Violation(f"event {number} did not come")

        return self._added(20, work) / _SUBSCRIBERS


def count() -> dict[str, float]:
    """Calls of functions by what the work is. Raises ProcessFailed, Violation."""
    with running(python("benchmarks.counting_server")) as server:
        return _Counts(read_announcement(server).port).all()


def ratios() -> dict[str, float]:
    """CPU per delivery, to the Python floor's, medians of interleaved pairs. Raises ProcessFailed."""
    found: dict[str, float] = {}
    length = Length(seconds=0.25, timeout=_TIMEOUT)
    for in_flight in (1, 64):
        pairs: list[float] = []
        for pair in range(_PAIRS):
            cpu: dict[str, float] = {}
            for peer in ("trivet", "floor-python")[:: 1 if pair % 2 else -1]:
                cpu[peer] = _cpu(peer, length, in_flight)
            pairs.append(cpu["trivet"] / cpu["floor-python"])
        found[f"CPU per delivery / floor, {in_flight} in flight"] = median(pairs)
    return found


def _cpu(peer: str, length: Length, in_flight: int) -> float:
    client = ClientSpec("benchmarks.fanout:make_peer", {"name": peer, "size": 128, "encoding": "json"})
    with tempfile.TemporaryDirectory(prefix="trivet-report-") as directory:
        command = make_peer(peer, 128, "json").command(Path(directory))
        return fanout_figures(measure_fanout(command, client, length, 200, in_flight)).figures["cpu_us"]


def render(found: Mapping[str, float], kept: Mapping[str, float], margin: float) -> str:
    """A line for each figure, and what became of it."""
    rows = [["", "", "now", "kept", "change"]]
    for name, value in found.items():
        old = kept.get(name)
        if old is None:
            rows.append([name, "", number(value), "", "new"])
            continue
        change = value / old
        mark = "MORE" if change > margin else "less" if change < 1 / margin else ""
        rows.append([name, mark, number(value), number(old), f"{change - 1:+.0%}"])
    return table(rows)


def main() -> int:
    """Run as a command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--update", action="store_true", help=f"keep what was found, in {_KEPT.name}")
    parser.add_argument("--ratios", action="store_true", help="measure CPU per delivery too, beside the floor's")
    arguments = parser.parse_args()
    use_source_tree()
    # Another Python has other calls.
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    kept: dict[str, dict[str, dict[str, float]]] = json.loads(_KEPT.read_text()) if _KEPT.exists() else {}
    own = kept.get(version, {})
    try:
        found = {"calls": count(), "ratios": ratios() if arguments.ratios else {}}
    except (ProcessFailed, Violation, OSError) as error:
        print(f"no report: {error}", file=sys.stderr)
        return 1
    print(f"Calls of functions on Python {version} (more than {_MARGIN - 1:.0%} more is marked)")
    print(render(found["calls"], own.get("calls", {}), _MARGIN))
    if found["ratios"]:
        print(f"\nRatios, of {_PAIRS} pairs (more than {_RATIO_MARGIN - 1:.0%} more is marked)")
        print(render(found["ratios"], own.get("ratios", {}), _RATIO_MARGIN))
    if arguments.update:
        kept[version] = {"calls": found["calls"], "ratios": found["ratios"] or own.get("ratios", {})}
        rounded = {
            v: {k: {n: round(x, 2) for n, x in f.items()} for k, f in g.items()} for v, g in sorted(kept.items())
        }
        _KEPT.write_text(json.dumps(rounded, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
