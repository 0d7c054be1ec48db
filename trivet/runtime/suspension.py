"""Knowing when a coroutine suspends for the first time."""

from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import Any


@coroutine
def noticing_suspension(body: Coroutine[Any, Any, None], on_suspend: Callable[[], None]) -> Generator[Any, Any, None]:
    """Await `body`, calling `on_suspend` just before it suspends for the first time, or never if it does not.

    What most turns do is over without suspending; this tells those apart without a task or a flag in every await.
    """
    try:
        trap = body.send(None)
    except StopIteration:
        return
    on_suspend()
    while True:
        try:
            value = yield trap
        except BaseException as exc:  # handed to the body, which decides
            try:
                trap = body.throw(exc)
            except StopIteration:
                return
        else:
            try:
                trap = body.send(value)
            except StopIteration:
                return
