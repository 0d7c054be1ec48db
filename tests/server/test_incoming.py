"""Whole messages come out of frames however they were cut, and never more than the limit is held."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import CLIENT, Connection
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.frame_protocol import FrameProtocol, Opcode, ParseFailed

from trivet.server.incoming import (
    CloseReceived,
    Incoming,
    IncomingMessages,
    MessageTooLong,
    PingReceived,
    ProtocolViolated,
)

messages = st.one_of(st.text(max_size=300), st.binary(max_size=300))


def sent(*fragments: str | bytes) -> bytes:
    """One message of a client, in these fragments."""
    client = Connection(CLIENT)
    data = b""
    for index, fragment in enumerate(fragments):
        last = index == len(fragments) - 1
        if isinstance(fragment, str):
            data += client.send(TextMessage(data=fragment, message_finished=last))
        else:
            data += client.send(BytesMessage(data=fragment, message_finished=last))
    return data


def received(data: bytes, limit: int = 1000) -> list[Incoming]:
    return [event for event in IncomingMessages(limit, data).events() if event is not None]


@given(st.lists(messages), st.data())
def test_messages_arrive_whole_wherever_the_stream_is_cut(expected: list[str | bytes], data: st.DataObject) -> None:
    stream = b"".join(sent(message) for message in expected)
    incoming = IncomingMessages(1000)
    found: list[Incoming] = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        incoming.feed(stream[:size])
        stream = stream[size:]
        found += [event for event in incoming.events() if event is not None]
    assert found == expected


@given(st.binary(max_size=500))
def test_garbage_is_a_violation_and_never_an_exception(garbage: bytes) -> None:
    incoming = IncomingMessages(100, garbage)
    events = list(incoming.events())
    assert incoming.deaf == any(isinstance(event, (ProtocolViolated, CloseReceived)) for event in events)
    incoming.feed(garbage)
    assert not incoming.deaf or list(incoming.events()) == []


def as_wsproto_reads(data: bytes) -> list[object]:
    """All of it by wsproto alone, as far as its first violation: text, bytes, and the names of the other frames."""
    frames = FrameProtocol(client=False, extensions=[])
    frames.receive_bytes(data)
    found: list[object] = []
    gathered: list[str | bytes] = []
    try:
        for frame in frames.received_frames():
            if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
                assert not isinstance(frame.payload, tuple)
                gathered.append(frame.payload if isinstance(frame.payload, str) else bytes(frame.payload))
                if frame.message_finished:
                    found.append(gathered[0][:0].join(gathered))  # type: ignore[arg-type]  # all of one type
                    gathered.clear()
            elif frame.opcode is not Opcode.PONG:
                found.append(frame.opcode.name)
                if frame.opcode is Opcode.CLOSE:
                    break
    except ParseFailed as error:
        found.append(int(error.code))
    return found


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """A client's frame: flags, opcode and mask bit mostly right, its length at times in a form that is too long."""
    first = draw(st.sampled_from([0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x89, 0x8A, 0x88, 0xC1, 0x83]))
    payload = draw(st.one_of(st.text(max_size=60).map(str.encode), st.binary(max_size=200)))
    mask = draw(st.binary(min_size=4, max_size=4))
    masked = bytes(byte ^ mask[index & 3] for index, byte in enumerate(payload))
    form = draw(st.sampled_from(["shortest"] * 8 + ["in 2 bytes", "in 8 bytes", "not masked"]))
    if form == "not masked":
        return struct.pack("!BB", first, min(len(payload), 125)) + payload[:125]
    if form == "in 8 bytes":
        return struct.pack("!BBQ", first, 0xFF, len(payload)) + mask + masked
    if form == "in 2 bytes" or len(payload) > 125:
        return struct.pack("!BBH", first, 0xFE, len(payload)) + mask + masked
    return struct.pack("!BB", first, 0x80 | len(payload)) + mask + masked


@given(st.lists(frames(), max_size=6).map(b"".join), st.integers(1, 40))
def test_every_stream_of_frames_is_read_as_wsproto_reads_it(stream: bytes, size: int) -> None:
    incoming = IncomingMessages(10_000)
    found: list[object] = []
    for start in range(0, len(stream), size):
        incoming.feed(stream[start : start + size])
        for event in incoming.events():
            match event:
                case None:
                    pass
                case PingReceived():
                    found.append("PING")
                case CloseReceived():
                    found.append("CLOSE")
                case ProtocolViolated(code):
                    found.append(code)
                case _:
                    found.append(event)
    assert found == as_wsproto_reads(stream)


def test_a_frame_that_comes_byte_by_byte_is_not_copied_for_each() -> None:
    stream = sent(b"x" * 60_000)
    incoming = IncomingMessages(100_000)
    incoming.feed(stream[:1])
    assert list(incoming.events()) == []
    held = None
    found: list[Incoming] = []
    for index in range(1, len(stream)):
        incoming.feed(stream[index : index + 1])
        if held is None:
            held = incoming._data
        assert incoming._data is held
        found = list(incoming.events())
    assert found == [b"x" * 60_000]


def test_fragments_are_joined_around_control_frames() -> None:
    client = Connection(CLIENT)
    data = client.send(TextMessage(data="he", message_finished=False))
    data += client.send(Ping(b"?"))
    data += client.send(Pong())
    data += client.send(TextMessage(data="llo", message_finished=True))
    assert received(data) == [PingReceived(b"?"), "hello"]


def test_a_message_may_be_as_long_as_the_limit() -> None:
    assert received(sent("é" * 500)) == ["é" * 500]
    assert received(sent(b"x" * 999, b"x")) == [b"x" * 1000]


@pytest.mark.parametrize("fragments", [("é" * 501,), (b"x" * 1001,), (b"x" * 1000, b"x"), ("x",) * 1001])
def test_one_byte_more_is_too_long_and_what_follows_is_ignored(fragments: tuple[str | bytes, ...]) -> None:
    events = received(sent(*fragments) + sent("more") + Connection(CLIENT).send(CloseConnection(1000, "bye")))
    assert events == [MessageTooLong(), CloseReceived(1000, "bye")]


def test_too_long_is_known_before_the_message_is_whole() -> None:
    header = b"\x82\xff" + struct.pack("!Q", 1 << 40) + b"\0\0\0\0"
    assert received(header + b"x" * 1001) == [MessageTooLong()]


def test_many_small_and_empty_fragments_are_one_message() -> None:
    fragments = [b"x", b""] * 900
    assert received(sent(*fragments)) == [b"x" * 900]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x01x", 1002),  # not masked
        (b"\xc1\x80\0\0\0\0", 1002),  # a reserved bit
        (b"\x83\x80\0\0\0\0", 1002),  # a reserved opcode
        (b"\x80\x80\0\0\0\0", 1002),  # a continuation of nothing
        (b"\x09\x80\0\0\0\0", 1002),  # a fragmented ping
        (b"\x89\xfe\x00\x7e\0\0\0\0", 1002),  # a ping over 125 bytes
        (b"\x88\x81\0\0\0\0x", 1002),  # half a close code
        (b"\x88\x82\0\0\0\0\x03\xed", 1002),  # 1005 must not be sent
        (b"\x81\x81\0\0\0\0\xff", 1007),  # no UTF-8
        (b"\x88\x83\0\0\0\0\x03\xe8\xff", 1007),  # no UTF-8 in a reason
    ],
)
def test_violations_have_the_code_of_the_rfc(data: bytes, code: int) -> None:
    (event,) = received(data + sent("lost"))
    assert isinstance(event, ProtocolViolated)
    assert event.code == code


def test_a_close_frame_ends_it() -> None:
    client = Connection(CLIENT)
    incoming = IncomingMessages(1000, client.send(CloseConnection(4000, "because")))
    assert list(incoming.events()) == [CloseReceived(4000, "because")]
    assert incoming.closed
    assert received(b"\x88\x80\0\0\0\0") == [CloseReceived(1005, "")]
