"""The envelope that JSON and CBOR share, `{"body": {"tag": ..., "val": {...}}}`, read from its decoded form.

Fields that a message does not have are ignored.
"""

from collections.abc import Mapping
from typing import Final, Protocol, TypeAlias, cast

from trivet.errors import ActorRef, DecodeError, EncodeError
from trivet.protocol import compat
from trivet.protocol.bare import MAX_UINT
from trivet.protocol.messages import (
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

_Object: TypeAlias = Mapping[str, object]

_ABSENT: Final = object()


class Source(Protocol):
    """What decoded the message. Its values may still wait to be revived."""

    def value(self, raw: object) -> Value:
        """The value of a raw one."""
        ...

    def id(self, raw: object) -> int:
        """The id of an action."""
        ...


def _object(raw: object, what: str) -> _Object:
    if isinstance(raw, dict):
        return cast("_Object", raw)
    raise DecodeError(f"{what} is not an object")


def _str(val: _Object, name: str) -> str:
    raw = val.get(name, _ABSENT)
    if isinstance(raw, str):
        return raw
    raise DecodeError(f"{name} is {'missing' if raw is _ABSENT else 'not a text'}")


def tag_and_val(root: object) -> tuple[str, _Object]:
    """The tag of the message and its fields."""
    body = _object(_object(root, "the message").get("body"), "body")
    return _str(body, "tag"), _object(body.get("val"), "val")


def read_id(raw: object) -> int:
    """An action's id: a number, or a BigInt in whatever form. Raises DecodeError outside 0 to 2^64-1."""
    if isinstance(raw, list):
        items = cast("list[object]", raw)
        if len(items) == 2 and items[0] == compat.BIGINT_MARKER:
            raw = compat.bigint(items[1])
    if isinstance(raw, int) and not isinstance(raw, bool) and 0 <= raw <= MAX_UINT:
        return raw
    raise DecodeError("an action id that is no unsigned 64-bit integer")


def check_id(value: int, name: str = "id") -> int:
    """The id, if it can be sent. Raises EncodeError."""
    if type(value) is int and 0 <= value <= MAX_UINT:
        return value
    raise EncodeError(f"{name}: not an unsigned 64-bit integer")


def read_args(args: Value) -> list[Value]:
    """The arguments of an action, read as leniently as RivetKit does: none, or one that is not in an array."""
    if isinstance(args, list):
        return args
    return [] if args is None or args is UNDEFINED else [args]


def read_to_client(root: object, source: Source) -> ToClient:
    """A server's message. Raises DecodeError."""
    tag, val = tag_and_val(root)
    match tag:
        case "Event":
            args = source.value(val.get("args"))
            if not isinstance(args, list):
                raise DecodeError("args is not an array")
            return Event(_str(val, "name"), args)
        case "ActionResponse":
            if "output" not in val:
                raise DecodeError("output is missing")
            return ActionResponse(source.id(val.get("id")), source.value(val["output"]))
        case "Error":
            action_id = val.get("actionId")
            return read_error(val, source, None if action_id is None else source.id(action_id))
        case "Init":
            return Init(_str(val, "actorId"), _str(val, "connectionId"))
        case _:
            raise DecodeError(f"a message to a client with the tag {ascii(tag)[:40]}")


def read_to_server(root: object, source: Source) -> ToServer:
    """A client's message. Raises DecodeError."""
    tag, val = tag_and_val(root)
    match tag:
        case "ActionRequest":
            return ActionRequest(source.id(val.get("id")), _str(val, "name"), read_args(source.value(val.get("args"))))
        case "SubscriptionRequest":
            subscribe = val.get("subscribe")
            if not isinstance(subscribe, bool):
                raise DecodeError("subscribe is not a boolean")
            return SubscriptionRequest(_str(val, "eventName"), subscribe)
        case _:
            raise DecodeError(f"a message to a server with the tag {ascii(tag)[:40]}")


def read_error(raw: object, source: Source, action_id: int | None = None) -> Error:
    """The fields of an error, in a message or as the body of an HTTP answer. Raises DecodeError."""
    val = _object(raw, "the error")
    actor = val.get("actor")
    return Error(
        _str(val, "group"),
        _str(val, "code"),
        _str(val, "message"),
        source.value(val["metadata"]) if "metadata" in val else UNDEFINED,
        action_id,
        None if actor is None else _actor(_object(actor, "actor")),
    )


def _actor(actor: _Object) -> ActorRef:
    key = actor.get("key")
    if not (key is None or isinstance(key, str)):
        raise DecodeError("actor.key is not a text")
    return ActorRef(_str(actor, "actorId"), read_id(actor.get("generation")), key)


def read_action_request(root: object, source: Source) -> list[Value]:
    """The arguments in the body of a stateless call. Raises DecodeError."""
    return read_args(source.value(_object(root, "the body").get("args")))


def read_action_response(root: object, source: Source) -> Value:
    """The result in the answer to a stateless call. Raises DecodeError."""
    val = _object(root, "the body")
    if "output" not in val:
        raise DecodeError("output is missing")
    return source.value(val["output"])
