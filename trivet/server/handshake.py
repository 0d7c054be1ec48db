"""The opening handshake of a WebSocket (RFC 6455 section 4.2)."""

from base64 import b64decode, b64encode
from hashlib import sha1
from typing import Final

from trivet.server.http import Head, HttpError

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_SIZE: Final = 16

SUPPORTED_VERSION: Final = "13"


def wants_websocket(head: Head) -> bool:
    """Whether a request asks to become a WebSocket. Whether it may is for `accept_token` to say."""
    return "websocket" in _tokens(head, "upgrade") and "upgrade" in _tokens(head, "connection")


def accept_token(head: Head) -> str:
    """The Sec-WebSocket-Accept that answers. Raises HttpError: 400, or 426 for another version of the protocol."""
    if head.method != "GET" or head.version != "1.1":
        raise _bad_handshake("A WebSocket begins with GET and HTTP/1.1")
    if head.headers.get("sec-websocket-version") != SUPPORTED_VERSION:
        raise HttpError(426, "api", "bad_request", "Only version 13 of the WebSocket protocol is supported", close=True)
    key = head.headers.get("sec-websocket-key", "")
    try:
        valid = len(b64decode(key, validate=True)) == _KEY_SIZE
    except ValueError:
        valid = False
    if not valid:
        raise _bad_handshake("Sec-WebSocket-Key is missing or not 16 bytes of base64")
    return b64encode(sha1(key.encode("ascii") + _GUID).digest()).decode("ascii")


def _bad_handshake(message: str) -> HttpError:
    return HttpError(400, "api", "bad_request", message, close=True)


def _tokens(head: Head, name: str) -> list[str]:
    return [token.strip().lower() for token in head.headers.get(name, "").split(",")]
