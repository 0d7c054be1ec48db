"""What every encoding of the protocol can do, and how to get one by its name.

The encodings are `json` (text frames), `cbor` and `bare` (binary frames). A codec holds no state, so one instance
serves every connection and thread.
"""

from collections.abc import Mapping
from typing import Final, Literal, Protocol, TypeAlias

from trivet.protocol import cbor
from trivet.protocol.bare_codec import BareCodec
from trivet.protocol.cbor_codec import CborCodec
from trivet.protocol.json_codec import JsonCodec
from trivet.protocol.messages import Error, ToClient, ToServer
from trivet.protocol.values import UNDEFINED, Value

Encoding: TypeAlias = Literal["json", "cbor", "bare"]
ENCODINGS: Final[tuple[Encoding, ...]] = ("json", "cbor", "bare")


class Codec(Protocol):
    """One encoding of the client protocol. Encoders raise EncodeError alone, decoders DecodeError alone.

    Decoders take what a frame or a body held, text as well as bytes; a text that the encoding cannot have is a
    DecodeError. What follows the message is an error too.
    """

    @property
    def encoding(self) -> Encoding:
        """The name of the encoding in headers and subprotocols."""
        ...

    @property
    def binary(self) -> bool:
        """Whether its WebSocket frames are binary; those of json are text."""
        ...

    @property
    def content_type(self) -> str:
        """The Content-Type of its HTTP bodies."""
        ...

    def encode_to_client(self, message: ToClient) -> bytes:
        """A server's frame."""
        ...

    def decode_to_client(self, data: bytes | str) -> ToClient:
        """The message of a server's frame."""
        ...

    def encode_to_server(self, message: ToServer) -> bytes:
        """A client's frame."""
        ...

    def decode_to_server(self, data: bytes | str) -> ToServer:
        """The message of a client's frame. Absent or null args are none; anything but an array is one argument."""
        ...

    def encode_action_request(self, args: list[Value]) -> bytes:
        """The body of a stateless call."""
        ...

    def decode_action_request(self, data: bytes | str) -> list[Value]:
        """The arguments of a stateless call. Absent or null args are none; anything but an array is one argument."""
        ...

    def encode_action_response(self, output: Value) -> bytes:
        """The body that answers a stateless call. UNDEFINED is sent as such: the output is always present."""
        ...

    def decode_action_response(self, data: bytes | str) -> Value:
        """The result of a stateless call."""
        ...

    def encode_error(self, error: Error) -> bytes:
        """The body of an HTTP error; `action_id` is not part of it."""
        ...

    def decode_error(self, data: bytes | str) -> Error:
        """The error of an HTTP answer. One from a gateway is JSON whatever was asked: look at its Content-Type."""
        ...


_CODECS: Final[Mapping[str, Codec]] = {"json": JsonCodec(), "cbor": CborCodec(), "bare": BareCodec()}


def codec_for(encoding: str) -> Codec | None:
    """The codec of that name, or None for a name that is no encoding."""
    return _CODECS.get(encoding)


def encode_compat_cbor(value: Value) -> bytes:
    """The CBOR of an actor's input, as RivetKit's client writes it, with markers. Raises EncodeError."""
    return cbor.encode(value, markers=True, wide_maps=True, root="input")


def encode_input(value: Value) -> bytes | None:
    """The CBOR of an actor's input; None for UNDEFINED, which is not sent. Raises EncodeError."""
    return None if value is UNDEFINED else encode_compat_cbor(value)


def decode_compat_cbor(data: bytes) -> Value:
    """The value of an actor's input. Raises DecodeError."""
    return cbor.decode(data, markers=True)
