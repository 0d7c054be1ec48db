"""The encoding `bare`: the protocol's version in two bytes, then a BARE struct, in a binary frame.

Values are CBOR in the compat dialect, both ways. Written is version 4. Read are 1 to 4, which differ only so: the Init
of version 1 has a token behind it, and errors name the actor from version 4 on.
"""

from typing import Final, Literal

from trivet.errors import ActorRef, DecodeError
from trivet.protocol import bare, cbor, compat, envelope
from trivet.protocol.bare import Reader
from trivet.protocol.messages import (
    PROTOCOL_VERSION,
    ActionRequest,
    ActionResponse,
    Error,
    Event,
    Init,
    SubscriptionRequest,
    ToClient,
    ToServer,
)
from trivet.protocol.values import UNDEFINED, Value

_VERSION: Final = PROTOCOL_VERSION.to_bytes(2, "little")


class BareCodec:
    """See `trivet.protocol.codec.Codec`."""

    encoding: Literal["bare"] = "bare"
    binary: bool = True
    content_type: str = "application/octet-stream"

    def encode_to_client(self, message: ToClient) -> bytes:
        frame = _Frame(wide_maps=False)
        match message:
            case Event():
                frame.out.append(3)
                frame.text("name", message.name)
                frame.value("args", message.args)
            case ActionResponse():
                frame.out.append(2)
                frame.id("id", message.id)
                frame.value("output", message.output)
            case Error():
                frame.out.append(1)
                frame.error(message)
                frame.optional(message.action_id is not None)
                if message.action_id is not None:
                    frame.id("actionId", message.action_id)
                frame.actor(message.actor)
            case Init():
                frame.out.append(0)
                frame.text("actorId", message.actor_id)
                frame.text("connectionId", message.connection_id)
        return bytes(frame.out)

    def decode_to_client(self, data: bytes | str) -> ToClient:
        reader, version = _open(data)
        tag = reader.u8()
        message: ToClient
        match tag:
            case 0:
                message = Init(reader.str(), reader.str())
                if version == 1:
                    reader.str()
            case 1:
                group, code, text, metadata = _error_fields(reader)
                action_id = reader.uint() if reader.bool() else None
                message = Error(group, code, text, metadata, action_id, _actor(reader, version))
            case 2:
                message = ActionResponse(reader.uint(), _value(reader))
            case 3:
                name = reader.str()
                args = _value(reader)
                if not isinstance(args, list):
                    raise DecodeError("args is not an array")
                message = Event(name, args)
            case _:
                raise DecodeError(f"a message to a client with the tag {tag}")
        reader.end()
        return message

    def encode_to_server(self, message: ToServer) -> bytes:
        frame = _Frame(wide_maps=True)
        if isinstance(message, ActionRequest):
            frame.out.append(0)
            frame.id("id", message.id)
            frame.text("name", message.name)
            frame.value("args", message.args)
        else:
            frame.out.append(1)
            frame.text("eventName", message.event_name)
            frame.optional(message.subscribe)
        return bytes(frame.out)

    def decode_to_server(self, data: bytes | str) -> ToServer:
        reader, _version = _open(data)
        tag = reader.u8()
        message: ToServer
        match tag:
            case 0:
                message = ActionRequest(reader.uint(), reader.str(), envelope.read_args(_value(reader)))
            case 1:
                message = SubscriptionRequest(reader.str(), reader.bool())
            case _:
                raise DecodeError(f"a message to a server with the tag {tag}")
        reader.end()
        return message

    def encode_action_request(self, args: list[Value]) -> bytes:
        frame = _Frame(wide_maps=True)
        frame.value("args", args)
        return bytes(frame.out)

    def decode_action_request(self, data: bytes | str) -> list[Value]:
        reader, _version = _open(data)
        args = envelope.read_args(_value(reader))
        reader.end()
        return args

    def encode_action_response(self, output: Value) -> bytes:
        frame = _Frame(wide_maps=False)
        frame.value("output", output)
        return bytes(frame.out)

    def decode_action_response(self, data: bytes | str) -> Value:
        reader, _version = _open(data)
        output = _value(reader)
        reader.end()
        return output

    def encode_error(self, error: Error) -> bytes:
        frame = _Frame(wide_maps=False)
        frame.error(error)
        frame.actor(error.actor)
        return bytes(frame.out)

    def decode_error(self, data: bytes | str) -> Error:
        reader, version = _open(data)
        group, code, text, metadata = _error_fields(reader)
        error = Error(group, code, text, metadata, None, _actor(reader, version))
        reader.end()
        return error


def _open(data: bytes | str) -> tuple[Reader, int]:
    if isinstance(data, str):
        raise DecodeError("a text frame in the encoding bare")
    reader = Reader(data)
    version = reader.u16()
    if not 1 <= version <= PROTOCOL_VERSION:
        raise DecodeError(f"version {version} of the protocol; known are 1 to {PROTOCOL_VERSION}")
    return reader, version


def _value(reader: Reader) -> Value:
    return cbor.decode(reader.data(), markers=True)


def _error_fields(reader: Reader) -> tuple[str, str, str, Value]:
    return reader.str(), reader.str(), reader.str(), _value(reader) if reader.bool() else UNDEFINED


def _actor(reader: Reader, version: int) -> ActorRef | None:
    if version < 4 or not reader.bool():
        return None
    return ActorRef(reader.str(), reader.uint(), reader.str() if reader.bool() else None)


class _Frame:
    """A message being written. Every method raises EncodeError."""

    def __init__(self, *, wide_maps: bool) -> None:
        self.out = bytearray(_VERSION)
        self._wide_maps = wide_maps

    def value(self, name: str, value: Value) -> None:
        bare.write_data(self.out, cbor.encode(value, markers=True, wide_maps=self._wide_maps, root=name))

    def text(self, name: str, text: str) -> None:
        try:
            bare.write_str(self.out, text)
        except compat.Unencodable as error:
            raise error.error(name) from None

    def id(self, name: str, value: int) -> None:
        bare.write_uint(self.out, envelope.check_id(value, name))

    def optional(self, present: bool) -> None:
        """A bool, or whether an optional is there."""
        self.out.append(1 if present else 0)

    def error(self, error: Error) -> None:
        self.text("group", error.group)
        self.text("code", error.code)
        self.text("message", error.message)
        self.optional(error.metadata is not UNDEFINED)
        if error.metadata is not UNDEFINED:
            self.value("metadata", error.metadata)

    def actor(self, actor: ActorRef | None) -> None:
        self.optional(actor is not None)
        if actor is not None:
            self.text("actorId", actor.actor_id)
            self.id("generation", actor.generation)
            self.optional(actor.key is not None)
            if actor.key is not None:
                self.text("key", actor.key)
