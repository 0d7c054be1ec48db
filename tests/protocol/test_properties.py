"""Whatever is sent arrives, and whatever arrives is harmless."""

import math
import time
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trivet.errors import ActorRef, DecodeError
from trivet.protocol import cbor
from trivet.protocol.codec import ENCODINGS, Codec, codec_for, decode_compat_cbor, encode_compat_cbor
from trivet.protocol.compat import exact_type
from trivet.protocol.messages import (
    ActionRequest,
    ActionResponse,
    Error,
    Event,
    Init,
    SubscriptionRequest,
    ToClient,
    ToServer,
)
from trivet.protocol.values import MAX_SAFE_INTEGER, UNDEFINED, Value

CODECS = [codec for name in ENCODINGS if (codec := codec_for(name)) is not None]


def normal(value: float) -> int | float:
    """The one type that a number has once decoded."""
    return int(value) if value.is_integer() and abs(value) <= MAX_SAFE_INTEGER else value


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    ["$", "$$", "$BigInt", "$Set", "$Undefined", "$x", '"$', "__proto__", "\\u0024"]
)
scalars = (
    st.none()
    | st.booleans()
    | st.just(UNDEFINED)
    | st.integers()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False, allow_infinity=False).map(normal)
    | texts
    | st.binary(max_size=40)
)
values: st.SearchStrategy[Any] = st.recursive(
    scalars | st.sets(scalars, max_size=4),
    lambda children: (
        st.lists(children, max_size=5)
        | st.tuples(texts, children).map(list)
        | st.dictionaries(texts, children, max_size=5)
    ),
    max_leaves=25,
)
dates = st.datetimes(min_value=datetime(1800, 1, 1), max_value=datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 # hypothesis wants naive bounds
ids = st.integers(0, 2**64 - 1)
actors = st.builds(ActorRef, texts, st.integers(0, 2**32), st.none() | texts)
to_client: st.SearchStrategy[ToClient] = st.one_of(
    st.builds(Init, texts, texts),
    st.builds(Error, texts, texts, texts, values, st.none() | ids, st.none() | actors),
    st.builds(ActionResponse, ids, values),
    st.builds(Event, texts, st.lists(values, max_size=4)),
)
to_server: st.SearchStrategy[ToServer] = st.one_of(
    st.builds(ActionRequest, ids, texts, st.lists(values, max_size=4)),
    st.builds(SubscriptionRequest, texts, st.booleans()),
)


def shape(value: Any) -> Any:
    """The value with the type of every part, so that 1, 1.0 and True differ."""
    kind = exact_type(value)
    if kind is dict:
        return {key: shape(item) for key, item in value.items()}
    if kind is list:
        return [shape(item) for item in value]
    if kind is set:
        return {(type(item), item) for item in value}
    return kind, value


@pytest.mark.parametrize("codec", CODECS, ids=ENCODINGS)
@given(message=to_client)
def test_messages_to_a_client_arrive(codec: Codec, message: ToClient) -> None:
    assert codec.decode_to_client(codec.encode_to_client(message)) == message


@pytest.mark.parametrize("codec", CODECS, ids=ENCODINGS)
@given(message=to_server)
def test_messages_to_a_server_arrive(codec: Codec, message: ToServer) -> None:
    assert codec.decode_to_server(codec.encode_to_server(message)) == message


@given(value=values)
def test_every_encoding_gives_the_same_types_both_ways(value: Value) -> None:
    for codec in CODECS:
        assert shape(codec.decode_action_response(codec.encode_action_response(value))) == shape(value)
        assert shape(codec.decode_action_request(codec.encode_action_request([value]))) == shape([value])
    assert shape(decode_compat_cbor(encode_compat_cbor(value))) == shape(value)


@given(moment=dates)
def test_dates_arrive_to_the_microsecond_in_cbor(moment: datetime) -> None:
    assert decode_compat_cbor(encode_compat_cbor([moment])) == [moment]


@given(number=st.floats(allow_nan=False, allow_infinity=False))
def test_floats_arrive_as_numbers(number: float) -> None:
    for codec in CODECS:
        result = codec.decode_action_response(codec.encode_action_response(number))
        assert shape(result) == shape(normal(number))


def decoders(codec: Codec) -> list[Callable[[bytes], object]]:
    return [
        codec.decode_to_client,
        codec.decode_to_server,
        codec.decode_action_request,
        codec.decode_action_response,
        codec.decode_error,
    ]


def check_harmless(decode: Callable[[bytes], object], data: bytes) -> None:
    """It is refused, or gives something that can be sent on."""
    try:
        result = decode(data)
    except DecodeError:
        return
    for codec in CODECS:
        if isinstance(result, (ActionRequest, SubscriptionRequest)):
            codec.encode_to_server(result)
        elif isinstance(result, (Init, Error, ActionResponse, Event)):
            codec.encode_to_client(result)
        else:
            codec.encode_action_response(result)  # type: ignore[arg-type]  # what is left is a value


@pytest.mark.parametrize("codec", CODECS, ids=ENCODINGS)
@given(data=st.binary(max_size=200), prefix=st.sampled_from([b"", b"\x04\x00", b'{"output":', b"\xa1foutput"]))
def test_random_bytes_are_refused_or_harmless(codec: Codec, data: bytes, prefix: bytes) -> None:
    for decode in decoders(codec):
        check_harmless(decode, prefix + data)


@given(data=st.binary(max_size=200), markers=st.booleans())
@settings(max_examples=400)
def test_random_cbor_is_refused_or_harmless(data: bytes, markers: bool) -> None:
    check_harmless(lambda given: cbor.decode(given, markers=markers), data)


@pytest.mark.parametrize("codec", CODECS, ids=ENCODINGS)
@given(message=to_client | to_server, data=st.data())
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=200)
def test_damaged_messages_are_refused_or_harmless(
    codec: Codec, message: ToClient | ToServer, data: st.DataObject
) -> None:
    if isinstance(message, (ActionRequest, SubscriptionRequest)):
        frame = bytearray(codec.encode_to_server(message))
    else:
        frame = bytearray(codec.encode_to_client(message))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(frame) - 1))
        frame[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
        if not frame:
            break
    for decode in decoders(codec):
        check_harmless(decode, bytes(frame))


@pytest.mark.parametrize("codec", CODECS, ids=ENCODINGS)
@given(message=to_client)
@settings(max_examples=30)
def test_a_message_cut_short_is_refused(codec: Codec, message: ToClient) -> None:
    frame = codec.encode_to_client(message)
    for end in range(len(frame)):
        with pytest.raises(DecodeError):
            codec.decode_to_client(frame[:end])
    with pytest.raises(DecodeError):
        codec.decode_to_client(frame + b"\x00")


def decoded(text: str) -> object:
    """What a JSON message to a server says, or what is wrong with it."""
    codec = codec_for("json")
    assert codec is not None
    try:
        message = codec.decode_to_server(text)
    except DecodeError as error:
        return str(error).split(" at character")[0]
    return shape(list(attrs.astuple(message, recurse=False)))


@given(args=st.lists(values, max_size=3), call=st.integers(0, 2**64 - 1), name=st.text(max_size=8), data=st.data())
@settings(max_examples=300)
def test_a_call_says_the_same_however_its_json_is_written(
    args: list[Value], call: int, name: str, data: st.DataObject
) -> None:
    codec = codec_for("json")
    assert codec is not None
    text = codec.encode_to_server(ActionRequest(call, name, args)).decode()
    text = text.replace(f'["$BigInt","{call}"]', data.draw(st.sampled_from([f'["$BigInt","{call}"]', str(call)])), 1)
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(text) - 1))
        text = text[:at] + data.draw(st.sampled_from(["", "}", "]", ",", '"', "\\", "0", "$", '["$'])) + text[at + 1 :]
    assert decoded(text) == decoded(" " + text)  # the space keeps it from the short way


def bombs() -> dict[str, tuple[str, bytes]]:
    size = 64 * 1024

    def of_json(unit: str, close: str = "") -> bytes:
        count = size // len(unit + close)
        return b'{"output":' + (unit * count + close * count).encode() + b"}"

    def of_bare(item: bytes) -> bytes:
        return b"\x04\x00" + b"\x80\x80\x04" + item

    return {
        "brackets": ("json", of_json("[", "]")),
        "objects": ("json", of_json('{"a":')),
        "digits": ("json", of_json("9")),
        "fraction": ("json", of_json("0." + "1" * (size - 20))),
        "markers": ("json", of_json('["$Set",', "]")),
        "escapes": ("json", of_json('["$$a",', "]")),
        "bigints": ("json", b'{"output":[' + b",".join([b'["$BigInt","' + b"9" * 4000 + b'"]'] * 16) + b"]}"),
        "strings": ("json", b'{"output":["' + b'","$'.join([b""] * (size // 4)) + b'"]}'),
        "arrays": ("cbor", b"\xa1foutput" + b"\x81" * size),
        "maps": ("cbor", b"\xa1foutput" + b"\xa1" * size),
        "tags": ("cbor", b"\xa1foutput" + b"\xc1" * size),
        "sets": ("cbor", b"\xa1foutput" + b"\xd9\x01\x02\x81" * (size // 4)),
        "lengths": ("cbor", b"\xa1foutput" + b"\x9b\x00\x00\x00\x00\x00\x00\xff\xff" * (size // 9)),
        "empty arrays": ("cbor", b"\xa1foutput\x99\xff\x00" + b"\x80" * 0xFF00),
        "bignum": ("cbor", b"\xa1foutput\xc2\x59\xff\x00" + b"\xff" * 0xFF00),
        "bignum keys": ("cbor", b"\xa1foutput\xb8\x20" + (b"\xc2\x59\x06\x00" + b"\xff" * 0x600 + b"\x00") * 0x20),
        "bare lengths": ("bare", of_bare(b"\xff" * size)),
        "bare arrays": ("bare", of_bare(b"\x81" * size)),
    }


@pytest.mark.parametrize(("encoding", "frame"), bombs().values(), ids=bombs())
def test_no_small_message_costs_much(encoding: str, frame: bytes) -> None:
    codec = codec_for(encoding)
    assert codec is not None

    def decode() -> None:
        try:
            codec.decode_action_response(frame)
        except DecodeError:
            pass

    started = time.process_time()
    decode()
    elapsed = time.process_time() - started
    tracemalloc.start()
    try:
        decode()
        memory = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Both bounds are far above what is used, even while coverage is measured, and far below an attack's worth.
    assert memory < 100 * len(frame) + 1_000_000
    assert elapsed < 2.0


def test_the_normal_form_of_numbers() -> None:
    assert shape(normal(1.0)) == (int, 1)
    assert shape(normal(2.0**60)) == (float, 2.0**60)
    assert math.copysign(1, normal(-0.0)) == 1
