"""Calling user code that may be sync or async, within a time of its own."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

import trio

from trivet.errors import PublicError

T = TypeVar("T")


async def with_timeout(seconds: float, name: str, fn: Callable[[], Awaitable[T] | T]) -> T:
    """The result of a hook. Raises PublicError `actor.callback_timed_out`. A sync hook runs to its end."""
    result: Any = fn()
    if not isinstance(result, Awaitable):
        value: T = result
        return value
    pending = cast("Awaitable[T]", result)
    with trio.move_on_after(seconds):
        return await pending
    raise PublicError("actor", "callback_timed_out", f"`{name}` took over {seconds:g} s")


def single_public_error(exc: BaseException) -> PublicError | None:
    """The PublicError that an exception is, also when the nursery of an actor's own code has wrapped it."""
    if isinstance(exc, PublicError):
        return exc
    if isinstance(exc, BaseExceptionGroup):
        inner = cast("BaseExceptionGroup[BaseException]", exc).exceptions
        if len(inner) == 1:
            return single_public_error(inner[0])
    return None
