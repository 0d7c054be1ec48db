"""Frames that are built once and shared must be what any WebSocket client reads."""

import pytest
from wsproto.connection import CLIENT, Connection
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage

from trivet.server.frames import FORMATS, PING_FRAME, close_frame, message_frame, pong_frame


def parse(frame: bytes) -> list[Event]:
    return list(Connection(CLIENT, trailing_data=frame).events())


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 100_000])
def test_messages_of_every_size_are_read_whole(size: int) -> None:
    assert parse(message_frame(b"x" * size)) == [BytesMessage(data=b"x" * size)]
    assert parse(message_frame("x" * size)) == [TextMessage(data="x" * size)]


def test_text_is_utf_8() -> None:
    assert parse(message_frame("żółw 🐢")) == [TextMessage(data="żółw 🐢")]


@pytest.mark.parametrize(
    ("encoding", "expected"), [("json", TextMessage), ("cbor", BytesMessage), ("bare", BytesMessage)]
)
def test_json_travels_as_text_and_the_others_as_binary(encoding: str, expected: type[Event]) -> None:
    (event,) = parse(FORMATS[encoding].frame(b"payload"))
    assert isinstance(event, expected)
    assert FORMATS[encoding].codec.encoding == encoding


def test_a_close_frame_has_a_code_and_a_reason() -> None:
    assert parse(FORMATS["bare"].close_frame(1011, "actor.not_found")) == [CloseConnection(1011, "actor.not_found")]


def test_1005_stands_for_a_close_frame_without_a_code() -> None:
    assert parse(close_frame(1005)) == [CloseConnection(1005, "")]


def test_a_long_reason_is_cut_between_characters() -> None:
    (event,) = parse(close_frame(1000, "x" + "é" * 100))
    assert event == CloseConnection(1000, "x" + "é" * 61)


def test_control_frames() -> None:
    assert parse(PING_FRAME) == [Ping(b"")]
    assert parse(pong_frame(b"abc")) == [Pong(b"abc")]
