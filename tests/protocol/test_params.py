"""Connection parameters and the other subprotocols of a client."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.errors import EncodeError, PublicError
from trivet.limits import Limits
from trivet.protocol.params import decode_params_header, decode_params_token, encode_params_header, encode_params_token
from trivet.protocol.subprotocols import Subprotocols, build_subprotocols, parse_subprotocols, split_subprotocols
from trivet.protocol.values import UNDEFINED

LIMITS = Limits()
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=5), children, max_size=4),
    max_leaves=10,
)


@given(params=plain)
def test_parameters_arrive_in_ascii(params: Any) -> None:
    limits = Limits(params=10**6)
    header, token = encode_params_header(params), encode_params_token(params)
    assert header.isascii()
    assert set(token) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.~-%")
    assert decode_params_header(header, limits) == decode_params_token(token, limits) == params


def test_they_are_plain_json_without_markers() -> None:
    assert encode_params_header({"a": ["$x", 1], "b": UNDEFINED, "c": [UNDEFINED], "d": (1.5,)}) == (
        '{"a":["$x",1],"c":[null],"d":[1.5]}'
    )
    assert encode_params_header(datetime(2026, 1, 1, tzinfo=UTC)) == '"2026-01-01T00:00:00.000Z"'
    assert decode_params_header('["$BigInt","1"]', LIMITS) == ["$BigInt", "1"]
    assert decode_params_token("%7B%22hello%22%3A%22there%22%7D", LIMITS) == {"hello": "there"}
    assert decode_params_token("%7B%22a%22%3A%22(%C3%BC)%22%7D", LIMITS) == {"a": "(ü)"}


@pytest.mark.parametrize("header", ['{"a":"ü"}'.encode(), '{"a":"ü"}'.encode("latin-1"), '{"a":"ü"}'])
def test_a_header_is_utf_8_or_else_latin_1(header: bytes | str) -> None:
    assert decode_params_header(header, LIMITS) == {"a": "ü"}


@pytest.mark.parametrize(
    "text", ["", "{", "nope", "%FF", "NaN", "%5B" * 200 + "%5D" * 200, "%22%5Cud800%22", "1" * 4097]
)
def test_unreadable_parameters_are_an_invalid_request(text: str) -> None:
    with pytest.raises(PublicError, match=r"actor\.invalid_request"):
        decode_params_token(text, LIMITS)


def test_long_ones_are_refused_at_both_ends() -> None:
    with pytest.raises(PublicError, match="longer than 4096 bytes"):
        decode_params_header('"' + "x" * 4095 + '"', LIMITS)
    with pytest.raises(EncodeError, match="longer than 4096 bytes"):
        encode_params_header("x" * 4095, LIMITS)
    assert decode_params_header(encode_params_header("x" * 4094, LIMITS), LIMITS) == "x" * 4094


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"a": b"x"}, r"^params\.a: bytes has no form in plain JSON"),
        ([{1}], r"^params\[0\]: set has no form"),
        ([0, 2**53], r"^params\[1\]: an integer beyond"),
        ({1: 2}, r"^params\[1\]: keys must be str"),
        (float("nan"), "cannot travel"),
        ({"a": object()}, r"^params\.a: "),
    ],
)
def test_what_is_no_plain_json_cannot_be_sent(params: Any, message: str) -> None:
    with pytest.raises(EncodeError, match=message):
        encode_params_header(params)


def test_endless_parameters_cannot_be_sent() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(EncodeError, match="contains itself"):
        encode_params_token(endless)


@pytest.mark.parametrize("separator", [", ", ","])
def test_subprotocols_of_rivetkits_client(separator: str) -> None:
    header = separator.join(
        [
            "rivet",
            "rivet_encoding.bare",
            "rivet_target.actor",
            "rivet_actor.id%2F1",
            "rivet_token.t",
            "rivet_skip_ready_wait",
            "rivet_conn_params.%7B%7D",
            "rivet_test_ack_hook.1234",
            "other",
        ]
    )
    assert parse_subprotocols(split_subprotocols(header)) == Subprotocols(
        True, "bare", "actor", "id/1", "t", True, "%7B%7D"
    )


def test_of_two_alike_the_first_counts_and_json_is_the_default() -> None:
    assert parse_subprotocols(split_subprotocols("rivet_encoding.x,, rivet_encoding.cbor")).encoding == "x"
    assert parse_subprotocols([]) == Subprotocols(encoding="json")
    assert split_subprotocols("") == []


def test_what_a_client_offers() -> None:
    assert build_subprotocols("json", {"hello": "there"}) == [
        "rivet",
        "rivet_encoding.json",
        "rivet_conn_params.%7B%22hello%22%3A%22there%22%7D",
    ]
    offered = build_subprotocols("cbor", actor_id="a/b")
    assert parse_subprotocols(offered) == Subprotocols(True, "cbor", "actor", "a/b")
