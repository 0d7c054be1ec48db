"""Frames and bodies are RivetKit's, byte for byte."""

import json

import attrs
import pytest

from tests.protocol.vectors import (
    ACTION_ERROR,
    ACTION_REQUESTS,
    ACTION_RESPONSES,
    CONNECTION_ERROR,
    HTTP_ERRORS,
    TO_CLIENT,
    TO_SERVER,
)
from trivet.errors import ActorRef, DecodeError, EncodeError
from trivet.protocol.codec import ENCODINGS, Codec, codec_for
from trivet.protocol.messages import ActionRequest, ActionResponse, Error, Event, Init, ToClient, ToServer


def named(encoding: str) -> Codec:
    codec = codec_for(encoding)
    assert codec is not None
    return codec


JSON, CBOR, BARE = named("json"), named("cbor"), named("bare")


@pytest.mark.parametrize(("message", "text", "cbor", "bare"), TO_CLIENT)
def test_messages_to_a_client_are_written_and_read_as_rivetkit_does(
    message: ToClient, text: str, cbor: str, bare: str
) -> None:
    assert json.loads(JSON.encode_to_client(message)) == json.loads(text)
    assert CBOR.encode_to_client(message) == bytes.fromhex(cbor)
    assert BARE.encode_to_client(message) == bytes.fromhex(bare)
    assert JSON.decode_to_client(text) == JSON.decode_to_client(text.encode()) == message
    assert CBOR.decode_to_client(bytes.fromhex(cbor)) == message
    assert BARE.decode_to_client(bytes.fromhex(bare)) == message


@pytest.mark.parametrize(("message", "text", "cbor", "bare"), TO_SERVER)
def test_messages_to_a_server_are_written_and_read_as_rivetkit_does(
    message: ToServer, text: str, cbor: str, bare: str
) -> None:
    assert json.loads(JSON.encode_to_server(message)) == json.loads(text)
    assert CBOR.encode_to_server(message) == bytes.fromhex(cbor)
    assert BARE.encode_to_server(message) == bytes.fromhex(bare)
    assert JSON.decode_to_server(text) == JSON.decode_to_server(text.encode()) == message
    assert CBOR.decode_to_server(bytes.fromhex(cbor)) == message
    assert BARE.decode_to_server(bytes.fromhex(bare)) == message


@pytest.mark.parametrize(("encoding", "body"), ACTION_REQUESTS)
def test_the_body_of_a_stateless_call(encoding: str, body: bytes) -> None:
    assert named(encoding).encode_action_request(["bob", "hi"]) == body
    assert named(encoding).decode_action_request(body) == ["bob", "hi"]


@pytest.mark.parametrize(("encoding", "body"), ACTION_RESPONSES)
def test_the_body_of_its_answer(encoding: str, body: bytes) -> None:
    assert named(encoding).encode_action_response("ok") == body
    assert named(encoding).decode_action_response(body) == "ok"


@pytest.mark.parametrize(("encoding", "body"), HTTP_ERRORS)
def test_the_body_of_an_http_error_has_no_action(encoding: str, body: bytes) -> None:
    assert named(encoding).encode_error(ACTION_ERROR) == body
    assert named(encoding).decode_error(body) == attrs.evolve(ACTION_ERROR, action_id=None)


def test_codecs_by_name() -> None:
    assert [named(name).encoding for name in ENCODINGS] == ["json", "cbor", "bare"]
    assert [named(name).binary for name in ENCODINGS] == [False, True, True]
    assert [named(name).content_type for name in ENCODINGS] == ["application/json"] + ["application/octet-stream"] * 2
    assert codec_for("protobuf") is None


class TestOlderVersionsOfBare:
    def test_the_init_of_version_1_has_a_token_behind_it(self) -> None:
        frame = bytes.fromhex("0100 00 0461637431 03632d31 0474657374")
        assert BARE.decode_to_client(frame) == Init("act1", "c-1")

    @pytest.mark.parametrize("version", [2, 3])
    def test_the_init_of_later_ones_has_none(self, version: int) -> None:
        frame = bytes([version]) + bytes.fromhex("00 00 0461637431 03632d31")
        assert BARE.decode_to_client(frame) == Init("act1", "c-1")

    @pytest.mark.parametrize("version", [1, 2, 3])
    def test_errors_name_the_actor_only_from_version_4_on(self, version: int) -> None:
        frame = bytes([version]) + bytes.fromhex("00 01 0475736572 0872656a6563746564 026e6f 00 00")
        assert BARE.decode_to_client(frame) == CONNECTION_ERROR
        body = bytes([version]) + bytes.fromhex("00 0475736572 0872656a6563746564 026e6f 00")
        assert BARE.decode_error(body) == CONNECTION_ERROR

    @pytest.mark.parametrize("version", [1, 2, 3])
    def test_a_server_reads_them_all(self, version: int) -> None:
        frame = bytes([version]) + bytes.fromhex("00 00 ac02 0b73656e644d657373616765 08 8263626f62626869")
        assert BARE.decode_to_server(frame) == ActionRequest(300, "sendMessage", ["bob", "hi"])

    @pytest.mark.parametrize("version", ["0000", "0500", "0401"])
    def test_other_versions_are_refused(self, version: str) -> None:
        with pytest.raises(DecodeError, match="version"):
            BARE.decode_to_server(bytes.fromhex(version + "01 0161 01"))


class TestIds:
    LARGEST = 2**64 - 1

    @pytest.mark.parametrize("encoding", ENCODINGS)
    def test_every_64_bit_number_is_one(self, encoding: str) -> None:
        codec = named(encoding)
        for number in (0, 300, 2**53, self.LARGEST):
            assert codec.decode_to_client(codec.encode_to_client(ActionResponse(number, None))) == ActionResponse(
                number, None
            )

    @pytest.mark.parametrize("encoding", ENCODINGS)
    @pytest.mark.parametrize("number", [-1, 2**64, True, None])
    def test_nothing_else_can_be_sent(self, encoding: str, number: int) -> None:
        with pytest.raises(EncodeError, match="id: not an unsigned"):
            named(encoding).encode_to_client(ActionResponse(number, None))

    @pytest.mark.parametrize("raw", ['["$BigInt","7"]', "7", "7.0"])
    def test_json_takes_a_number_as_well_as_a_bigint(self, raw: str) -> None:
        text = f'{{"body":{{"tag":"ActionRequest","val":{{"id":{raw},"name":"a","args":[["$$x",1]]}}}}}}'
        assert JSON.decode_to_server(text) == ActionRequest(7, "a", [["$x", 1]])

    @pytest.mark.parametrize(
        "raw", ["-1", "7.5", "true", "null", '"7"', '["$Int","7"]', '["$BigInt","x"]', "[7]", "1e30"]
    )
    def test_other_ids_are_refused(self, raw: str) -> None:
        with pytest.raises(DecodeError):
            JSON.decode_to_server(f'{{"body":{{"tag":"ActionRequest","val":{{"id":{raw},"name":"a","args":[]}}}}}}')

    @pytest.mark.parametrize("raw", ["07", "1b0000000000000007", "82 67 24426967496e74 61 37"])
    def test_cbor_takes_every_form(self, raw: str) -> None:
        head = "a1 64626f6479 a2 63746167 6d416374696f6e52657175657374 6376616c a3 646e616d65 6161 6461726773 80 626964"
        assert CBOR.decode_to_server(bytes.fromhex(head + raw)) == ActionRequest(7, "a", [])


class TestLenience:
    @pytest.mark.parametrize(
        ("body", "args"),
        [
            ("{}", []),
            ('{"args":null}', []),
            ('{"args":["$Undefined",0]}', []),
            ('{"args":"bob"}', ["bob"]),
            ('{"args":{"a":1},"more":true}', [{"a": 1}]),
            ('{"args":["$$a",2]}', ["$a", 2]),
            (' \n{"args":[1]}\t\r\n', [1]),
        ],
    )
    def test_arguments_that_are_no_array(self, body: str, args: list[object]) -> None:
        assert JSON.decode_action_request(body) == args

    def test_unknown_fields_are_ignored(self) -> None:
        text = '{"v":4,"body":{"tag":"Init","x":[],"val":{"actorId":"a","connectionId":"c","y":{}}}}'
        assert JSON.decode_to_client(text) == Init("a", "c")

    def test_an_error_without_a_key_and_one_whose_key_is_null(self) -> None:
        for key in ("", ',"key":null'):
            body = f'{{"group":"g","code":"c","message":"m","actor":{{"actorId":"a","generation":2{key}}}}}'
            assert JSON.decode_error(body).actor == ActorRef("a", 2)


MALFORMED = [
    "",
    "null",
    "[]",
    "{",
    "{} {}",
    '{"body":1}',
    '{"body":{"val":{}}}',
    '{"body":{"tag":"Nope","val":{}}}',
    '{"body":{"tag":7,"val":{}}}',
    '{"body":{"tag":"Init","val":{"actorId":"a"}}}',
    '{"body":{"tag":"Init","val":{"actorId":"a","connectionId":1}}}',
    '{"body":{"tag":"Event","val":{"name":"a","args":{}}}}',
    '{"body":{"tag":"ActionResponse","val":{"id":1}}}',
    '{"body":{"tag":"Error","val":{"group":"a","code":"b","message":"c","actor":1}}}',
    '{"body":{"tag":"Error","val":{"group":"a","code":"b","message":"c","actor":{"actorId":"x"}}}}',
    '{"body":{"tag":"Error","val":{"group":"a","code":"b","message":"c","actor":{"actorId":"x","generation":1,"key":1}}}}',
    '{"body":{"tag":"SubscriptionRequest","val":{"eventName":"a","subscribe":1}}}',
    '{"body":{"tag":"SubscriptionRequest","val":{"subscribe":true}}}',
]


@pytest.mark.parametrize("text", MALFORMED)
def test_a_malformed_message_is_a_decode_error(text: str) -> None:
    for decode in (JSON.decode_to_client, JSON.decode_to_server, JSON.decode_error, JSON.decode_action_response):
        with pytest.raises(DecodeError):
            decode(text)


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "04",
        "0400",
        "0400 09",
        "0400 00 05",
        "0400 00 0461637431 03632d31 00",
        "0400 01 0161 0161 0161 02",
        "0400 03 0161 01 a0",
        "0400 03 01ff 01 80",
        "0400 02 8000 01 80",
        "0400 02 ffffffffffffffffff7f 01 80",
        "0400 02 ffffffffffffffffffff01 01 80",
        "0400 02 01 ffffffff0f 80",
        "0400 02 01 02 8080",
    ],
)
def test_a_malformed_bare_message_is_a_decode_error(frame: str) -> None:
    with pytest.raises(DecodeError):
        BARE.decode_to_client(bytes.fromhex(frame))
    with pytest.raises(DecodeError):
        BARE.decode_to_server(bytes.fromhex(frame))


@pytest.mark.parametrize("codec", [CBOR, BARE])
def test_a_text_is_no_frame_of_a_binary_encoding(codec: Codec) -> None:
    with pytest.raises(DecodeError, match="text frame"):
        codec.decode_to_client('{"body":{}}')


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_texts_of_the_envelope_need_a_utf_8_form(encoding: str) -> None:
    codec = named(encoding)
    messages: list[ToClient] = [Event("\ud800", []), Init("\ud800", ""), Error("g", "c", "\udfff")]
    messages.append(Error("g", "c", "m", actor=ActorRef("\ud800", 1)))
    for message in messages:
        with pytest.raises(EncodeError, match="lone surrogate"):
            codec.encode_to_client(message)
    with pytest.raises(EncodeError, match="generation"):
        codec.encode_error(Error("g", "c", "m", actor=ActorRef("a", -1)))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_actor_without_a_key_has_none_on_the_wire(encoding: str) -> None:
    error = Error("g", "c", "m", None, None, ActorRef("a", 3))
    data = named(encoding).encode_error(error)
    assert b"key" not in data
    assert named(encoding).decode_error(data) == error
