"""The load of calls: one process, blocking sockets or epoll, every answer checked once the clock has stopped.

It is started with the JSON of a `CallsLoad` as its argument, and prints that of a `CallsMeasurement`. Each connection
keeps `in_flight` requests under way; or, with a `rate`, requests are sent at fixed times whatever became of the ones
before, and a latency counts from the time at which its request was due.
"""

import gc
import json
import os
import select
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

import attrs

from trivet.bench.client import CallClient, ClientSpec, Reader, make_call_client
from trivet.bench.figures import Histogram
from trivet.bench.processes import cpu_seconds
from trivet.bench.sockets import Violation

_READ_SIZE = 64 * 1024
_WARM_UP_SECONDS = 0.3
_REQUESTS = 4096  # made before the clock starts, and then sent again and again


@attrs.frozen
class CallsLoad:
    """What to do: for `seconds`, or until `calls` are answered."""

    client: ClientSpec
    port: int
    pids: Sequence[int]
    connections: int
    in_flight: int
    seconds: float
    calls: int | None
    rate: float | None
    timeout: float


@attrs.frozen
class CallsMeasurement:
    """What came of it. Latencies are of each request, in nanoseconds, as a histogram; `*_cpu` are seconds."""

    calls: int
    wall: float
    server_cpu: float
    load_cpu: float
    request_bytes: int
    latency: Sequence[tuple[int, int]]

    @property
    def histogram(self) -> Histogram:
        """The latencies."""
        return Histogram.from_json(self.latency)


class _Connection:
    __slots__ = ("numbers", "reader", "sent_at")

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.numbers: deque[int] = deque()
        self.sent_at: deque[int] = deque()


class Calls:
    """The connections of one run, and what they heard."""

    def __init__(self, client: CallClient, port: int, connections: int, timeout: float) -> None:
        self._client = client
        self._deadline = time.monotonic() + timeout
        self._requests = [client.request(number) for number in range(_REQUESTS)]
        self._connections = [_Connection(client.connect(port, timeout, name)) for name in range(connections)]
        self._by_fd = {connection.reader.sock.fileno(): connection for connection in self._connections}
        self._epoll = select.epoll()
        for fd in self._by_fd:
            self._epoll.register(fd, select.EPOLLIN)
        self._next = 0
        self.latencies: list[int] = []
        self.answers: list[tuple[int, bytes]] = []

    @property
    def request_bytes(self) -> int:
        """Of one request, all of it."""
        return len(self._requests[0])

    def _send(self, connection: _Connection, count: int, due: int | None = None) -> None:
        first = self._next
        self._next += count
        requests = self._requests
        if count == 1:
            data = requests[first % _REQUESTS]
            connection.numbers.append(first)
        else:
            numbers = range(first, first + count)
            connection.numbers.extend(numbers)
            data = b"".join([requests[number % _REQUESTS] for number in numbers])
        connection.sent_at.extend([due or time.perf_counter_ns()] * count)
        connection.reader.sock.sendall(data)

    def _receive(self, connection: _Connection, data: bytes) -> int:
        now = time.perf_counter_ns()
        if not data:
            raise Violation("the server ended a connection")
        messages = connection.reader.feed(data)
        for message in messages:
            if not connection.numbers:
                raise Violation(f"an answer to nothing: {message[:200]!r}")
            self.answers.append((connection.numbers.popleft(), message))
            self.latencies.append(now - connection.sent_at.popleft())
        return len(messages)

    def run(self, in_flight: int, seconds: float, calls: int | None) -> None:
        """Each connection sends as many requests as it got answers, until time or calls are over. Raises Violation."""
        started, stop = self._next, time.perf_counter_ns() + int(seconds * 1e9)
        last = None if calls is None else started + calls
        for connection in self._connections:
            self._send(connection, in_flight)
        # Waiting in recv() is one system call for each answer, where epoll needs two.
        alone = self._connections[0] if len(self._connections) == 1 else None
        more = True
        while more or any(connection.numbers for connection in self._connections):
            if alone is not None:
                answered = [(alone, self._receive(alone, alone.reader.sock.recv(_READ_SIZE)))]
            else:
                answered = self._poll(self._deadline - time.monotonic())
            for connection, count in answered:
                if last is None:
                    more = time.perf_counter_ns() < stop
                else:
                    count, more = min(count, last - self._next), self._next < last
                if count and more:
                    self._send(connection, count)

    def _poll(self, timeout: float) -> list[tuple[_Connection, int]]:
        ready = self._epoll.poll(max(timeout, 0))
        if not ready and timeout <= 0:
            unanswered = sum(len(connection.numbers) for connection in self._connections)
            raise Violation(f"{unanswered} of {self._next} requests were not answered in time")
        connections = [self._by_fd[fd] for fd, _ in ready]
        return [
            (connection, self._receive(connection, os.read(connection.reader.sock.fileno(), _READ_SIZE)))
            for connection in connections
        ]

    def run_at(self, rate: float, seconds: float, calls: int | None) -> None:
        """Send one request after another at fixed times, each on the next connection; then see them through."""
        interval = int(1e9 / rate)
        count = int(rate * seconds) if calls is None else calls
        due, index = time.perf_counter_ns(), 0
        while index < count or any(connection.numbers for connection in self._connections):
            while index < count and time.perf_counter_ns() >= due:
                self._send(self._connections[index % len(self._connections)], 1, due)
                index, due = index + 1, due + interval
            if index < count:
                self._poll(max((due - time.perf_counter_ns()) / 1e9, 1e-6))
                if time.monotonic() > self._deadline:
                    raise Violation("requests were not answered in time")
            else:
                self._poll(self._deadline - time.monotonic())

    def check(self) -> None:
        """Look at every answer. Raises Violation."""
        seen = Counter[int]()
        for number, answer in self.answers:
            found = self._client.answered(answer)
            seen[number % _REQUESTS] += 1
            seen[number % _REQUESTS if found is None else found] -= 1
            if self._client.ordered and found is not None and found != number % _REQUESTS:
                raise Violation(f"request {number} was answered {answer[:300]!r}")
        if wrong := [number for number, count in seen.items() if count]:
            raise Violation(f"{len(wrong)} requests were not answered once, the first of them number {wrong[0]}")
        self.answers.clear()

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections:
            connection.reader.sock.close()
        self._epoll.close()


def measure(load: CallsLoad) -> CallsMeasurement:
    """Connect, warm up, measure, check. Raises Violation."""
    calls = Calls(make_call_client(load.client), load.port, load.connections, load.timeout)
    if load.calls is None:
        calls.run(load.in_flight, min(_WARM_UP_SECONDS, load.seconds), None)
        calls.latencies.clear()
    calls.check()
    gc.collect()
    gc.freeze()
    gc.disable()
    before = sum(map(cpu_seconds, load.pids))
    load_cpu, began = time.process_time(), time.perf_counter()
    if load.rate is None:
        calls.run(load.in_flight, load.seconds, load.calls)
    else:
        calls.run_at(load.rate, load.seconds, load.calls)
    wall, load_cpu = time.perf_counter() - began, time.process_time() - load_cpu
    server_cpu = sum(map(cpu_seconds, load.pids)) - before
    calls.check()
    calls.close()
    return CallsMeasurement(
        calls=len(calls.latencies),
        wall=wall,
        server_cpu=server_cpu,
        load_cpu=load_cpu,
        request_bytes=calls.request_bytes,
        latency=Histogram.of(calls.latencies).to_json(),
    )


def read_load(text: str) -> CallsLoad:
    """What `json.dumps(attrs.asdict(load))` wrote."""
    fields: dict[str, Any] = json.loads(text)  # JSON of our own
    fields["client"] = ClientSpec(**fields["client"])
    return CallsLoad(**fields)


def main() -> None:
    """Run as a process: see the module's docstring."""
    load = read_load(sys.argv[1])
    try:
        measurement = measure(load)
    except (Violation, OSError) as exc:
        sys.exit(f"{load.client.arguments}: {exc}")
    print(json.dumps(attrs.asdict(measurement)))


if __name__ == "__main__":
    main()
