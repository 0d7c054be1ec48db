"""Connection parameters on their way: plain JSON, in a header or inside a WebSocket subprotocol.

Plain, because clients write them with JSON.stringify: no markers, and a date is a text.
"""

from urllib.parse import quote, unquote_to_bytes

from trivet.errors import DecodeError, EncodeError, PublicError
from trivet.limits import Limits
from trivet.protocol.json_text import Document, dumps_plain
from trivet.protocol.values import Value


def encode_params_header(params: Value, limits: Limits | None = None) -> str:
    """The value of `x-rivet-conn-params`, in ASCII, as the other end may drop any other header. Raises EncodeError."""
    return _sized(dumps_plain(params, "params"), limits)


def encode_params_token(params: Value, limits: Limits | None = None) -> str:
    """What follows `rivet_conn_params.`: JSON in UTF-8, with all but letters, digits and `_.~-` percent-encoded.

    RivetKit's own client leaves parentheses as they are, which makes an invalid subprotocol. Raises EncodeError.
    """
    return quote(_sized(dumps_plain(params, "params"), limits), safe="")


def decode_params_header(value: bytes | str, limits: Limits) -> Value:
    """The parameters in an `x-rivet-conn-params`. A text is taken for the Latin-1 of its bytes.

    Node.js sends characters up to U+00FF as Latin-1, others send UTF-8, which is tried first. Raises PublicError
    `actor.invalid_request`.
    """
    data = value if isinstance(value, bytes) else value.encode("latin-1", errors="replace")
    try:
        data.decode()
    except UnicodeDecodeError:
        data = data.decode("latin-1").encode()
    return _decode(data, limits)


def decode_params_token(text: str, limits: Limits) -> Value:
    """The parameters that follow `rivet_conn_params.`. Raises PublicError `actor.invalid_request`."""
    return _decode(unquote_to_bytes(text), limits)


def _decode(data: bytes, limits: Limits) -> Value:
    if len(data) > limits.params:
        raise _refusal(f"Connection parameters are longer than {limits.params} bytes.")
    try:
        return Document(data).plain_value()
    except DecodeError as error:
        raise _refusal(f"Connection parameters cannot be read: {error}") from error


def _refusal(message: str) -> PublicError:
    return PublicError("actor", "invalid_request", message)


def _sized(text: str, limits: Limits | None) -> str:
    if limits is not None and len(text) > limits.params:
        raise EncodeError(f"params: longer than {limits.params} bytes of JSON")
    return text
