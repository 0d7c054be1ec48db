"""The encoding `cbor`: the envelope as one CBOR item in a binary frame.

The layouts are RivetKit's, byte for byte: an id takes 8 bytes, so that JavaScript reads a BigInt, and a client's maps
have 16-bit sizes. A server sends the compat dialect, a client the native one (see `trivet.protocol.cbor`).
"""

from typing import Final, Literal

from trivet.errors import ActorRef, DecodeError
from trivet.protocol import cbor, compat, envelope
from trivet.protocol.cbor import Writer, write_head, write_text
from trivet.protocol.messages import ActionRequest, ActionResponse, Error, Event, Init, ToClient, ToServer
from trivet.protocol.values import UNDEFINED, Value


def _text(text: str) -> bytes:
    out = bytearray()
    write_text(out, text)
    return bytes(out)


def _prefix(map_of_one: bytes, map_of_two: bytes, tag: str) -> bytes:
    return map_of_one + _text("body") + map_of_two + _text("tag") + _text(tag) + _text("val")


_TO_CLIENT: Final = {kind: _prefix(b"\xa1", b"\xa2", kind.__name__) for kind in (Init, Error, ActionResponse, Event)}
_ACTION_REQUEST: Final = _prefix(b"\xb9\x00\x01", b"\xb9\x00\x02", "ActionRequest")
_SUBSCRIPTION_REQUEST: Final = _prefix(b"\xb9\x00\x01", b"\xb9\x00\x02", "SubscriptionRequest")


class CborCodec:
    """See `trivet.protocol.codec.Codec`."""

    encoding: Literal["cbor"] = "cbor"
    binary: bool = True
    content_type: str = "application/octet-stream"

    def encode_to_client(self, message: ToClient) -> bytes:
        frame = _Frame(_TO_CLIENT[type(message)], markers=True)
        match message:
            case Event():
                frame.map_of(2)
                frame.text("name", message.name)
                frame.value("args", message.args)
            case ActionResponse():
                frame.map_of(2)
                frame.id("id", message.id)
                frame.value("output", message.output)
            case Error():
                frame.error(message, fields=1)
                if message.action_id is None:
                    frame.value("actionId", None)
                else:
                    frame.id("actionId", message.action_id)
            case Init():
                frame.map_of(2)
                frame.text("actorId", message.actor_id)
                frame.text("connectionId", message.connection_id)
        return bytes(frame.out)

    def decode_to_client(self, data: bytes | str) -> ToClient:
        return envelope.read_to_client(_item(data, markers=True), _REVIVED)

    def encode_to_server(self, message: ToServer) -> bytes:
        if isinstance(message, ActionRequest):
            frame = _Frame(_ACTION_REQUEST, markers=False)
            frame.map_of(3)
            frame.id("id", message.id)
            frame.text("name", message.name)
            frame.value("args", message.args)
        else:
            frame = _Frame(_SUBSCRIPTION_REQUEST, markers=False)
            frame.map_of(2)
            frame.text("eventName", message.event_name)
            frame.value("subscribe", message.subscribe)
        return bytes(frame.out)

    def decode_to_server(self, data: bytes | str) -> ToServer:
        return envelope.read_to_server(_item(data, markers=False), _REVIVED)

    def encode_action_request(self, args: list[Value]) -> bytes:
        frame = _Frame(b"", markers=False)
        frame.map_of(1)
        frame.value("args", args)
        return bytes(frame.out)

    def decode_action_request(self, data: bytes | str) -> list[Value]:
        return envelope.read_action_request(_item(data, markers=False), _REVIVED)

    def encode_action_response(self, output: Value) -> bytes:
        frame = _Frame(b"", markers=True)
        frame.map_of(1)
        frame.value("output", output)
        return bytes(frame.out)

    def decode_action_response(self, data: bytes | str) -> Value:
        return envelope.read_action_response(_item(data, markers=True), _REVIVED)

    def encode_error(self, error: Error) -> bytes:
        frame = _Frame(b"", markers=True)
        frame.error(error, fields=0)
        return bytes(frame.out)

    def decode_error(self, data: bytes | str) -> Error:
        return envelope.read_error(_item(data, markers=True), _REVIVED)


class _Revived:
    """Its values were revived, where they are to be, as they were decoded."""

    def value(self, raw: object) -> Value:
        return raw  # type: ignore[return-value]  # it came from the decoder, which makes only values

    def id(self, raw: object) -> int:
        return envelope.read_id(raw)


_REVIVED: Final = _Revived()


def _item(data: bytes | str, *, markers: bool) -> object:
    if isinstance(data, str):
        raise DecodeError("a text frame in the encoding cbor")
    return cbor.decode(data, markers=markers)


class _Frame:
    """A message being written. Every method raises EncodeError."""

    def __init__(self, prefix: bytes, *, markers: bool) -> None:
        self.out = bytearray(prefix)
        self._markers = markers
        self._writer = Writer(self.out, markers=markers, wide_maps=not markers)

    def map_of(self, size: int) -> None:
        if self._markers:
            self.out.append(0xA0 | size)
        else:
            self.out += bytes((0xB9, 0, size))

    def value(self, name: str, value: object) -> None:
        write_text(self.out, name)
        try:
            self._writer.write(value)
        except compat.Unencodable as error:
            raise error.error(name) from None

    def text(self, name: str, text: str) -> None:
        self.value(name, text)

    def id(self, name: str, value: int) -> None:
        write_text(self.out, name)
        self.out.append(0x1B)
        self.out += envelope.check_id(value, name).to_bytes(8, "big")

    def error(self, error: Error, fields: int) -> None:
        """The fields that every error has, of a map that gets `fields` more."""
        self.map_of(3 + fields + (error.metadata is not UNDEFINED) + (error.actor is not None))
        self.text("group", error.group)
        self.text("code", error.code)
        self.text("message", error.message)
        if error.metadata is not UNDEFINED:
            self.value("metadata", error.metadata)
        if error.actor is not None:
            write_text(self.out, "actor")
            self._actor(error.actor)

    def _actor(self, actor: ActorRef) -> None:
        self.map_of(2 if actor.key is None else 3)
        self.text("actorId", actor.actor_id)
        write_text(self.out, "generation")
        write_head(self.out, 0x00, envelope.check_id(actor.generation, "generation"))
        if actor.key is not None:
            self.text("key", actor.key)
