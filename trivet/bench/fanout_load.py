"""The load of a fan-out: one process with all subscribers and the controller, without an event loop.

It is started with the JSON of a `FanoutLoad` as its argument, prints "running" when its clock starts, and then the
JSON of a `FanoutMeasurement`. Everything is timed here, with one clock. So that the load is not what is measured, a
read costs it one system call, a comparison with bytes that another subscriber got before, and an append; all
arithmetic is done afterwards.
"""

import gc
import json
import os
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from trivet.bench.client import Acknowledging, ClientSpec, FanoutClient, Role, make_fanout_client
from trivet.bench.figures import Histogram
from trivet.bench.processes import cpu_seconds, resident_bytes
from trivet.bench.sockets import FrameReader, Violation, connect

_READ_SIZE = 64 * 1024
_CONNECT_AT_ONCE = 64
_WARM_UP_SECONDS = 0.3
_QUIET_SECONDS = 0.05
_KNOWN_READS = 1000
_SLOW_BUFFER = 4096  # bytes, of which the kernel makes twice as many


@attrs.frozen
class FanoutLoad:
    """What to do. `seconds` of sending, or exactly so many `events`, with `in_flight` calls under way at a time.

    `slow` further subscribers never read, and nobody waits for them. With `until_input_ends` the end of the standard
    input stops it too.
    """

    client: ClientSpec
    port: int
    pids: Sequence[int]
    subscribers: int
    in_flight: int
    seconds: float
    events: int | None
    timeout: float
    slow: int = 0
    until_input_ends: bool = False


@attrs.frozen
class FanoutMeasurement:
    """What came of it. Latencies count from the controller's send to the receipt by a subscriber, in nanoseconds:
    `latency` of every delivery, `last` of the last subscriber of each event.

    `*_cpu` are seconds, of user and system together; `connection_bytes` is the growth of the server's resident memory
    for each connection; `slow_ended` is how many of the slow subscribers found their connection ended.
    """

    events: int
    deliveries: int
    wall: float
    server_cpu: float
    load_cpu: float
    latency: Sequence[tuple[int, int]]
    last: Sequence[tuple[int, int]]
    event_bytes: int
    reads: int
    connect_seconds: float
    connection_bytes: float
    slow_ended: int


class Subscriber:
    """One connection: which event must come next, how many it has acknowledged, and whether it shall do so in time."""

    __slots__ = ("acknowledged", "due", "name", "next", "reader")

    def __init__(self, name: int, reader: FrameReader) -> None:
        self.name = name
        self.reader = reader
        self.next = 0
        self.acknowledged = 0
        self.due = False


class Fanout:
    """The connections of one run, and what they saw.

    `records` has one entry for each read with whole events in it: when, the first event's number, how many.
    """

    def __init__(self, client: FanoutClient, port: int, subscribers: int, timeout: float, slow: int = 0) -> None:
        self._client = client
        self._acknowledging = client if isinstance(client, Acknowledging) else None
        self._due: deque[tuple[float, Subscriber]] = deque()
        self._port = port
        self._deadline = time.monotonic() + timeout
        self._timeout = timeout
        self._per_call = client.events_per_call
        self._known: dict[tuple[int, int], tuple[bytes, int]] = {}
        self.records: list[tuple[int, int, int]] = []
        self.sent_at: list[int] = []  # of each call
        self._delivered = 0  # events that every subscriber has
        self._at = {0: subscribers}  # how many subscribers wait for which event
        self._answers: list[bytes] = []
        self._input = -1
        self._epoll = select.epoll()
        self._controller = self._connect("controller", 1)[0]
        self._slow = self._connect("subscriber", slow, _SLOW_BUFFER)
        self._subscribers = {
            reader.sock.fileno(): Subscriber(name, reader)
            for name, reader in enumerate(self._connect("subscriber", subscribers))
        }
        for fd in (*self._subscribers, self._controller.sock.fileno()):
            self._epoll.register(fd, select.EPOLLIN)
        self._stopped = False

    def stop_at_the_end_of(self, fd: int) -> None:
        """Send no more calls once this descriptor has nothing more to read."""
        self._epoll.register(fd, select.EPOLLIN)
        self._input = fd

    def _connect(self, role: Role, count: int, buffer: int | None = None) -> list[FrameReader]:
        readers: list[FrameReader] = []
        connected = select.epoll()
        by_fd: dict[int, FrameReader] = {}
        while len(readers) < count:
            batch: list[FrameReader] = []
            for _ in range(min(_CONNECT_AT_ONCE, count - len(readers))):
                sock = connect(self._port, self._timeout, buffer)
                sock.sendall(self._client.opening(role))
                batch.append(FrameReader(sock))
            for reader in batch:
                reader.read_head()
                reader.sock.sendall(self._client.greeting(role))
            for reader in batch:
                reader.read(self._client.welcomes(role))
                connected.register(reader.sock.fileno(), select.EPOLLIN)
                by_fd[reader.sock.fileno()] = reader
            readers += batch
            # Where connecting takes its time, the first are pinged before the last are there.
            for fd, _ in connected.poll(0):
                data = os.read(fd, _READ_SIZE)
                if not data:
                    raise Violation("the server ended a connection")
                if messages := self._messages(by_fd[fd], data):
                    raise Violation(f"a message came before the first call: {messages[0][:200]!r}")
        connected.close()
        return readers

    @property
    def _emitted(self) -> int:
        return len(self.sent_at) * self._per_call

    def run(self, in_flight: int, seconds: float, events: int | None) -> None:
        """Send calls, always `in_flight` at a time, until the time is over or the events are sent; see them through.

        A call is sent when the events of the one so many before it have reached every subscriber.
        """
        stop = time.perf_counter_ns() + int(seconds * 1e9)
        last = None if events is None else len(self.sent_at) + -(-events // self._per_call)
        while True:
            more = len(self.sent_at) < last if last is not None else time.perf_counter_ns() < stop
            if more and not self._stopped:
                self._send(min(self._delivered // self._per_call + in_flight, last or sys.maxsize))
            elif self._delivered == self._emitted:
                return
            self._receive(self._deadline - time.monotonic())

    def _send(self, until: int) -> None:
        first = len(self.sent_at)
        if first < until:
            calls = b"".join(map(self._client.call, range(first, until)))
            self.sent_at += [time.perf_counter_ns()] * (until - first)
            self._controller.sock.sendall(calls)

    def _receive(self, timeout: float) -> None:
        ready = self._epoll.poll(max(timeout, 0))
        if not ready:
            self._report_loss()
        subscribers, known = self._subscribers, self._known
        for fd, _ in ready:
            subscriber = subscribers.get(fd)
            data = os.read(fd, _READ_SIZE)
            now = time.perf_counter_ns()
            if not data:
                if fd != self._input:
                    raise Violation("the server ended a connection")
                self._epoll.unregister(fd)
                self._stopped = True
                continue
            if subscriber is None:
                self._answers += self._messages(self._controller, data)
                continue
            first = subscriber.next
            seen = known.get((first, len(data)))
            if seen is not None and seen[0] == data and not subscriber.reader.pending:
                count = seen[1]
            else:
                count = self._read_events(subscriber, data)
                if not count:
                    continue
            if first + count > self._emitted:
                raise Violation(f"subscriber {subscriber.name} got an event that nobody had sent")
            self.records.append((now, first, count))
            subscriber.next = first + count
            self._advance(first, first + count)
            if self._acknowledging is not None:
                self._acknowledge(subscriber, self._acknowledging)
        while self._due and self._due[0][0] < time.monotonic():
            _, subscriber = self._due.popleft()
            subscriber.due = False
            self._send_acknowledgement(subscriber)

    def _acknowledge(self, subscriber: Subscriber, client: Acknowledging) -> None:
        if subscriber.next - subscriber.acknowledged >= client.acknowledge_every:
            self._send_acknowledgement(subscriber)
        elif not subscriber.due:
            subscriber.due = True
            self._due.append((time.monotonic() + client.acknowledge_within, subscriber))

    def _send_acknowledgement(self, subscriber: Subscriber) -> None:
        assert self._acknowledging is not None
        if subscriber.next > subscriber.acknowledged:
            subscriber.acknowledged = subscriber.next
            subscriber.reader.sock.sendall(self._acknowledging.acknowledgement(subscriber.next))

    def _read_events(self, subscriber: Subscriber, data: bytes) -> int:
        """The slow way, for the first to read this, and where a read ends within a frame or is wrong."""
        reader = subscriber.reader
        whole, controls = not reader.pending, reader.controls
        messages = self._messages(reader, data)
        for number, message in enumerate(messages, subscriber.next):
            if not self._client.is_event(number, message):
                raise Violation(f"subscriber {subscriber.name} should get event {number}, and got {message[:200]!r}")
        if whole and not reader.pending and controls == reader.controls:
            if len(self._known) > _KNOWN_READS:
                self._known.clear()
            self._known[subscriber.next, len(data)] = data, len(messages)
        return len(messages)

    def _messages(self, reader: FrameReader, data: bytes) -> list[bytes]:
        messages: list[bytes] = []
        for message in reader.feed(data):
            answer = self._client.heartbeat(message)
            if answer is None:
                messages.append(message)
            else:
                reader.controls += 1
                reader.sock.sendall(answer)
        return messages

    def _advance(self, before: int, after: int) -> None:
        at = self._at
        at[before] -= 1
        at[after] = at.get(after, 0) + 1
        while self._delivered in at and not at[self._delivered] and self._delivered < self._emitted:
            del at[self._delivered]
            self._delivered += 1
            at.setdefault(self._delivered, 0)

    def _report_loss(self) -> None:
        lacking = [(s.name, s.next) for s in self._subscribers.values() if s.next < self._emitted]
        raise Violation(
            f"of {self._emitted} events, {len(lacking)} subscribers lack some after {self._timeout:.0f} s;"
            f" the first: subscriber {lacking[0][0]} has {lacking[0][1]}"
            if lacking
            else f"the controller got {len(self._answers)} answers to {len(self.sent_at)} calls"
        )

    def finish(self) -> int:
        """Check what is left: every call is answered, in order, and nobody gets anything more. Raises Violation.

        Returns how many slow subscribers' connections have ended.
        """
        while len(self._answers) < len(self.sent_at) * self._client.answers:
            self._receive(self._deadline - time.monotonic())
        for number, answer in enumerate(self._answers):
            self._client.check_answer(number, answer)
        while self._epoll.poll(_QUIET_SECONDS):
            self._receive(0)  # anything but a ping is one event too many
        if any(s.next != self._emitted or s.reader.pending for s in self._subscribers.values()):
            raise Violation("events were doubled")
        return sum(_has_ended(reader.sock) for reader in self._slow)

    def latencies(self) -> Iterator[int]:
        """Of every delivery in `records`, in ns."""
        sent_at, per_call = self.sent_at, self._per_call
        for now, first, count in self.records:
            for number in range(first, first + count):
                yield now - sent_at[number // per_call]

    def last_latencies(self) -> list[int]:
        """Of each event in `records`, the last subscriber's, in ns."""
        last: dict[int, int] = {}
        for now, first, count in self.records:  # in the order of their times
            for number in range(first, first + count):
                last[number] = now
        return [now - self.sent_at[number // self._per_call] for number, now in last.items()]


def _has_ended(sock: socket.socket) -> bool:
    """Read what there is; whether the end came with it."""
    sock.settimeout(_QUIET_SECONDS)
    try:
        while sock.recv(_READ_SIZE):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def measure(load: FanoutLoad) -> FanoutMeasurement:
    """Connect, warm up, measure, check. Raises Violation."""
    client = make_fanout_client(load.client)
    empty = sum(map(resident_bytes, load.pids))
    began = time.perf_counter()
    fanout = Fanout(client, load.port, load.subscribers, load.timeout, load.slow)
    connect_seconds = time.perf_counter() - began
    grown = sum(map(resident_bytes, load.pids)) - empty

    fanout.run(load.in_flight, min(_WARM_UP_SECONDS, load.seconds), None if load.events is None else load.in_flight)
    warm = len(fanout.sent_at)
    fanout.records.clear()
    # What was built so far stays, and the collector need not look at it while the clock runs.
    gc.collect()
    gc.freeze()
    gc.disable()
    if load.until_input_ends:
        fanout.stop_at_the_end_of(sys.stdin.fileno())
    print("running", flush=True)
    before = sum(map(cpu_seconds, load.pids))
    load_cpu, began = time.process_time(), time.perf_counter()
    fanout.run(load.in_flight, load.seconds, load.events)
    wall, load_cpu = time.perf_counter() - began, time.process_time() - load_cpu
    server_cpu = sum(map(cpu_seconds, load.pids)) - before
    reads = len(fanout.records)
    slow_ended = fanout.finish()
    return FanoutMeasurement(
        events=(len(fanout.sent_at) - warm) * client.events_per_call,
        deliveries=sum(count for _, _, count in fanout.records),
        wall=wall,
        server_cpu=server_cpu,
        load_cpu=load_cpu,
        latency=Histogram.of(fanout.latencies()).to_json(),
        last=Histogram.of(fanout.last_latencies()).to_json(),
        event_bytes=client.event_bytes,
        reads=reads,
        connect_seconds=connect_seconds,
        connection_bytes=grown / (load.subscribers + load.slow + 1),
        slow_ended=slow_ended,
    )


def main() -> None:
    """Run as a process: see the module's docstring."""
    fields: dict[str, Any] = json.loads(sys.argv[1])  # JSON of our own
    fields["client"] = ClientSpec(**fields["client"])
    load = FanoutLoad(**fields)
    try:
        measurement = measure(load)
    except (Violation, OSError) as exc:
        sys.exit(f"{load.client.arguments}: {exc}")
    print(json.dumps(attrs.asdict(measurement)))


if __name__ == "__main__":
    main()
