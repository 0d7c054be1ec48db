"""Values keep their meaning, and each JavaScript value is one Python type whatever the encoding."""

import enum
import tracemalloc
from collections import OrderedDict, UserDict, deque
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import Any, NamedTuple, cast

import pytest

from trivet.errors import DecodeError, EncodeError
from trivet.protocol import cbor
from trivet.protocol.codec import ENCODINGS, Codec, codec_for, decode_compat_cbor, encode_compat_cbor
from trivet.protocol.compat import MAX_DEPTH
from trivet.protocol.messages import ActionRequest, ActionResponse, Event
from trivet.protocol.values import MAX_SAFE_INTEGER, UNDEFINED, Value

MOMENT = datetime(2026, 3, 4, 5, 6, 7, 891000, tzinfo=UTC)


def named(encoding: str) -> Codec:
    codec = codec_for(encoding)
    assert codec is not None
    return codec


def to_client(encoding: str, value: Value) -> Value:
    codec = named(encoding)
    return codec.decode_action_response(codec.encode_action_response(value))


def to_server(encoding: str, value: Value) -> Value:
    codec = named(encoding)
    (result,) = codec.decode_action_request(codec.encode_action_request([value]))
    return result


DIRECTIONS: list[Callable[[str, Value], Value]] = [to_client, to_server]

PRESERVED: list[Value] = [
    None,
    UNDEFINED,
    True,
    False,
    "",
    "$",
    "\x00 \u2028 \U0001f600",
    0,
    23,
    24,
    255,
    256,
    65536,
    2**32 - 1,
    2**32,
    -1,
    -24,
    -25,
    -(2**32),
    -(2**32) - 1,
    MAX_SAFE_INTEGER,
    -MAX_SAFE_INTEGER,
    MAX_SAFE_INTEGER + 1,
    2**64,
    -(2**64),
    -(2**64) - 1,
    10**4000,
    0.5,
    -1.5e300,
    5e-324,
    2.0**53,
    b"",
    b"\x00\xff" * 20,
    [],
    {},
    [[], [[]], {"a": {}}],
    ["$a", 2],
    ["$BigInt", "1"],
    ["$$", ["$Set", []]],
    ["$a"],
    ["$a", 1, 2],
    [2, "$a"],
    {"$a": ["$b", None]},
    {"": 1, "a b": UNDEFINED},
    [UNDEFINED],
    {1, 2, "a", None, b"x", 2**70},
    {"$BigInt", "1"},
    set(),
    "x" * 300,
    list(range(300)),
    {str(number): number for number in range(300)},
]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("value", PRESERVED, ids=range(len(PRESERVED)))  # sets have no order to be named by
def test_values_arrive_as_they_were(value: Value, direction: Callable[[str, Value], Value], encoding: str) -> None:
    result = direction(encoding, value)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("args", [["$x", 1], ["$BigInt", "7"], ["$Set", []]])
def test_the_array_of_arguments_is_escaped_too(args: list[Value], encoding: str) -> None:
    codec = named(encoding)
    assert codec.decode_action_request(codec.encode_action_request(args)) == args
    assert codec.decode_to_client(codec.encode_to_client(Event("e", args))) == Event("e", args)
    request = ActionRequest(2**63, "$a", args)
    assert codec.decode_to_server(codec.encode_to_server(request)) == request


def test_json_writes_markers() -> None:
    def written(value: Value) -> str:
        return named("json").encode_action_response(value)[len('{"output":') : -1].decode()

    assert written(["$x", 1]) == '["$$x",1]'
    assert written(2**53) == '["$BigInt","9007199254740992"]'
    assert written(b"hi") == '["$Uint8Array","aGk="]'
    assert written(UNDEFINED) == '["$Undefined",0]'
    assert written({7}) == '["$Set",[7]]'
    assert written({"a": (1, 2**60), "b": True}) == '{"a":[1,["$BigInt","1152921504606846976"]],"b":true}'
    assert written(MOMENT) == '"2026-03-04T05:06:07.891Z"'


def test_cbor_follows_cbor_x() -> None:
    def native(value: Value) -> str:
        return cbor.encode(value, markers=False, wide_maps=True).hex()

    assert native({"a": 1}) == "b90001616101"
    assert native(2**32 - 1) == "1affffffff"
    assert native(-(2**32)) == "3affffffff"
    assert native(2**32) == "fb41f0000000000000"
    assert native(2**53) == "1b0020000000000000"
    assert native(-(2**53)) == "3b001fffffffffffff"
    assert native(2**64) == "c249010000000000000000"
    assert native(-(2**64) - 1) == "c349010000000000000000"
    assert native(UNDEFINED) == "f7"
    assert native(b"\x01") == "d8404101"
    assert native({1}) == "d901028101"
    assert native(datetime(1970, 1, 1, 0, 0, 9, tzinfo=UTC)) == "c109"
    assert native(datetime(1969, 12, 31, 23, 59, 59, 500000, tzinfo=UTC)) == "c1fbbfe0000000000000"
    assert native({str(n): 0 for n in range(65536)})[:10] == "ba00010000"


def test_the_input_of_an_actor() -> None:
    data = bytes.fromhex("b9000265 68656c6c6f 66 77c3b6726c64 616e 820102")
    assert decode_compat_cbor(data) == {"hello": "wörld", "n": [1, 2]}
    assert encode_compat_cbor({"hello": "wörld", "n": [1, 2]}) == data
    assert decode_compat_cbor(encode_compat_cbor(["$a", 2**60])) == ["$a", 2**60]


class TestOneTypeForOneValue:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("1", 1),
            ("1.0", 1),
            ("-0.0", 0),
            ("1e3", 1000),
            ("9007199254740991", MAX_SAFE_INTEGER),
            ("9007199254740991.0", MAX_SAFE_INTEGER),
            ("-9007199254740991", -MAX_SAFE_INTEGER),
            ("9007199254740993", 2.0**53),
            ("123456789012345678901234567890", 123456789012345678901234567890.0),
            ("00".join(["1"] * 100), float("00".join(["1"] * 100))),
            ("1.5", 1.5),
        ],
    )
    def test_json_numbers_are_javascripts(self, text: str, value: object) -> None:
        result = named("json").decode_action_response(f'{{"output":{text}}}')
        assert result == value
        assert type(result) is type(value)

    @pytest.mark.parametrize(
        ("item", "value"),
        [
            ("1b0000000000000001", 1),
            ("fb3ff0000000000000", 1),
            ("f93c00", 1),
            ("fa3f800000", 1),
            ("f93e00", 1.5),
            ("fa3fc00000", 1.5),
            ("fb43e0000000000000", 2.0**63),
            ("1b8000000000000000", 2**63),
            ("3b7fffffffffffffff", -(2**63)),
            ("c241ff", 255),
            ("c34100", -1),
            ("4101", b"\x01"),
            ("d8404101", b"\x01"),
            ("d9010280", set[Value]()),
            ("d90103a10102", {"1": 2}),
            ("a1fb3ff000000000000002", {"1": 2}),
            ("a12002", {"-1": 2}),
            ("c074323031332d30332d32315432303a30343a30305a", datetime(2013, 3, 21, 20, 4, tzinfo=UTC)),
            ("c11a514b67b0", datetime(2013, 3, 21, 20, 4, tzinfo=UTC)),
            ("c1fb41d452d9ec200000", datetime(2013, 3, 21, 20, 4, 0, 500000, tzinfo=UTC)),
            ("d84443010203", [1, 2, 3]),
            ("d84142 0102", [258]),
            ("d84542 0102", [513]),
            ("d84b48 ffffffffffffffff", [-1]),
            ("d84f48 feffffffffffffff", [-2]),
            ("d85544 0000c03f", [1.5]),
            ("d85548 0000c03f 0000803f", [1.5, 1]),
            ("d85040", []),
        ],
    )
    def test_cbor_forms(self, item: str, value: object) -> None:
        for markers in (True, False):
            result = cbor.decode(bytes.fromhex(item), markers=markers)
            assert result == value
            assert type(result) is type(value)

    def test_a_date_arrives_as_a_text_in_json_and_else_as_a_datetime(self) -> None:
        local = MOMENT.astimezone(timezone(timedelta(hours=2)))
        assert to_client("json", local) == "2026-03-04T05:06:07.891Z"
        assert to_client("cbor", local) == to_client("bare", local) == to_server("cbor", local) == MOMENT

    def test_microseconds_survive_where_a_date_does(self) -> None:
        moment = MOMENT.replace(microsecond=123457)
        assert to_client("bare", moment) == moment

    def test_in_cbor_a_server_revives_nothing(self) -> None:
        args: list[Value] = [["$BigInt", "1"], ["$nope", 1], ["$$a", 1]]
        assert cbor.decode(cbor.encode(args, markers=False, wide_maps=True), markers=False) == args


class Colour(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Point(NamedTuple):
    x: int
    y: float


class Half(float):
    pass


class Later(datetime):
    pass


CONVERTED: list[tuple[Any, Value]] = [
    (Colour.RED, "red"),
    (Level.HIGH, 3),
    (Point(1, 2.5), [1, 2.5]),
    ((1, (2,)), [1, [2]]),
    (frozenset({1}), {1}),
    ({1: None}.keys(), {1}),
    (Half(0.5), 0.5),
    (bytearray(b"x"), b"x"),
    (memoryview(b"x"), b"x"),
    (OrderedDict(a=1), {"a": 1}),
    (UserDict(a=(1,)), {"a": [1]}),
    (deque([1]), [1]),
    (range(2), [0, 1]),
    ([Colour.RED, {Colour.RED: Level.HIGH}], ["red", {"red": 3}]),
]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(("given", "arrives"), CONVERTED)
def test_python_has_more_types_than_javascript(encoding: str, given: Any, arrives: Value) -> None:
    for result in (to_client(encoding, given), to_server(encoding, given)):
        assert result == arrives
        assert type(result) is type(arrives)


def test_subclasses_of_datetime_are_datetimes() -> None:
    later = Later(2026, 1, 1, tzinfo=UTC)
    assert to_client("bare", later) == datetime(2026, 1, 1, tzinfo=UTC)
    assert to_client("json", later) == "2026-01-01T00:00:00.000Z"


class Nowhere(tzinfo):
    def utcoffset(self, dt: datetime | None) -> None:
        return None

    def dst(self, dt: datetime | None) -> None:
        return None

    def tzname(self, dt: datetime | None) -> None:
        return None


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def endless() -> Value:
    value: dict[str, Any] = {}
    value["again"] = [value]
    return value


UNENCODABLE: list[tuple[Any, str]] = [
    (float("nan"), r"^output: nan cannot travel"),
    ([0, {"a b": float("inf")}], r"^output\[1\]\['a b'\]: inf cannot travel"),
    ({"user": {"age": object()}}, r"^output\.user\.age: builtins\.object is not a value"),
    ({"user": date(2026, 1, 1)}, r"^output\.user: datetime\.date is not a value"),
    ({1: 2}, r"^output\[1\]: keys must be str, not int: 1"),
    ({None: 2}, r"^output\[None\]: keys must be str"),
    ({"x" * 200: {0: 1}}, r"\.\.\.\]\[0\]: keys must be str"),
    ([{object}], r"^output\[0\]\.member\(.*\): builtins\.type is not"),
    (["$a", object()], r"^output\[1\]: builtins\.object"),
    (datetime(2026, 1, 1), r"a datetime needs a time zone"),  # noqa: DTZ001 # the point of the test
    (datetime(2026, 1, 1, tzinfo=Nowhere()), r"a datetime needs a time zone"),
    (10**4200, r"an integer of more than 4096 digits"),
    (-(10**4200), r"an integer of more than 4096 digits"),
    (nested(129), r"nested more than 128 levels"),
    (endless(), r"contains itself"),
    ("\ud800", r"^output: .*lone surrogate"),
    ({"\udfff": 1}, r"lone surrogate"),
]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(("value", "message"), UNENCODABLE)
def test_what_cannot_travel_is_refused_with_its_place(encoding: str, value: Any, message: str) -> None:
    if encoding == "json" and "surrogate" in message:
        message = "lone surrogate"
    with pytest.raises(EncodeError, match=message):
        named(encoding).encode_action_response(value)
    with pytest.raises(EncodeError, match=r"args|Action"):
        named(encoding).encode_to_server(ActionRequest(1, "a", [value]))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_set_too_deep_and_a_date_too_early(encoding: str) -> None:
    deep = frozenset({1})
    value: list[Any] = [deep]
    for _ in range(127):
        value = [value]
    with pytest.raises(EncodeError, match="nested more than"):
        named(encoding).encode_action_response(value)
    mapping: Any = {}
    for _ in range(128):
        mapping = {"a": mapping}
    with pytest.raises(EncodeError, match="nested more than"):
        named(encoding).encode_action_response(mapping)
    assert to_client(encoding, nested(128)) == nested(128)


def test_a_date_outside_utc_has_no_text() -> None:
    early = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1)))
    with pytest.raises(EncodeError, match="outside the years"):
        named("json").encode_action_response(early)


@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "Infinity",
        "-Infinity",
        "1e999",
        "9" * 400,
        '["$BigInt",1]',
        '["$BigInt","0x10"]',
        '["$BigInt",""]',
        '["$BigInt","1_0"]',
        '["$BigInt","\u0661"]',
        f'["$BigInt","{"9" * 4097}"]',
        f'["$BigInt","{"9" * 5000}"]',
        '["$Undefined",null]',
        '["$Undefined",false]',
        '["$Uint8Array","*"]',
        '["$Uint8Array","a"]',
        '["$Uint8Array",[1]]',
        '["$ArrayBuffer","\u00e9"]',
        '["$Set",{}]',
        '["$Set",[[]]]',
        '["$Set",[["$Set",[]]]]',
        '["$nope",1]',
        '["\\u0024nope",1]',
        '["$",1]',
        '"\\ud800"',
        '{"\\uDC00":1}',
        "[" * 131 + "]" * 131,
        '{"a":' * 131 + "0" + "}" * 131,
        "[" * 5000,
        "[" * 100_000 + "]" * 100_000,
        "1 2",
        '"a\nb"',
        "'a'",
    ],
    ids=lambda text: ascii(text)[:30],
)
def test_json_that_is_refused(text: str) -> None:
    with pytest.raises(DecodeError):
        named("json").decode_action_response(f'{{"output":{text}}}')


def test_json_bytes_must_be_utf_8_and_texts_free_of_surrogates() -> None:
    for data in (
        b'{"output":"\xff"}',
        b'\xef\xbb\xbf{"output":1}',
        '{"output":"\ud800"}',
        '{"output":1}'.encode("utf-16"),
    ):
        with pytest.raises(DecodeError):
            named("json").decode_action_response(data)


def test_a_pair_of_escaped_surrogates_is_one_character() -> None:
    assert named("json").decode_action_response('{"output":"\\ud83d\\ude00"}') == "\U0001f600"


def test_an_array_buffer_is_bytes() -> None:
    assert named("json").decode_action_response('{"output":["$ArrayBuffer","aGk="]}') == b"hi"


def test_a_marker_may_be_written_with_escapes_and_spaces() -> None:
    text = '{"output": [ [ "\\u0024BigInt" , "12" ] , [ "$Undefined" , 0 ] ] }'
    assert named("json").decode_action_response(text) == [12, UNDEFINED]


def test_long_json_with_many_arrays_need_not_be_deep() -> None:
    text = f'{{"output":[{",".join(["[[1]]"] * 500)}]}}'
    assert named("json").decode_action_response(text) == [[[1]]] * 500


@pytest.mark.parametrize(
    "item",
    [
        "",
        "18",
        "1900",
        "1b00000000000000",
        "61",
        "6261",
        "61ff",
        "78ff61",
        "42ff",
        "81",
        "9bffffffffffffffff",
        "bbffffffffffffffff",
        "5bffffffffffffffff",
        "7bffffffffffffffff",
        "9a00ffffff" + "00" * 10,
        "a161",
        "a1f500",
        "a1f600",
        "a1fb3ff800000000000000",
        "a18000",
        "1c",
        "1f",
        "5f4100ff",
        "7f6100ff",
        "9fff",
        "bfff",
        "e0",
        "f0",
        "f820",
        "ff",
        "f97e00",
        "f97c00",
        "fa7f800000",
        "fb7ff0000000000000",
        "fb7ff8000000000000",
        "fb",
        "f9",
        "c0",
        "c001",
        "c06161",
        "c074323031332d30332d32315432303a30343a303020",
        "c073323031332d30332d32315432303a30343a3030",
        "c16161",
        "c1f5",
        "c1fb7e37e43c8800759c",
        "c1fbfe37e43c8800759c",
        "c2",
        "c201",
        "c26161",
        "d84061",
        "d84143010203",
        "d84c40",
        "d85340",
        "d85740",
        "d81b8263457272",
        "d9010261",
        "d90102a0",
        "d901028180",
        "d9010280 00",
        "d9010380",
        "d9d9f700",
        "0000",
        "81" * 200 + "00",
        "c1" * 200 + "00",
        "81" * 5000,
    ],
    ids=lambda item: item[:30],
)
def test_cbor_that_is_refused(item: str) -> None:
    for markers in (True, False):
        with pytest.raises(DecodeError):
            cbor.decode(bytes.fromhex(item), markers=markers)


BAD_MARKERS: list[Value] = [
    ["$BigInt", 1],
    ["$Set", 1],
    ["$Set", [[]]],
    ["$nope", 1],
    ["$Undefined", 1],
    ["$Uint8Array", "*"],
]


@pytest.mark.parametrize("value", BAD_MARKERS)
def test_bad_markers_in_cbor_are_refused(value: Value) -> None:
    with pytest.raises(DecodeError):
        cbor.decode(cbor.encode(value, markers=False, wide_maps=False), markers=True)


def test_a_bignum_has_a_largest_size() -> None:
    fits = bytes([0xC2, 0x59]) + (1700).to_bytes(2, "big") + b"\xff" * 1700
    assert cbor.decode(fits, markers=True) == 2 ** (8 * 1700) - 1
    with pytest.raises(DecodeError, match="4096 digits"):
        cbor.decode(bytes([0xC2, 0x59]) + (1701).to_bytes(2, "big") + b"\xff" * 1701, markers=True)


def test_a_set_of_integers_that_hash_alike_is_refused() -> None:
    colliding = ",".join(f'["$BigInt","{n * (2**61 - 1)}"]' for n in range(1, 1500))
    with pytest.raises(DecodeError, match="one hash"):
        named("json").decode_action_response(f'{{"output":["$Set",[{colliding}]]}}')


def test_a_claimed_length_costs_no_memory() -> None:
    tracemalloc.start()
    try:
        for head in ("9a7fffffff", "ba7fffffff", "5a7fffffff", "7a7fffffff", "d901029a7fffffff"):
            with pytest.raises(DecodeError):
                cbor.decode(bytes.fromhex(head) + bytes(100), markers=True)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_encoding_leaves_the_value_alone() -> None:
    value: dict[str, Value] = {"a": [2**60, ["$x", UNDEFINED]], "b": (1, b"x")}
    named("json").encode_action_response(value)
    assert value == {"a": [2**60, ["$x", UNDEFINED]], "b": (1, b"x")}


def test_an_answer_without_a_result_is_not_undefined() -> None:
    for encoding, body in (("json", b"{}"), ("cbor", b"\xa0")):
        with pytest.raises(DecodeError, match="output is missing"):
            named(encoding).decode_action_response(body)
    assert named("cbor").decode_to_client(
        named("cbor").encode_to_client(ActionResponse(1, UNDEFINED))
    ) == ActionResponse(1, UNDEFINED)


def test_items_of_one_byte_are_read_as_any() -> None:
    items = bytes.fromhex("8a 00 17 20 80 a0 f4 f5 f6 f7 40")
    expected: list[Value] = [0, 23, -1, [], {}, False, True, None, UNDEFINED, b""]
    assert cbor.decode(items, markers=False) == expected
    assert cbor.decode(b"\xa1\x61a" + items, markers=False) == {"a": expected}
    assert cbor.decode(bytes.fromhex("a2 6161 f5 6162 00"), markers=False) == {"a": True, "b": 0}
    first, second = cast("list[object]", cbor.decode(b"\x82\x80\x80", markers=False))
    assert first is not second
    for end in range(len(items)):
        with pytest.raises(DecodeError):
            cbor.decode(items[:end], markers=False)


@pytest.mark.parametrize("innermost", [b"\x80", b"\xa0", b"\x81\x00"])
def test_an_empty_container_is_as_deep_as_any(innermost: bytes) -> None:
    def nested(depth: int) -> bytes:
        return b"\x81" * depth + innermost

    cbor.decode(nested(MAX_DEPTH), markers=False)
    with pytest.raises(DecodeError, match="deep"):
        cbor.decode(nested(MAX_DEPTH + 8), markers=False)
