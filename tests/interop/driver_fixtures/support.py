"""What the fixtures share."""

import json
import time
from typing import Any, TypeAlias, cast

import attrs

from trivet import PublicError, UserError

Json: TypeAlias = Any
"""Data that the suite itself leaves untyped: it travels as it is."""


@attrs.define
class ValueState:
    value: int = 0


@attrs.define
class NoState:
    """State with nothing in it, for connections and actors of which only the existence matters."""


def now_ms() -> int:
    """Milliseconds since the epoch, as `Date.now()`."""
    return time.time_ns() // 1_000_000


def not_supported(what: str) -> UserError:
    """What a fixture raises where it would need a part of RivetKit that trivet does not have."""
    return UserError(f"{what} is not supported yet", code="not_supported")


def forbidden() -> PublicError:
    return PublicError("auth", "forbidden", "Forbidden")


def dump(**message: Json) -> str:
    """A raw WebSocket message as JSON."""
    return json.dumps(message, separators=(",", ":"))


def parse(message: str | bytes) -> dict[str, Json]:
    """A raw WebSocket message that is a JSON object; of any other nothing."""
    if isinstance(message, bytes):
        return {}
    try:
        parsed: Json = json.loads(message)
    except ValueError:
        return {}
    return cast("dict[str, Json]", parsed) if isinstance(parsed, dict) else {}
