"""trivet's extension of the client protocol: sessions that outlive their transport, answers to subscriptions, cancels.

A connection whose WebSocket handshake agreed on the subprotocol `trivet.1` has these messages beside RivetKit's. Each
is a JSON array `[kind, ...]` in UTF-8, in a frame of the opcode that the encoding does not use: binary for json, text
for cbor and bare. The messages of RivetKit's protocol keep their bytes, so that one frame serves every recipient.

Both directions of a session count their messages, from 0: all of RivetKit's but Init, and those here whose class says
`counted`. Counted messages are kept until the other side has acknowledged them, and repeated on the next transport of
the session. The others concern one transport.
"""

from collections.abc import Callable, Mapping
from typing import ClassVar, Final, TypeAlias, cast

import attrs

from trivet.errors import DecodeError, EncodeError
from trivet.protocol.json_text import Document, dumps, to_bytes
from trivet.protocol.messages import Error, Init, ToClient, ToServer
from trivet.protocol.values import MAX_SAFE_INTEGER, UNDEFINED, Value


@attrs.frozen
class Ack:
    """Both ways: the sender has received so many counted messages."""

    kind: ClassVar[str] = "ack"
    counted: ClassVar[bool] = False

    received: int


@attrs.frozen
class SessionOpened:
    """Server to client, after each Init: what resumes this session, and for how many seconds after a break."""

    kind: ClassVar[str] = "session"
    counted: ClassVar[bool] = False

    token: str
    window: float


@attrs.frozen
class Resumed:
    """Server to client, instead of Init: the session goes on, and so many counted messages of the client are here.

    What the client misses follows.
    """

    kind: ClassVar[str] = "resumed"
    counted: ClassVar[bool] = False

    received: int


@attrs.frozen
class Subscribed:
    """Server to client: the subscription is in force."""

    kind: ClassVar[str] = "subscribed"
    counted: ClassVar[bool] = True

    id: int


@attrs.frozen
class Refused:
    """Server to client: the subscription is not in force, and why. The connection lives."""

    kind: ClassVar[str] = "refused"
    counted: ClassVar[bool] = True

    id: int
    group: str
    code: str
    message: str
    metadata: Value = UNDEFINED


@attrs.frozen
class Synced:
    """Server to client: every event that was emitted before the Sync of that id came before this."""

    kind: ClassVar[str] = "synced"
    counted: ClassVar[bool] = True

    id: int


@attrs.frozen
class Dropped:
    """Server to client: so many events of that name were left out, the first of them here, by their overflow policy."""

    kind: ClassVar[str] = "dropped"
    counted: ClassVar[bool] = True

    event: str
    count: int


@attrs.frozen
class Subscribe:
    """Client to server: a subscription that is answered with Subscribed or Refused."""

    kind: ClassVar[str] = "subscribe"
    counted: ClassVar[bool] = True

    id: int
    event: str


@attrs.frozen
class Sync:
    """Client to server: answered by Synced, in order with events."""

    kind: ClassVar[str] = "sync"
    counted: ClassVar[bool] = True

    id: int


@attrs.frozen
class Cancel:
    """Client to server: the call of that id is not wanted any more. It overtakes what waits."""

    kind: ClassVar[str] = "cancel"
    counted: ClassVar[bool] = True

    call_id: int


@attrs.frozen
class Timeout:
    """Client to server, directly before a call: it has so many seconds, from the receipt of this."""

    kind: ClassVar[str] = "timeout"
    counted: ClassVar[bool] = True

    call_id: int
    seconds: float


@attrs.frozen
class Bye:
    """Client to server: the session ends at once."""

    kind: ClassVar[str] = "bye"
    counted: ClassVar[bool] = False


ExtensionToClient: TypeAlias = Ack | SessionOpened | Resumed | Subscribed | Refused | Synced | Dropped
ExtensionToServer: TypeAlias = Ack | Subscribe | Sync | Cancel | Timeout | Bye
Extension: TypeAlias = ExtensionToClient | ExtensionToServer


def is_counted(message: Extension | ToClient | ToServer) -> bool:
    """Whether a message takes a number of its direction."""
    if isinstance(message, (Error, Init)):
        return isinstance(message, Error)
    return getattr(message, "counted", True)


def encode(message: Extension) -> bytes:
    """The JSON of a message. Raises EncodeError."""
    if isinstance(message, Refused):
        error = f'"group":{dumps(message.group)},"code":{dumps(message.code)},"message":{dumps(message.message)}'
        if message.metadata is not UNDEFINED:
            error += f',"metadata":{dumps(message.metadata, "metadata")}'
        return to_bytes(f'["refused",{message.id},{{{error}}}]', "refused")
    fields = [message.kind, *attrs.astuple(message, recurse=False)]
    try:
        for field in fields:
            if not isinstance(field, str):
                _number(field, "a number")
    except DecodeError as error:
        raise EncodeError(f"{message.kind}: {error}") from None
    return to_bytes(f"[{','.join(map(dumps, fields))}]", message.kind)


def decode_to_client(data: bytes | str) -> ExtensionToClient:
    """A server's message. Raises DecodeError."""
    document, kind, fields = _read(data, _TO_CLIENT)
    if kind == "refused":
        return _refused(document, fields)
    return cast("ExtensionToClient", _make(_TO_CLIENT, kind, fields))


def decode_to_server(data: bytes | str) -> ExtensionToServer:
    """A client's message. Raises DecodeError."""
    _, kind, fields = _read(data, _TO_SERVER)
    return cast("ExtensionToServer", _make(_TO_SERVER, kind, fields))


def _count(raw: object, what: str) -> int:
    if type(raw) is int and 0 <= raw <= MAX_SAFE_INTEGER:
        return raw
    raise DecodeError(f"{what} is no count")


def _number(raw: object, what: str) -> float:
    if type(raw) in (int, float) and 0 <= cast("float", raw) <= MAX_SAFE_INTEGER:
        return cast("float", raw)
    raise DecodeError(f"{what} is no positive number")


def _text(raw: object, what: str) -> str:
    if isinstance(raw, str):
        return raw
    raise DecodeError(f"{what} is not a text")


_Reader: TypeAlias = Callable[[object, str], object]
_Kinds: TypeAlias = Mapping[str, tuple[Callable[..., object], tuple[_Reader, ...]]]

# Each kind, its class, and what follows the kind in the array.
_TO_CLIENT: Final[_Kinds] = {
    "ack": (Ack, (_count,)),
    "session": (SessionOpened, (_text, _number)),
    "resumed": (Resumed, (_count,)),
    "subscribed": (Subscribed, (_count,)),
    "refused": (Refused, (_count, lambda raw, what: raw)),
    "synced": (Synced, (_count,)),
    "dropped": (Dropped, (_text, _count)),
}
_TO_SERVER: Final[_Kinds] = {
    "ack": (Ack, (_count,)),
    "subscribe": (Subscribe, (_count, _text)),
    "sync": (Sync, (_count,)),
    "cancel": (Cancel, (_count,)),
    "timeout": (Timeout, (_count, _number)),
    "bye": (Bye, ()),
}


def _read(data: bytes | str, kinds: _Kinds) -> tuple[Document, str, list[object]]:
    document = Document(data)
    root = document.root
    if not isinstance(root, list) or not root:
        raise DecodeError("an extension message is an array [kind, ...]")
    kind, *fields = cast("list[object]", root)
    if not isinstance(kind, str) or kind not in kinds:
        raise DecodeError(f"no kind of extension message: {str(kind)[:40]!r}")
    if len(fields) != len(kinds[kind][1]):
        raise DecodeError(f"{kind} has {len(kinds[kind][1])} fields, not {len(fields)}")
    return document, kind, fields


def _make(kinds: _Kinds, kind: str, fields: list[object]) -> object:
    make, readers = kinds[kind]
    pairs = enumerate(zip(readers, fields, strict=True), 1)
    return make(*(reader(raw, f"{kind}[{index}]") for index, (reader, raw) in pairs))


def _refused(document: Document, fields: list[object]) -> Refused:
    raw = fields[1]
    if not isinstance(raw, dict):
        raise DecodeError("refused[2] is not an object")
    error = cast("dict[str, object]", raw)
    group, code, message = (_text(error.get(name), f"refused[2].{name}") for name in ("group", "code", "message"))
    metadata = document.value(error["metadata"]) if "metadata" in error else UNDEFINED
    return Refused(_count(fields[0], "refused[1]"), group, code, message, metadata)
