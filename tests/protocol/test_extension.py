"""The extension's messages: what is written is read, and nothing else is."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.test_properties import texts, values
from trivet.errors import DecodeError, EncodeError
from trivet.protocol.compat import exact_type
from trivet.protocol.extension import (
    Ack,
    Bye,
    Cancel,
    Dropped,
    Extension,
    Refused,
    Resumed,
    SessionOpened,
    Subscribe,
    Subscribed,
    Sync,
    Synced,
    Timeout,
    decode_to_client,
    decode_to_server,
    encode,
    is_counted,
)
from trivet.protocol.messages import ActionRequest, ActionResponse, Error, Event, Init, SubscriptionRequest
from trivet.protocol.subprotocols import SessionClaim, build_subprotocols, parse_subprotocols
from trivet.protocol.values import MAX_SAFE_INTEGER

TO_CLIENT: list[tuple[Extension, str]] = [
    (Ack(3), '["ack",3]'),
    (SessionOpened("t-k_n", 30), '["session","t-k_n",30]'),
    (Resumed(0), '["resumed",0]'),
    (Subscribed(1), '["subscribed",1]'),
    (Refused(1, "auth", "forbidden", "No"), '["refused",1,{"group":"auth","code":"forbidden","message":"No"}]'),
    (Refused(1, "a", "b", "", {"n": 2}), '["refused",1,{"group":"a","code":"b","message":"","metadata":{"n":2}}]'),
    (Synced(9), '["synced",9]'),
    (Dropped("$moved", 7), '["dropped","$moved",7]'),
]
TO_SERVER: list[tuple[Extension, str]] = [
    (Ack(MAX_SAFE_INTEGER), '["ack",9007199254740991]'),
    (Subscribe(1, "newMessage"), '["subscribe",1,"newMessage"]'),
    (Sync(2), '["sync",2]'),
    (Cancel(5), '["cancel",5]'),
    (Timeout(5, 1.5), '["timeout",5,1.5]'),
    (Bye(), '["bye"]'),
]


@pytest.mark.parametrize(("message", "text"), TO_CLIENT)
def test_what_a_server_says(message: Extension, text: str) -> None:
    assert encode(message) == text.encode()
    assert decode_to_client(text) == message
    assert decode_to_client(text.encode()) == message


@pytest.mark.parametrize(("message", "text"), TO_SERVER)
def test_what_a_client_says(message: Extension, text: str) -> None:
    assert encode(message) == text.encode()
    assert decode_to_server(text) == message


counts = st.integers(0, MAX_SAFE_INTEGER)


@given(st.one_of(st.builds(Refused, counts, texts, texts, texts, values), st.builds(Dropped, texts, counts)))
def test_any_text_and_metadata_arrives(message: Any) -> None:
    assert decode_to_client(encode(message)) == message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        '"ack"',
        '["ack"]',
        '["ack",-1]',
        '["ack",1.5]',
        '["ack",true]',
        '["ack","1"]',
        '["ack",9007199254740992]',
        '["ack",1,2]',
        '["ack",1] x',
        '["nack",1]',
        "[1,2]",
        '[["ack"],1]',
        '["session",1,30]',
        '["session","t",-1]',
        '["session","t",NaN]',
        '["session","t",1e400]',
        '["dropped",null,1]',
        '["refused",1,[]]',
        '["refused",1,{}]',
        '["refused",1,{"group":"a","code":"b"}]',
        '["refused",1,{"group":"a","code":"b","message":"c","metadata":["$BigInt","x"]}]',
        '["subscribe",1,null]',
        '["timeout",1,"2"]',
        '["timeout",1,-0.5]',
        '["bye",1]',
        "[" * 5000,
    ],
)
def test_anything_else_is_a_decode_error(text: str) -> None:
    for decode in (decode_to_client, decode_to_server):
        with pytest.raises(DecodeError):
            decode(text)


@given(st.binary(max_size=60) | st.text(max_size=60))
def test_noise_is_a_decode_error_or_a_message(data: bytes | str) -> None:
    for decode in (decode_to_client, decode_to_server):
        try:
            message = decode(data)
        except DecodeError:
            continue
        assert encode(message)


@pytest.mark.parametrize("message", [Ack(-1), Timeout(1, float("inf")), SessionOpened("\ud800", 1)])
def test_what_could_not_be_read_is_not_written(message: Extension) -> None:
    with pytest.raises(EncodeError):
        encode(message)


def test_directions_are_apart() -> None:
    for message, text in TO_CLIENT:
        if not isinstance(message, Ack):
            with pytest.raises(DecodeError):
                decode_to_server(text)
    for message, text in TO_SERVER:
        if not isinstance(message, Ack):
            with pytest.raises(DecodeError):
                decode_to_client(text)


def test_which_messages_are_counted() -> None:
    for message in (
        ActionRequest(1, "x", []),
        SubscriptionRequest("x", True),
        ActionResponse(1, None),
        Event("x", []),
        Error("a", "b", "c"),
    ):
        assert is_counted(message)
    assert not is_counted(Init("a", "b"))
    counted = {exact_type(message) for message, _ in TO_CLIENT + TO_SERVER if is_counted(message)}
    assert counted == {Subscribed, Refused, Synced, Dropped, Subscribe, Sync, Cancel, Timeout}


def test_the_offer_of_the_extension_follows_rivetkits() -> None:
    offered = build_subprotocols("bare", {"a": 1}, extended=True, session=SessionClaim("tok-en_1", 42))
    assert offered[:2] == ["rivet", "rivet_encoding.bare"]
    assert offered[-2:] == ["trivet.1", "trivet_session.tok-en_1.42"]
    parsed = parse_subprotocols(offered)
    assert parsed.rivet
    assert parsed.extended
    assert parsed.session == SessionClaim("tok-en_1", 42)
    assert "trivet.1" not in build_subprotocols("bare")


@pytest.mark.parametrize(
    "token",
    [
        "trivet_session.",
        "trivet_session.t",
        "trivet_session.t.",
        "trivet_session..1",
        "trivet_session.t.-1",
        "trivet_session.t.1x",
        "trivet_session.t.²",
        "trivet_session.t." + "9" * 5000,
    ],
)
def test_a_malformed_claim_is_none(token: str) -> None:
    assert parse_subprotocols(["rivet", "trivet.1", token]).session is None


def test_other_versions_say_nothing() -> None:
    assert not parse_subprotocols(["rivet", "trivet.2", "trivet"]).extended
