"""The load of the fan-out benchmark: one process with all subscribers and the controller, without an event loop.

It is started with the JSON of a `Load` as its argument, and prints that of a `Measurement`. Everything is timed here,
with one clock. So that the load is not what is measured, a read costs it one system call, a comparison with the bytes
that must come next, and an append; all arithmetic is done afterwards.
"""

import gc
import json
import os
import select
import socket
import sys
import time

import attrs

from benchmarks.peers import Encoding, Event, Peer, Role, make_peer
from benchmarks.processes import cpu_seconds, resident_bytes
from benchmarks.sockets import FrameReader, Violation
from benchmarks.summary import median, percentile

_READ_SIZE = 64 * 1024
_CONNECT_AT_ONCE = 64
_WARM_UP_SECONDS = 0.3
_QUIET_SECONDS = 0.05


@attrs.frozen
class Load:
    """What to do. `seconds` of sending, or exactly so many `events`, with `in_flight` of them under way at a time."""

    peer: str
    port: int
    server_pid: int
    subscribers: int
    in_flight: int
    payload: int
    encoding: Encoding
    seconds: float
    events: int | None
    timeout: float


@attrs.frozen
class Measurement:
    """What came of it. `latency_*` are microseconds from the controller's send to the receipt by a subscriber.

    Of each event's subscribers the median, the 99th percentile and the last are taken; here are their medians over
    all events. `*_cpu` are seconds, of user and system together; `connection_bytes` is the growth of the server's
    resident memory for each connection.
    """

    events: int
    deliveries: int
    wall: float
    server_cpu: float
    load_cpu: float
    latency_p50: float
    latency_p99: float
    latency_last: float
    frame_bytes: int
    reads: int
    connect_seconds: float
    connection_bytes: float


class Subscriber:
    """One connection: which event must come next."""

    __slots__ = ("name", "next", "reader")

    def __init__(self, name: int, reader: FrameReader) -> None:
        self.name = name
        self.reader = reader
        self.next = 0


class Fanout:
    """The connections of one run, and what they saw.

    `records` has one entry for each read with whole events in it: when, the first event's number, how many.
    """

    def __init__(self, peer: Peer, port: int, subscribers: int, timeout: float) -> None:
        self._peer = peer
        self._port = port
        self._deadline = time.monotonic() + timeout
        self._timeout = timeout
        self._frame_size = len(peer.event_frame(0))
        self._expected: dict[tuple[int, int], bytes] = {}
        self.records: list[tuple[int, int, int]] = []
        self.sent_at: list[int] = []
        self._delivered = 0  # events that every subscriber has
        self._at = {0: subscribers}  # how many subscribers wait for which event
        self._answers: list[bytes] = []
        self._epoll = select.epoll()
        self._controller = self._connect("controller", 1)[0]
        self._subscribers = {
            reader.sock.fileno(): Subscriber(name, reader)
            for name, reader in enumerate(self._connect("subscriber", subscribers))
        }
        for fd in (*self._subscribers, self._controller.sock.fileno()):
            self._epoll.register(fd, select.EPOLLIN)

    def _connect(self, role: Role, count: int) -> list[FrameReader]:
        readers: list[FrameReader] = []
        while len(readers) < count:
            batch: list[FrameReader] = []
            for _ in range(min(_CONNECT_AT_ONCE, count - len(readers))):
                sock = socket.create_connection(("127.0.0.1", self._port), timeout=self._timeout)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.sendall(self._peer.opening(role))
                batch.append(FrameReader(sock))
            for reader in batch:
                reader.read_head()
                reader.sock.sendall(self._peer.greeting(role))
            for reader in batch:
                reader.read(self._peer.welcomes(role))
            readers += batch
        return readers

    def run(self, in_flight: int, seconds: float, events: int | None) -> None:
        """Send calls, always `in_flight` at a time, until the time is over or the events are sent; see them through.

        A call is sent when the event so many before it has reached every subscriber.
        """
        stop = time.perf_counter_ns() + int(seconds * 1e9)
        last = None if events is None else len(self.sent_at) + events
        while True:
            if last is not None:
                more = len(self.sent_at) < last
            else:
                more = time.perf_counter_ns() < stop
            if more:
                self._send(min(self._delivered + in_flight, last or sys.maxsize))
            elif self._delivered == len(self.sent_at):
                return
            self._receive(self._deadline - time.monotonic())

    def _send(self, until: int) -> None:
        first = len(self.sent_at)
        if first < until:
            calls = b"".join(map(self._peer.call, range(first, until)))
            self.sent_at += [time.perf_counter_ns()] * (until - first)
            self._controller.sock.sendall(calls)

    def _receive(self, timeout: float) -> None:
        ready = self._epoll.poll(max(timeout, 0))
        if not ready:
            self._report_loss()
        frame_size, subscribers = self._frame_size, self._subscribers
        for fd, _ in ready:
            subscriber = subscribers.get(fd)
            data = os.read(fd, _READ_SIZE)
            now = time.perf_counter_ns()
            if not data:
                raise Violation("the server ended a connection")
            if subscriber is None:
                self._answers += self._controller.feed(data)
                continue
            first = subscriber.next
            count, rest = divmod(len(data), frame_size)
            if rest or subscriber.reader.pending or data != self._frames(first, count):
                count = self._read_frames(subscriber, data)
                if not count:
                    continue
            if first + count > len(self.sent_at):
                raise Violation(f"subscriber {subscriber.name} got an event that nobody had sent")
            self.records.append((now, first, count))
            subscriber.next = first + count
            self._advance(first, first + count)

    def _frames(self, first: int, count: int) -> bytes:
        key = first, count
        frames = self._expected.get(key)
        if frames is None:
            if len(self._expected) > 1000:
                self._expected.clear()
            frames = b"".join(self._peer.event_frame(number) for number in range(first, first + count))
            self._expected[key] = frames
        return frames

    def _read_frames(self, subscriber: Subscriber, data: bytes) -> int:
        """The slow way, for a read that ends within a frame, has a ping in it, or is wrong."""
        messages = subscriber.reader.feed(data)
        for number, message in enumerate(messages, subscriber.next):
            if not self._peer.event_frame(number).endswith(message):
                raise Violation(f"subscriber {subscriber.name} should get event {number}, and got {message[:200]!r}")
        return len(messages)

    def _advance(self, before: int, after: int) -> None:
        at = self._at
        at[before] -= 1
        at[after] = at.get(after, 0) + 1
        while self._delivered in at and not at[self._delivered] and self._delivered < len(self.sent_at):
            del at[self._delivered]
            self._delivered += 1
            at.setdefault(self._delivered, 0)

    def _report_loss(self) -> None:
        lacking = [(s.name, s.next) for s in self._subscribers.values() if s.next < len(self.sent_at)]
        raise Violation(
            f"of {len(self.sent_at)} events, {len(lacking)} subscribers lack some after {self._timeout:.0f} s;"
            f" the first: subscriber {lacking[0][0]} has {lacking[0][1]}"
            if lacking
            else f"the controller got {len(self._answers)} answers to {len(self.sent_at)} calls"
        )

    def finish(self) -> None:
        """Check what is left: every call is answered, in order, and nobody gets anything more. Raises Violation."""
        while len(self._answers) < len(self.sent_at) * self._peer.answers:
            self._receive(self._deadline - time.monotonic())
        for number, answer in enumerate(self._answers):
            self._peer.check_answer(number, answer)
        while self._epoll.poll(_QUIET_SECONDS):
            self._receive(0)  # anything but a ping is one event too many
        if any(s.next != len(self.sent_at) or s.reader.pending for s in self._subscribers.values()):
            raise Violation("events were doubled")

    def latencies(self, first: int) -> tuple[float, float, float]:
        """Median over the events from `first` on: of their subscribers' median, 99th percentile and last, in us."""
        by_event: list[list[int]] = [[] for _ in self.sent_at]
        for now, start, count in self.records:
            for number in range(start, start + count):
                by_event[number].append(now - self.sent_at[number])
        p50: list[float] = []
        p99: list[float] = []
        last: list[float] = []
        for times in by_event[first:]:
            times.sort()
            p50.append(percentile(times, 50) / 1e3)
            p99.append(percentile(times, 99) / 1e3)
            last.append(times[-1] / 1e3)
        return median(p50), median(p99), median(last)


def measure(load: Load) -> Measurement:
    """Connect, warm up, measure, check. Raises Violation."""
    peer = make_peer(load.peer, Event(load.payload, load.encoding))
    empty = resident_bytes(load.server_pid)
    began = time.perf_counter()
    fanout = Fanout(peer, load.port, load.subscribers, load.timeout)
    connect_seconds = time.perf_counter() - began
    connection_bytes = (resident_bytes(load.server_pid) - empty) / (load.subscribers + 1)

    fanout.run(load.in_flight, min(_WARM_UP_SECONDS, load.seconds), None if load.events is None else load.in_flight)
    warm = len(fanout.sent_at)
    fanout.records.clear()
    # What was built so far stays, and the collector need not look at it while the clock runs.
    gc.collect()
    gc.freeze()
    gc.disable()
    server_cpu, load_cpu, began = cpu_seconds(load.server_pid), time.process_time(), time.perf_counter()
    fanout.run(load.in_flight, load.seconds, load.events)
    wall = time.perf_counter() - began
    load_cpu = time.process_time() - load_cpu
    server_cpu = cpu_seconds(load.server_pid) - server_cpu
    reads = len(fanout.records)
    fanout.finish()

    events = len(fanout.sent_at) - warm
    p50, p99, last = fanout.latencies(warm)
    return Measurement(
        events=events,
        deliveries=sum(count for _, _, count in fanout.records),
        wall=wall,
        server_cpu=server_cpu,
        load_cpu=load_cpu,
        latency_p50=p50,
        latency_p99=p99,
        latency_last=last,
        frame_bytes=len(peer.event_frame(0)),
        reads=reads,
        connect_seconds=connect_seconds,
        connection_bytes=connection_bytes,
    )


def main() -> None:
    """Run as a process: see the module's docstring."""
    load = Load(**json.loads(sys.argv[1]))
    try:
        measurement = measure(load)
    except (Violation, OSError) as exc:
        sys.exit(f"{load.peer}: {exc}")
    print(json.dumps(attrs.asdict(measurement)))


if __name__ == "__main__":
    main()
