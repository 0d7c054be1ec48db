"""`trivet bench`: a user's own actor, measured with the loads of the project's own benchmarks."""

import argparse
import json
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, cast

import attrs

from trivet.bench.actor import ActorClient
from trivet.bench.client import ClientSpec
from trivet.bench.figures import median, number, table
from trivet.bench.processes import ProcessFailed, machine, python, raise_descriptor_limit
from trivet.bench.runs import (
    Length,
    Measured,
    calls_figures,
    fanout_figures,
    measure_calls,
    measure_fanout,
    with_server,
)
from trivet.bench.sockets import Violation
from trivet.definition import ActorDefinition
from trivet.registry import Registry

_SPARE_CONNECTIONS: Final = 100
_FLOOR: Final = "floor"

# Name of the figure, heading, whether it is a share of a core.
_COLUMNS: Final = (
    ("deliveries_per_second", "deliveries/s", False),
    ("calls_per_second", "calls/s", False),
    ("cpu_us", "CPU us each", False),
    ("p50_us", "p50 us", False),
    ("p99_us", "p99 us", False),
    ("p999_us", "p99.9 us", False),
    ("last_p50_us", "last p50 us", False),
    ("last_p99_us", "last p99 us", False),
    ("connection_kib", "KiB/conn.", False),
    ("server_share", "server core", True),
    ("load_share", "load core", True),
)


_FANOUT_NOTES: Final = (
    "Every event reached every subscriber once, and all in one order. The floor does one send() of as many bytes for"
    " each delivery, in Python and without actors. CPU is the server's, user and system, for each delivery; latency is"
    " from the controller's send to the receipt, of every delivery and of each event's last subscriber."
)
_CALLS_NOTES: Final = (
    "Every call was answered. The floor sends as many bytes back as it gets, in Python and without actors. CPU is the"
    " server's, user and system, for each call; latency is from the send of a request to the receipt of its answer."
)


class BenchFailed(Exception):
    """What the user has to change. The message says what."""


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments after module:registry."""
    parser.add_argument("action", metavar="Actor.action", help="what is called, as in ChatRoom.send_message")
    parser.add_argument("--args", default="[]", metavar="JSON", help="its arguments, as a JSON array ([])")
    parser.add_argument(
        "--event",
        metavar="NAME",
        help="the event with which the action reaches all subscribers; without, calls are timed",
    )
    parser.add_argument("--subscribers", type=_positive, default=1000, metavar="N", help="to that event (1000)")
    parser.add_argument("--in-flight", type=_positives, default=(1, 8, 64), metavar="N,...", help="calls (1,8,64)")
    parser.add_argument("--key", default="benchmark", help="of the actor (benchmark)")
    parser.add_argument("--params", default="", metavar="JSON", help="connection parameters")
    parser.add_argument("--encoding", choices=("json", "cbor", "bare"), default="json", help="of the clients (json)")
    parser.add_argument(
        "--repeat", type=_positive, default=3, metavar="N", help="times, interleaved with the floor (3)"
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=float, default=1.0, metavar="S", help="of each measurement (1)")
    length.add_argument("--count", type=_positive, metavar="N", help="events or calls, instead of a time")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="S", help="of each measurement (60)")
    parser.add_argument("--pin", action="store_true", help="the server on one core, the load on another")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number there")


@attrs.frozen
class _Job:
    """What the command line says."""

    target: str
    client: dict[str, str | int]
    event: str | None
    subscribers: int
    length: Length

    @property
    def server(self) -> tuple[str, ...]:
        return python("trivet.bench.server", self.target, str(self.subscribers + _SPARE_CONNECTIONS))


@attrs.frozen
class _Result:
    repetition: int
    in_flight: int
    peer: str
    measured: Measured

    def to_json(self) -> dict[str, object]:
        histograms = {name: histogram.to_json() for name, histogram in self.measured.histograms.items()}
        return {
            "repetition": self.repetition,
            "in_flight": self.in_flight,
            "peer": self.peer,
            "figures": self.measured.figures,
            "histograms": histograms,
        }


def run(registry: Registry, arguments: argparse.Namespace) -> int:
    """Measure and print. Raises BenchFailed."""
    if not sys.platform.startswith("linux"):
        raise BenchFailed("bench needs Linux: it reads the CPU clocks of other processes, and polls with epoll")
    length = Length(arguments.seconds, arguments.count, arguments.timeout, arguments.pin)
    client, event = _names(registry, arguments)
    job = _Job(arguments.target, client, event, arguments.subscribers if event else 0, length)
    results: list[_Result] = []
    try:
        raise_descriptor_limit(job.subscribers + _SPARE_CONNECTIONS)
        size = _probe(job)
        total, done = arguments.repeat * len(arguments.in_flight) * 2, 0
        for repetition in range(arguments.repeat):
            for in_flight in arguments.in_flight:
                peers = (_FLOOR, arguments.action) if repetition % 2 else (arguments.action, _FLOOR)
                for peer in peers:
                    done += 1
                    _progress(f"{done}/{total}: {in_flight} in flight, {peer}")
                    measured = _measure(job, in_flight, size, floor=peer == _FLOOR)
                    results.append(_Result(repetition, in_flight, peer, measured))
    except ProcessFailed as error:
        raise BenchFailed(str(error)) from error
    finally:
        _progress("")
    _report(arguments, results)
    return 0


def _names(registry: Registry, arguments: argparse.Namespace) -> tuple[dict[str, str | int], str | None]:
    """The client's arguments, and the event, under their names on the wire. Raises BenchFailed."""
    shown, _, attribute = cast("str", arguments.action).partition(".")
    definition = next((d for d in registry.values() if shown in (d.name, d.cls.__name__)), None)
    if definition is None:
        known = ", ".join(d.cls.__name__ for d in registry.values())
        raise BenchFailed(f"the registry has no actor {shown!r}; it has {known}")
    actions = {
        **{a.attribute: a.name for a in definition.actions.values()},
        **{name: name for name in definition.actions},
    }
    if attribute not in actions:
        raise BenchFailed(f"{shown} has no action {attribute!r}; it has {', '.join(sorted(actions)) or 'none'}")
    event = _event_name(definition, arguments.event)
    if not isinstance(_json("--args", arguments.args), list):
        raise BenchFailed(f"--args is no JSON array: {arguments.args}")
    if arguments.params:
        _json("--params", arguments.params)
    client: dict[str, str | int] = {
        "name": definition.name,
        "key": json.dumps([arguments.key]),
        "action": actions[attribute],
        "args": arguments.args,
        "params": arguments.params,
        "encoding": arguments.encoding,
    }
    return client | ({"event": event} if event else {}), event


def _json(option: str, text: str) -> object:
    try:
        return cast("object", json.loads(text))
    except ValueError as error:
        raise BenchFailed(f"{option} is no JSON: {error}") from error


def _event_name(definition: ActorDefinition, shown: str | None) -> str | None:
    """An event that is not declared may be emitted too: its name is taken as it is."""
    return next((e.name for e in definition.events.values() if e.attribute == shown), shown)


def _probe(job: _Job) -> int:
    """Call once, and return the size of an event's frame, or of a request. Raises BenchFailed."""
    client = ActorClient(**job.client)  # type: ignore[arg-type]  # text and numbers, as its arguments are
    try:
        sizes = with_server(job.server, job.length, lambda server, _: client.probe(server.port, job.length.timeout))
    except (Violation, OSError) as error:
        raise BenchFailed(str(error)) from error
    if job.event is None:
        return len(client.request(0))
    if not sizes:
        raise BenchFailed(f"{job.client['action']} emitted no event {job.event!r} to a subscriber before it returned")
    job.client.update(events_per_call=len(sizes), event_bytes=sizes[0])
    return sizes[0]


def _measure(job: _Job, in_flight: int, size: int, *, floor: bool) -> Measured:
    """Raises ProcessFailed."""
    if job.event is None:
        if floor:
            client = ClientSpec("trivet.bench.floor:FloorCalls", {"size": size})
            return calls_figures(measure_calls(python("trivet.bench.floor_server"), client, job.length, 1, in_flight))
        client = ClientSpec("trivet.bench.actor:ActorClient", job.client)
        return calls_figures(measure_calls(job.server, client, job.length, 1, in_flight))
    if floor:
        client = ClientSpec("trivet.bench.floor:FloorFanout", {"size": size})
        command = python("trivet.bench.floor_server", str(size))
        return fanout_figures(measure_fanout(command, client, job.length, job.subscribers, in_flight))
    client = ClientSpec("trivet.bench.actor:ActorClient", job.client)
    return fanout_figures(measure_fanout(job.server, client, job.length, job.subscribers, in_flight))


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _report(arguments: argparse.Namespace, results: Sequence[_Result]) -> None:
    if arguments.json is not None:
        document = {
            "benchmark": "trivet bench",
            "command": sys.argv,
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": machine(),
            "runs": [result.to_json() for result in results],
        }
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    if arguments.event:
        print(f"{arguments.event} to {arguments.subscribers:,} subscribers")
    print(f"medians of {arguments.repeat} runs, interleaved with those of the floor\n")
    print(_render(arguments.action, results))
    print("\n" + textwrap.fill(_FANOUT_NOTES if arguments.event else _CALLS_NOTES, 118))
    print(", ".join(f"{name} {value}" for name, value in machine().items()))


def _render(action: str, results: Sequence[_Result]) -> str:
    figures = {(r.repetition, r.in_flight, r.peer): r.measured.figures for r in results}
    columns = [column for column in _COLUMNS if column[0] in results[0].measured.figures]
    rows = [["in flight", "", *(heading for _, heading, _ in columns)]]
    for in_flight in dict.fromkeys(result.in_flight for result in results):
        for peer in (action, _FLOOR):
            own = [f for (_, n, p), f in figures.items() if (n, p) == (in_flight, peer)]
            medians = [(median([f[name] for f in own]), share) for name, _, share in columns]
            cells = [f"{value:.0%}" if share else number(value) for value, share in medians]
            rows.append([str(in_flight), peer, *cells])
        pairs = [
            (figures[repetition, n, action], floor)
            for (repetition, n, peer), floor in figures.items()
            if (n, peer) == (in_flight, _FLOOR)
        ]
        cells = [
            ""
            if share or name == "connection_kib"
            else f"x {median([ours[name] / floor[name] for ours, floor in pairs]):.2f}"
            for name, _, share in columns
        ]
        rows.append([str(in_flight), f"{action} / {_FLOOR}", *cells])
    return table(rows)


def _positive(text: str) -> int:
    if text.isdecimal() and int(text):
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 up")


def _positives(text: str) -> tuple[int, ...]:
    return tuple(_positive(item) for item in text.split(","))
