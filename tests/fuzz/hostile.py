"""What a hostile server may send: to everything that a client asks, answers that are right, or nearly."""

import json
from base64 import b64encode
from collections.abc import Callable, Sequence
from hashlib import sha1
from random import Random
from typing import Any, Final, Literal

import attrs

from tests.faults.support import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, client_frame, close_payload
from tests.fuzz.grammar import CODECS, Step, mutate, one_in, value
from trivet.errors import ActorRef
from trivet.protocol import extension
from trivet.protocol.codec import Encoding
from trivet.protocol.messages import ActionResponse, Error, Event, Init, ToClient
from trivet.protocol.values import UNDEFINED

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

_EVENTS: Final = ("ticked", "ticked", "filled", "filled", "trivet.dropped", "absent", "")
_NAMES: Final = (
    ("user", "my_code"), ("actor", "not_found"), ("actor", "stopping"), ("actor", "restarting"),
    ("guard", "rate_limit"), ("api", "unauthorized"), ("", ""), ("x" * 300, "y"), ("ws", "going_away"),
    ("actor", "overloaded"),
)  # fmt: skip
_REASONS: Final = (
    "",
    "actor.stopping#ray",
    "actor.not_found",
    "user.nope",
    "kicked",
    "ws.going_away",
    "x.y.z",
    "#",
    ".",
)


def _error(r: Random, action_id: int | None) -> Error:
    group, code = r.choice(_NAMES)
    metadata = r.choice((UNDEFINED, None, value(r)))
    return Error(group, code, r.choice(("no", "")), metadata, action_id, r.choice((None, ActorRef("a", 1, "k"))))


def _to_client(r: Random) -> ToClient:
    call_id = r.choice((0, 0, 1, 1, 2, 3, 4, 2**63))
    messages: Sequence[Callable[[], ToClient]] = (
        lambda: Event(r.choice(_EVENTS), [value(r) for _ in range(r.randrange(3))]),
        lambda: Event("ticked", [r.randrange(5)]),
        lambda: ActionResponse(call_id, value(r)),
        lambda: ActionResponse(call_id, "hi"),
        lambda: _error(r, call_id),
        lambda: _error(r, None) if one_in(r, 4) else _error(r, call_id),
        lambda: Init("actor", r.choice(("conn", "other", ""))) if one_in(r, 4) else Event("filled", ["x"]),
    )
    return r.choice(messages)()


def _extension(r: Random) -> bytes:
    number = r.choice((0, 1, 2, 3, 5, 1000, 2**53 - 1))
    messages: Sequence[extension.ExtensionToClient] = (
        extension.Ack(r.choice((0, 0, 1, 2, number))),
        extension.SessionOpened(r.choice(("token", "", "a b", "x" * 500)), r.choice((0.0, 2.0, 30.0, 2.0**50))),
        extension.Resumed(number),
        extension.Subscribed(number),
        extension.Refused(number, *r.choice(_NAMES), "no", value(r)),
        extension.Synced(number),
        extension.Dropped(r.choice(_EVENTS), number),
    )
    return extension.encode(r.choice(messages))


def _frame(r: Random, encoding: Encoding, extended: bool) -> bytes:
    codec = CODECS[encoding]
    opcode, free = (BINARY, TEXT) if codec.binary else (TEXT, BINARY)
    kind = r.randrange(40)
    if kind == 0:
        code, reason = r.choice((1000, 1001, 1011, 1013, 4000, 1005)), r.choice(_REASONS).encode()
        return client_frame(CLOSE, close_payload(code, reason), masked=False)
    if kind == 1:
        return client_frame(r.choice((PING, PONG)), b"x" * r.choice((0, 1, 125)), masked=False)
    if kind == 2:
        return client_frame(r.choice((TEXT, BINARY)), r.randbytes(r.randrange(60)), masked=False)
    if extended and kind < 16:
        opcode, payload = free, _extension(r)
    else:
        payload = codec.encode_to_client(_to_client(r))
    payload = mutate(r, payload)
    if kind == 39:
        odd = r.choice((opcode, CONTINUATION, 3, 11))
        return client_frame(odd, payload, fin=one_in(r, 2), rsv=r.choice((0, 4)), masked=one_in(r, 2))
    if kind == 38:
        half = len(payload) // 2
        first = client_frame(opcode, payload[:half], fin=False, masked=False)
        return first + client_frame(CONTINUATION, payload[half:], masked=False)
    return mutate(r, client_frame(opcode, payload, masked=False), 60)


@attrs.frozen
class Answers:
    """How a server behaves on one connection."""

    metadata: bytes
    response: bytes
    """To any other request."""
    upgrade: Literal["right", "wrong key", "other subprotocol", "none", "refused"]
    extended: bool
    steps: Sequence[Step]
    """On a WebSocket, once it is open."""
    ending: Literal["close", "break", "silent"]

    def accept(self, head: bytes) -> bytes:
        """The answer to an upgrade request."""
        if self.upgrade == "refused":
            return self.response
        key = next(
            (line[18:].strip() for line in head.split(b"\r\n") if line[:18].lower() == b"sec-websocket-key:"), b""
        )
        accept = b64encode(sha1((b"" if self.upgrade == "wrong key" else key) + _GUID).digest())
        chosen = {"other subprotocol": b"chat", "none": b""}.get(
            self.upgrade, b"trivet.1" if self.extended else b"rivet"
        )
        lines = [b"HTTP/1.1 101 Switching Protocols", b"upgrade: websocket", b"connection: Upgrade"]
        lines += [b"sec-websocket-accept: " + accept, *([b"sec-websocket-protocol: " + chosen] if chosen else [])]
        return b"\r\n".join([*lines, b"", b""])


def _http(r: Random, body: bytes, content_type: str, status: str = "200 OK") -> bytes:
    length = len(body) + (r.choice((-1, 1, 10**9)) if one_in(r, 20) else 0)
    framing = "transfer-encoding: chunked" if one_in(r, 20) else f"content-length: {length}"
    head = f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\n{framing}\r\nx-rivet-ray-id: ray\r\n\r\n"
    return mutate(r, head.encode("latin-1"), 30) + body


def _metadata(r: Random) -> bytes:
    if r.randrange(8):
        return _http(r, b"{}", "application/json")
    endpoint = r.choice(
        ("http://127.0.0.1:1", "https://x", "ftp://x", "http://a:b@c", "", 7, None, "http://[", "http://x:y")
    )
    fields: dict[str, Any] = {"clientEndpoint": endpoint, "clientNamespace": r.choice(("n", 1)), "clientToken": "t"}
    return _http(
        r, mutate(r, json.dumps(fields).encode(), 8), "application/json", r.choice(("200 OK", "404 No", "500 No"))
    )


def _response(r: Random, encoding: Encoding) -> bytes:
    codec = CODECS[encoding]
    if one_in(r, 3):
        refused = r.choice(("400 Bad", "401 No", "503 Later", "500 Oh", "302 Found", "204 None"))
        error = CODECS[r.choice((encoding, "json"))].encode_error(_error(r, None))
        return _http(r, mutate(r, error, 6), r.choice((codec.content_type, "application/json")), refused)
    bodies = (
        codec.encode_action_response(value(r)),
        codec.encode_action_response("hi"),
        *(b'{"actor":{"actor_id":"id","name":"room","key":"k"},"created":true}',) * 3,
        b'{"actors":[{"actor_id":"id"}]}',
        b"x" * 70_000,
    )
    return _http(r, mutate(r, r.choice(bodies), 6), r.choice((codec.content_type, "text/html")))


def answers(r: Random, encoding: Encoding) -> Answers:
    """How a server behaves on one connection."""
    extended = bool(r.randrange(4))
    codec = CODECS[encoding]
    steps: list[Step] = []
    opcode, free = (BINARY, TEXT) if codec.binary else (TEXT, BINARY)
    if r.randrange(12):
        steps.append(client_frame(opcode, codec.encode_to_client(Init("actor", "conn")), masked=False))
        if extended:
            opened = extension.encode(extension.SessionOpened("token", 30.0))
            steps.append(client_frame(free, opened, masked=False))
    elif extended:
        resumed = extension.encode(extension.Resumed(r.randrange(3)))
        steps.append(client_frame(free, resumed, masked=False))
    for _ in range(r.randint(0, 14)):
        steps.append(_frame(r, encoding, extended))
        if one_in(r, 5):
            steps.append(r.choice((0.0, 0.2, 3.0, 50.0)))
    upgrades: Sequence[Literal["wrong key", "other subprotocol", "none", "refused"]] = (
        "wrong key", "other subprotocol", "none", "refused",
    )  # fmt: skip
    return Answers(
        _metadata(r),
        _response(r, encoding),
        "right" if r.randrange(10) else r.choice(upgrades),
        extended,
        steps,
        r.choice(("close", "break", "silent")),
    )
