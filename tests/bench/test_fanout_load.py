"""The load of a fan-out notices whatever a server may do wrong."""

import socket
import sys
from collections.abc import Iterator

import pytest

if not sys.platform.startswith("linux"):
    pytest.skip("the loads need Linux: epoll, CPU clocks of other processes", allow_module_level=True)

from benchmarks.peers import Event
from benchmarks.peers.floor import PythonFloor
from benchmarks.peers.relays import SocketIo
from trivet.bench import fanout_load
from trivet.bench.client import Role
from trivet.bench.sockets import TEXT, FrameReader, Violation, client_frame


class _FakeServer:
    """Stands in for the sockets of a run: a controller, and one subscriber."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.peer = PythonFloor(Event(64, "json"))
        self.controller, near_controller = socket.socketpair()
        self.subscriber, near_subscriber = socket.socketpair()
        readers: dict[Role, list[FrameReader]] = {
            "controller": [FrameReader(near_controller)],
            "subscriber": [FrameReader(near_subscriber)],
        }

        def connect(
            _fanout: fanout_load.Fanout, role: Role, count: int, _buffer: int | None = None
        ) -> list[FrameReader]:
            return readers[role][:count]

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
    assert len(list(server.fanout.latencies())) == len(server.fanout.last_latencies()) == 3


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


def test_a_connection_that_ends_is_noticed(server: _FakeServer) -> None:
    server.subscriber.close()
    with pytest.raises(Violation, match="ended a connection"):
        server.fanout.run(1, 1.0, 1)


def test_no_call_is_sent_once_the_input_has_ended(server: _FakeServer) -> None:
    near, far = socket.socketpair()
    with near:
        server.fanout.stop_at_the_end_of(near.fileno())
        far.close()
        server.send(0)
        server.fanout.run(1, 60.0, None)
    server.fanout.finish()
    assert len(server.fanout.sent_at) == 1


def test_a_heartbeat_of_socket_io_is_answered() -> None:
    client = SocketIo(Event(64, "json"))
    assert client.heartbeat(b"2") == client_frame(TEXT, b"3")
    assert client.heartbeat(b"42[]") is None
