"""What a peer may send: right messages, then wrong ones that are nearly right, so that deep code is reached.

Drawn from a `random.Random`, so that a seed is a reproduction. A search of Hypothesis spends as much time on drawing
as the server on answering, and keeps near to what it has drawn before; here breadth counts.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

import attrs

from tests.faults.support import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, client_frame, close_payload
from trivet.protocol import extension
from trivet.protocol.codec import ENCODINGS, Codec, Encoding, codec_for, encode_compat_cbor
from trivet.protocol.messages import ActionRequest, SubscriptionRequest, ToServer

CODECS: Final[Mapping[str, Codec]] = MappingProxyType({name: c for name in ENCODINGS if (c := codec_for(name))})


def one_in(r: Random, count: int) -> bool:
    """True about every `count`-th time."""
    return r.randrange(count) == 0


# -- mutations --------------------------------------------------------------------------------------------------------

_INSERTED: Final = (
    b"\0", b"\xff\xff\xff\xff", b"\r\n", b"\r\n\r\n", b'"', b"[[[[", b"$", b"%00", b"\xed\xa0\x80", b"}", b"-1", b":",
    b",",
)  # fmt: skip


def mutate(r: Random, data: bytes, every: int = 20) -> bytes:
    """The data, or every so often something that is nearly the same."""
    if one_in(r, every):
        for _ in range(r.randint(1, 3)):
            at = r.randint(0, len(data))
            some = r.randint(1, 12)
            match r.randrange(5):
                case 0 if data:
                    at = min(at, len(data) - 1)
                    data = data[:at] + bytes([data[at] ^ r.randint(1, 255)]) + data[at + 1 :]
                case 1:
                    data = data[:at] + data[at + some :]
                case 2:
                    data = data[:at] + data[at : at + some] * 2 + data[at + some :]
                case 3 if one_in(r, 3):
                    data = data[:at]
                case _:
                    data = data[:at] + r.choice(_INSERTED) + data[at:]
    return data


# -- values -----------------------------------------------------------------------------------------------------------

_TEXTS: Final = (
    "", "hi", "$Undefined", "\0", "\xe9\u2603", "\U0001f600", "x" * 300, "__class__", "a/b", "\u2028", "k", "$$", "1",
)  # fmt: skip
_LEAVES: Final[Sequence[Any]] = (
    None, True, False, 0, 1, -1, 2**31, 2**53, -(2**53), 2**64, 2**70, 0.5, -0.0, 1e308, b"", b"\0\xff", *_TEXTS,
)  # fmt: skip
_ODD: Final[Sequence[Any]] = (
    None, True, -1, 1.5, "", "x", [], {}, ["$BigInt", "1"], ["$BigInt", "x"], ["$BigInt", "-1"], ["$x", 1], 2**60, [[]],
)  # fmt: skip
_IDS: Final = (0, 1, 1, 2, 2, 3, 2**32, 2**53 - 1, 2**63, 2**64 - 1)
_COUNTS: Final = (0, 1, 2, 3, 5, 64, 1000, 2**53 - 1)


def value(r: Random, depth: int = 3) -> Any:
    """Any value that can travel."""
    match r.randrange(7 if depth else 4):
        case 4:
            return [value(r, depth - 1) for _ in range(r.randrange(4))]
        case 5:
            return {r.choice(_TEXTS): value(r, depth - 1) for _ in range(r.randrange(4))}
        case 6:
            return [r.choice(("$BigInt", "$Set", "$x", "$Undefined")), value(r, depth - 1)]
        case _:
            return r.choice(_LEAVES)


# -- messages of an events connection ---------------------------------------------------------------------------------

_ACTIONS: Final = (
    "echo", "mirror", "mirror", "tick", "tick", "wait", "waitBeside", "waitBeside", "answerLater", "kickMe", "fill",
    "fail", "absent", "",
)  # fmt: skip
_EVENTS: Final = ("ticked", "ticked", "filled", "filled", "slow", "absent", "hidden", "", "x" * 300)


def call(r: Random) -> ActionRequest:
    """A call, mostly with the arguments that it should have."""
    name = r.choice(_ACTIONS)
    right: dict[str, list[Any]] = {
        "echo": ["hi"],
        "mirror": [value(r)],
        "wait": [r.choice((0, 1, 100))],
        "waitBeside": [r.choice((0, 1, 100))],
        "fill": [r.choice((0, 100, 2000, 5000))],
    }
    args = [value(r) for _ in range(r.randrange(4))] if one_in(r, 6) else right.get(name, [])
    return ActionRequest(r.choice(_IDS), name, args)


def to_server(r: Random) -> ToServer:
    """A call, or a subscription."""
    return call(r) if r.randrange(3) else SubscriptionRequest(r.choice(_EVENTS), bool(r.randrange(4)))


def extension_message(r: Random) -> bytes:
    """A message of trivet's extension, or about one."""
    if one_in(r, 16):
        kinds = ("ack", "subscribe", "sync", "cancel", "timeout", "bye", "session")
        return json.dumps([r.choice((*kinds, *_ODD)) for _ in range(r.randrange(5))]).encode()
    messages: Sequence[Callable[[], extension.ExtensionToServer]] = (
        lambda: extension.Ack(r.choice((0, 0, 0, 1, 2, 64))),
        lambda: extension.Subscribe(r.choice(_COUNTS), r.choice(_EVENTS)),
        lambda: extension.Subscribe(r.choice(_COUNTS), r.choice(_EVENTS)),
        lambda: extension.Sync(r.choice(_COUNTS)),
        lambda: extension.Cancel(r.choice((0, 1, 2, 3))),
        lambda: extension.Cancel(r.choice((0, 1, 2, 3))),
        lambda: extension.Timeout(r.choice((0, 1, 2, 3)), r.choice((0.0, 0.5, 2.0**52))),
        lambda: extension.Bye() if one_in(r, 3) else extension.Sync(1),
    )
    return extension.encode(r.choice(messages)())


def _odd_envelope(r: Random) -> bytes:
    """JSON of about the right shape, with something odd in one place."""
    val: dict[str, Any] = {"id": ["$BigInt", "1"], "name": "echo", "args": ["hi"]}
    tag = "ActionRequest"
    if one_in(r, 2):
        tag, val = "SubscriptionRequest", {"eventName": "ticked", "subscribe": True}
    body: dict[str, Any] = {"tag": tag, "val": val}
    root: dict[str, Any] = {"body": body}
    where = r.choice((root, body, body, val, val))
    where[r.choice([*where])] = r.choice(_ODD)
    return json.dumps(r.choice(_ODD) if one_in(r, 10) else root).encode()


def payload(r: Random, encoding: Encoding, extended: bool) -> tuple[int, bytes]:
    """One message of a connection of that encoding, and the opcode that it goes with."""
    codec = CODECS[encoding]
    opcode, free = (BINARY, TEXT) if codec.binary else (TEXT, BINARY)
    kind = r.randrange(48)
    if kind < 28:
        return opcode, mutate(r, codec.encode_to_server(to_server(r)))
    if kind < 42:
        if extended:
            return free, mutate(r, extension_message(r))
        return opcode, codec.encode_to_server(to_server(r))
    if kind == 42:
        return r.choice((TEXT, BINARY)), CODECS[r.choice(ENCODINGS)].encode_to_server(to_server(r))
    if kind < 45:
        return TEXT, _odd_envelope(r)
    if kind == 45:
        return r.choice((TEXT, BINARY)), r.randbytes(r.randrange(40))
    size = r.choice((0, 125, 126, 2000, 2048, 2049, 4000))
    return opcode, b"[" * size if one_in(r, 2) else b'"' + b"x" * size


# -- WebSocket frames -------------------------------------------------------------------------------------------------

_CLOSE_CODES: Final = (1000, 1000, 1001, 1005, 1006, 1011, 3000, 4999, 0, 5000)


def frame(r: Random, message: tuple[int, bytes]) -> bytes:
    """A message in one frame or in several, a control frame, or a frame that is none."""
    opcode, data = message
    match r.randrange(40):
        case 0 | 1:
            return client_frame(PING, r.choice((b"", b"x", b"x" * 125)))
        case 2:
            return client_frame(PONG, b"")
        case 3:
            right = close_payload(r.choice(_CLOSE_CODES))
            return client_frame(CLOSE, r.choice((right, right, b"", b"\x03", close_payload(1000) + b"\xff")))
        case 4:
            odd = r.choice((opcode, CONTINUATION, 3, 11))
            return client_frame(odd, data, fin=one_in(r, 2), rsv=r.choice((0, 0, 1, 4)), masked=bool(r.randrange(4)))
        case 5 | 6 | 7 if data:
            at = r.randrange(len(data))
            between = client_frame(PING, b"p") if one_in(r, 2) else b""
            return client_frame(opcode, data[:at], fin=False) + between + client_frame(CONTINUATION, data[at:])
        case _:
            return mutate(r, client_frame(opcode, data), 60)


# -- requests ---------------------------------------------------------------------------------------------------------

_KEYS: Final = ("other", "", "a,b", "%00", "%ff", "x" * 200, "x" * 1000)


def target(r: Random, rest: str) -> str:
    """Where a request goes: mostly to an actor by name and key."""
    if one_in(r, 20):
        return r.choice((rest, "/gateway/", "//", "*", "http://h", "/gateway/x@/connect", "/%zz?%", "/gateway//x"))
    if one_in(r, 20):
        return f"/gateway/{r.choice(('no-such-id', '%ff', 'id@token', 'ID'))}{rest}"
    pairs = [
        ("namespace", "default" if r.randrange(30) else r.choice(("other", "", "%ff", "x" * 200))),
        ("method", "getOrCreate" if r.randrange(16) else r.choice(("get", "create"))),
        ("runner", "default"),
        ("key", "k" if r.randrange(16) else r.choice(_KEYS)),
    ]
    if one_in(r, 12):
        more = ("input", "input", "region", "crash-policy", "token", "skip-ready-wait", "pool", "key", "nothing")
        pairs.append((r.choice(more), r.choice(("", "oA", "!", "_____w", "gg", "x" * 400, "true", "sleep"))))
    if one_in(r, 30):
        del pairs[r.randrange(len(pairs))]
    name = "room" if r.randrange(20) else r.choice(("rooms", "%72oom", "r@om", "", "x" * 100, "%ff"))
    query = "&".join(f"rvt-{key}={text}" for key, text in pairs)
    return f"/gateway/{name}{rest}{'&' if '?' in rest else '?'}{query}"


_HEADER_VALUES: Final = (
    "", "true", "1", "actor", "json", "cbor", "bare", "x", "{}", '{"a":1}', '"refuse"', "{", "\xe9", "%7B%7D", "0",
    "10", "-1", "gzip", "null", "http://localhost:1", "https://evil.example",
)  # fmt: skip
_HEADER_NAMES: Final = (
    "x-rivet-encoding", "x-rivet-conn-params", "x-rivet-target", "x-rivet-actor", "x-rivet-token", "origin", "host",
    "x-rivet-skip-ready-wait", "content-length", "transfer-encoding", "connection", "expect", "sec-fetch-site",
    "cookie", "authorization", "upgrade", "x-rivet-internal-original-request-url", "range", "content-type",
)  # fmt: skip
_ACTION_RESTS: Final = (
    *(f"/action/{name}" for name in ("echo", "mirror", "tick", "fill", "fail", "absent", "answerLater", "wait")),
    "/request/x",
)
_OTHER_RESTS: Final = (
    "/action/%ff", "/action/a/b", "/action/", "/request", "/request/x?y=1", "/connect", "/websocket/x", "/queue/x",
    "/metadata", "/health", "/nothing", "/", "", "/inspector/x", "/dynamic/reload",
)  # fmt: skip
_CONTROL: Final = (
    "/", "/metadata", "/health", "/actors", "/actors?namespace=default", "/actors?name=room&key=k", "/actors?limit=1",
    "/actors?actor_ids=x,y", "/actors?cursor=x~y", "/actors?name=room&limit=%ff", "/actors/names", "/actors/some-id",
    "/actors/%ff?namespace=%ff", "/nothing", "/actors?name=room&key=%5C0/%5C%5C", "/actors?name=absent",
    "/actors?key=k",
)  # fmt: skip


def _arguments(r: Random, path: str) -> list[Any]:
    name = path.partition("?")[0].rpartition("/")[2]
    while (drawn := call(r)).name != name and name in _ACTIONS:
        pass
    return drawn.args


def _creation(r: Random) -> bytes:
    fields: dict[str, Any] = {"name": "room", "key": r.choice(("k", "j")), "crash_policy": "sleep"}
    fields |= {"runner_name_selector": "default", "input": r.choice((None, "oA==", "!", "A" * 400))}
    if one_in(r, 3):
        fields[r.choice((*fields, "extra"))] = r.choice(_ODD)
    return json.dumps(fields).encode()


def request(r: Random) -> bytes:
    """A request and its body."""
    encoding = r.choice(ENCODINGS)
    if r.randrange(4):
        rest = r.choice(_ACTION_RESTS) if r.randrange(4) else r.choice(_OTHER_RESTS)
        where, method = target(r, rest), "POST"
        body = mutate(r, CODECS[encoding].encode_action_request(_arguments(r, rest)), 8)
    else:
        where, method = r.choice(_CONTROL), r.choice(("GET", "GET", "PUT", "POST", "DELETE"))
        body = mutate(r, _creation(r), 8) if method in ("PUT", "POST") else b""
    if one_in(r, 12):
        method = r.choice(("GET", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "CONNECT", "get", "TRACE"))
    if one_in(r, 12):
        body = r.choice((b"", b"{}", b"x" * 2400, b"x" * 3000, b"[" * 500, encode_compat_cbor({"a": 1})))
    headers = [("host", "localhost"), ("x-rivet-encoding", encoding)]
    if one_in(r, 3):
        headers += [(r.choice(_HEADER_NAMES), r.choice(_HEADER_VALUES)) for _ in range(r.randint(1, 2))]
    match r.randrange(12):
        case 0:
            headers.append(("content-length", str(len(body) + r.choice((-1, 1, 10**6)))))
        case 1 if one_in(r, 2):
            pass
        case 2 | 3 | 4 | 5:
            headers.append(("transfer-encoding", "chunked"))
            half = len(body) // 2
            chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (body[:half], body[half:]) if piece]
            body = b"".join(chunks) + b"0\r\n\r\n"
        case _:
            headers.append(("content-length", str(len(body))))
    version = "1.1" if r.randrange(30) else "1.0"
    lines = [f"{method} {where} HTTP/{version}", *(f"{name}: {text}" for name, text in headers), "", ""]
    return mutate(r, "\r\n".join(lines).encode("latin-1"), 30) + mutate(r, body, 60)


# -- attacks ----------------------------------------------------------------------------------------------------------


@attrs.frozen
class Claim:
    """To the session that an earlier connection of the same attack opened, or to one of this token."""

    received: int
    token: str | None = None


@attrs.frozen
class Upgrade:
    """The opening of a WebSocket."""

    target: str
    subprotocols: Sequence[str]
    extra: Sequence[tuple[str, str]] = ()
    claim: Claim | None = None

    def render(self, tokens: Sequence[str]) -> bytes:
        """The request. `tokens` are those of the sessions that have been opened."""
        offered = list(self.subprotocols)
        if self.claim is not None:
            token = self.claim.token or (tokens[-1] if tokens else "none")
            offered.append(f"trivet_session.{token}.{self.claim.received}")
        headers = [
            ("host", "localhost"),
            ("upgrade", "websocket"),
            ("connection", "Upgrade"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", ", ".join(offered)),
            *self.extra,
        ]
        lines = [f"GET {self.target} HTTP/1.1", *(f"{name}: {text}" for name, text in headers), "", ""]
        return "\r\n".join(lines).encode("latin-1")


Step: TypeAlias = bytes | float
"""Bytes to send, or seconds to wait."""


@attrs.frozen
class Attack:
    """One connection of somebody who means no good, or knows no better."""

    opening: Upgrade | None
    steps: Sequence[Step]
    ending: Literal["close", "abort", "stay"] = "close"
    piece: int = 65536
    """Bytes arrive in pieces of so many."""
    deaf: bool = False
    """Nothing is read."""


_ODD_SUBPROTOCOLS: Final = (
    "rivet_encoding.x", "rivet_conn_params.%7B", "rivet_conn_params.%7B%22a%22%3A1%7D",
    "rivet_conn_params.%22refuse%22", "rivet_target.actor",
    "rivet_actor.x", "rivet_token.x", "rivet_skip_ready_wait", "trivet_session.x", "trivet.2",
    "rivet_conn_params." + "x" * 200,
)  # fmt: skip


def _upgrade(r: Random, rest: str, encoding: Encoding, extended: bool) -> Upgrade:
    offered = ["rivet", f"rivet_encoding.{encoding}", *(["trivet.1"] if extended else [])]
    if one_in(r, 10):
        offered += [r.choice(_ODD_SUBPROTOCOLS) for _ in range(r.randint(1, 2))]
    if one_in(r, 30):
        offered = offered[r.randrange(len(offered)) :]
    extra: list[tuple[str, str]] = []
    if one_in(r, 20):
        names = (*_HEADER_NAMES, "sec-websocket-version", "sec-websocket-key")
        extra.append((r.choice(names), r.choice(_HEADER_VALUES)))
    claim = None
    if extended and one_in(r, 2):
        claim = Claim(r.choice((0, 0, 0, 1, 1, 2, 5, 1000)), None if r.randrange(8) else r.choice(("x", ".")))
    plain = f"/gateway/room{rest}?rvt-namespace=default&rvt-method=getOrCreate&rvt-runner=default&rvt-key=k"
    return Upgrade(target(r, rest) if one_in(r, 10) else plain, offered, extra, claim)


def _attack(r: Random, opening: Upgrade | None, pieces: Sequence[bytes]) -> Attack:
    steps: list[Step] = []
    for piece in pieces:
        steps.append(piece)
        if one_in(r, 5):
            steps.append(r.choice((0.0, 0.1, 1.5, 6.0)))
    ending: Literal["close", "abort", "stay"] = r.choice(("close", "close", "abort", "stay"))
    return Attack(opening, steps, ending, 65536 if r.randrange(12) else r.choice((3, 20)), one_in(r, 20))


def http_attacks(r: Random) -> list[Attack]:
    """Requests, several on a connection."""
    return [_attack(r, None, [request(r) for _ in range(r.randint(1, 6))]) for _ in range(r.randint(1, 3))]


def events_attacks(r: Random) -> list[Attack]:
    """Events connections of one encoding, so that a later one may claim an earlier one's session."""
    encoding, extended = r.choice(ENCODINGS), bool(r.randrange(3))
    attacks: list[Attack] = []
    for _ in range(r.randint(1, 4)):
        frames = [frame(r, payload(r, encoding, extended)) for _ in range(r.randint(0, 12))]
        attacks.append(_attack(r, _upgrade(r, "/connect", encoding, extended), frames))
    return attacks


def raw_attacks(r: Random) -> list[Attack]:
    """Low-level WebSockets."""
    attacks: list[Attack] = []
    for _ in range(r.randint(1, 3)):
        rest = r.choice(("/websocket/", "/websocket/echo", "/websocket/bye", "/anything", "/websocket/idle"))
        texts = [r.choice(_TEXTS).encode() for _ in range(r.randint(0, 8))]
        frames = [frame(r, (r.choice((TEXT, TEXT, BINARY)), text * r.choice((1, 1, 10)))) for text in texts]
        attacks.append(_attack(r, _upgrade(r, rest, "json", extended=False), frames))
    return attacks
