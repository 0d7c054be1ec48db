"""What the fixtures share."""

import json
import time
from typing import Any, Generic, TypeAlias, TypeVar, cast

import attrs
import trio

from trivet import Actor, PublicError, UserError, action

Json: TypeAlias = Any
"""Data that the suite itself leaves untyped: it travels as it is."""


@attrs.define
class ValueState:
    value: int = 0


@attrs.define
class NoState:
    """State with nothing in it, for connections and actors of which only the existence matters."""


@attrs.define
class Counts:
    start_count: int = 0
    sleep_count: int = 0


C = TypeVar("C", bound=Counts)


class CountingActor(Actor[C], Generic[C]):
    """It counts how often it wakes and goes to sleep."""

    def on_wake(self) -> None:
        self.state.start_count += 1

    async def on_sleep(self) -> None:
        self.state.sleep_count += 1
        await trio.lowlevel.checkpoint()


class SleepyActor(CountingActor[C], Generic[C]):
    """It can be told to go to sleep, too."""

    @action
    def trigger_sleep(self) -> None:
        self.sleep()


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
