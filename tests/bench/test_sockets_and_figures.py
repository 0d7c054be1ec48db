"""What the loads read with and count with."""

import json
import math
import random
import socket
from typing import TYPE_CHECKING

import pytest

from benchmarks.peers import Encoding, Event
from benchmarks.peers.floor import PythonFloor
from benchmarks.peers.trivet_actor import TrivetActor
from trivet.bench.figures import Histogram, median, percentile, table
from trivet.bench.sockets import BINARY, ChunkReader, FrameReader, HttpReader, Violation, client_frame, server_frame

if TYPE_CHECKING:
    from collections.abc import Sequence


@pytest.mark.parametrize("encoding", ["json", "cbor", "bare"])
def test_an_event_has_the_size_that_was_asked_for(encoding: Encoding) -> None:
    event = Event(128, encoding)
    assert len(json.dumps(event.value(7), separators=(",", ":"))) == 128
    assert PythonFloor(event).event_frame(7) == TrivetActor(event).event_frame(7)


def test_frames_in_pieces_are_put_together() -> None:
    near, far = socket.socketpair()
    with near, far:
        reader = FrameReader(near)
        stream = b"".join(server_frame(BINARY, bytes([n]) * size) for n, size in enumerate((0, 125, 126, 70_000)))
        messages = [message for at in range(0, len(stream), 1000) for message in reader.feed(stream[at : at + 1000])]
        assert [len(message) for message in messages] == [0, 125, 126, 70_000]
        assert not reader.pending


def test_a_ping_is_answered_and_counted() -> None:
    near, far = socket.socketpair()
    with near, far:
        reader = FrameReader(near)
        assert reader.feed(b"\x89\x02hi") == []
        assert far.recv(100) == client_frame(0x8A, b"hi")
        assert reader.controls == 1


def test_answers_over_http_are_cut_by_their_length() -> None:
    near, far = socket.socketpair()
    with near, far:
        reader = HttpReader(near)
        stream = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: y\r\n\r\nhiHTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n"
        answers = [answer for at in range(len(stream)) for answer in reader.feed(stream[at : at + 1])]
        assert b"".join(answers) == stream
        assert len(answers) == 2
        with pytest.raises(Violation, match="without a length"):
            reader.feed(b"HTTP/1.1 200 OK\r\n\r\n")


def test_pieces_of_one_size_are_cut() -> None:
    near, far = socket.socketpair()
    with near, far:
        reader = ChunkReader(near, 3)
        assert reader.feed(b"ab") == []
        assert reader.feed(b"cdefg") == [b"abc", b"def"]


def test_a_histogram_is_within_a_percent() -> None:
    chance = random.Random(1)
    values = sorted(chance.randrange(10 ** chance.randrange(1, 10)) for _ in range(10_000))
    histogram = Histogram.of(values)
    for percent in (1, 25, 50, 90, 99, 99.9, 100):
        assert histogram.percentile(percent) == pytest.approx(percentile(values, percent), rel=0.01)
    assert histogram.count == 10_000


def test_histograms_are_added_and_kept() -> None:
    one, other = Histogram.of([1, 2, 3]), Histogram.of([1_000_000])
    one.add(Histogram.from_json(json.loads(json.dumps(other.to_json()))))
    assert one.count == 4
    assert [share for _, share in one.points()] == [0.25, 0.5, 0.75, 1]
    assert math.isnan(Histogram().percentile(50))


def test_percentiles_are_nearest_ranks() -> None:
    values: Sequence[float] = [float(n) for n in range(1, 101)]
    assert (percentile(values, 50), percentile(values, 99), percentile(values, 100)) == (50, 99, 100)
    assert percentile([5.0], 99) == 5
    assert median([3, 1, 2]) == 2


def test_a_table_lines_up() -> None:
    assert table([["a", "b", "c"], ["1", "long", "2.5"]]).splitlines() == [
        "a  b       c",
        "-  ----  ---",
        "1  long  2.5",
    ]
