"""One measurement: a fresh server, a fresh load, and what came of it."""

import json
from collections.abc import Callable, Sequence
from typing import TypeVar

import attrs

from trivet.bench.calls_load import CallsLoad, CallsMeasurement
from trivet.bench.client import ClientSpec
from trivet.bench.fanout_load import FanoutLoad, FanoutMeasurement
from trivet.bench.figures import Histogram
from trivet.bench.processes import Announced, python, read_announcement, read_line, running, two_cores

T = TypeVar("T")


@attrs.frozen
class Measured:
    """Figures by name, and the distributions that some were read from."""

    figures: dict[str, float]
    histograms: dict[str, Histogram] = attrs.field(factory=dict[str, Histogram])


@attrs.frozen
class Length:
    """How long a measurement is: `seconds`, or exactly so many `events` or calls; `pin` gives each side a core."""

    seconds: float
    events: int | None = None
    timeout: float = 60.0
    pin: bool = False

    @property
    def patience(self) -> float:
        """The load gives up by itself; this is for one that hangs."""
        return self.timeout * 2 + 10


def with_server(command: Sequence[str], length: Length, measure: Callable[[Announced, int | None], T]) -> T:
    """Start a server, and measure with its port and the load's core. Raises ProcessFailed."""
    server_core, load_core = two_cores() if length.pin else (None, None)
    with running(command, server_core) as server:
        return measure(read_announcement(server, length.timeout), load_core)


def measure_fanout(
    command: Sequence[str], client: ClientSpec, length: Length, subscribers: int, in_flight: int, slow: int = 0
) -> FanoutMeasurement:
    """Raises ProcessFailed."""

    def measure(server: Announced, core: int | None) -> FanoutMeasurement:
        load = FanoutLoad(
            client=client,
            port=server.port,
            pids=server.pids,
            subscribers=subscribers,
            in_flight=in_flight,
            seconds=length.seconds,
            events=length.events,
            timeout=length.timeout,
            slow=slow,
        )
        with running(python("trivet.bench.fanout_load", json.dumps(attrs.asdict(load))), core) as loading:
            read_line(loading, length.patience)
            return FanoutMeasurement(**json.loads(read_line(loading, length.patience)))

    return with_server(command, length, measure)


def measure_calls(
    command: Sequence[str], client: ClientSpec, length: Length, connections: int, in_flight: int
) -> CallsMeasurement:
    """Raises ProcessFailed."""

    def measure(server: Announced, core: int | None) -> CallsMeasurement:
        load = CallsLoad(
            client=client,
            port=server.port,
            pids=server.pids,
            connections=connections,
            in_flight=in_flight,
            seconds=length.seconds,
            calls=length.events,
            rate=None,
            timeout=length.timeout,
        )
        with running(python("trivet.bench.calls_load", json.dumps(attrs.asdict(load))), core) as loading:
            return CallsMeasurement(**json.loads(read_line(loading, length.patience)))

    return with_server(command, length, measure)


def fanout_figures(measured: FanoutMeasurement) -> Measured:
    """What is compared."""
    latency, last = Histogram.from_json(measured.latency), Histogram.from_json(measured.last)
    return Measured(
        {
            "deliveries_per_second": measured.deliveries / measured.wall,
            "cpu_us": measured.server_cpu / measured.deliveries * 1e6,
            "p50_us": latency.percentile(50) / 1e3,
            "p99_us": latency.percentile(99) / 1e3,
            "p999_us": latency.percentile(99.9) / 1e3,
            "last_p50_us": last.percentile(50) / 1e3,
            "last_p99_us": last.percentile(99) / 1e3,
            "connection_kib": measured.connection_bytes / 1024,
            "events_per_read": measured.deliveries / measured.reads,
            "server_share": measured.server_cpu / measured.wall,
            "load_share": measured.load_cpu / measured.wall,
            "events": measured.events,
            "deliveries": measured.deliveries,
        },
        {"latency": latency, "last subscriber": last},
    )


def calls_figures(measured: CallsMeasurement) -> Measured:
    """What is compared."""
    latency = measured.histogram
    return Measured(
        {
            "calls_per_second": measured.calls / measured.wall,
            "cpu_us": measured.server_cpu / measured.calls * 1e6,
            "p50_us": latency.percentile(50) / 1e3,
            "p99_us": latency.percentile(99) / 1e3,
            "p999_us": latency.percentile(99.9) / 1e3,
            "server_share": measured.server_cpu / measured.wall,
            "load_share": measured.load_cpu / measured.wall,
            "calls": measured.calls,
        },
        {"latency": latency},
    )
