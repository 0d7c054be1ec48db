"""Callbacks that are told what happens to a connection."""

import inspect
import logging
from collections.abc import Callable
from typing import Generic, Literal, TypeAlias

from typing_extensions import TypeVarTuple

from trivet.client.buffer import Missing
from trivet.client.ending import Closed

Args = TypeVarTuple("Args")

Status: TypeAlias = Literal["idle", "connecting", "connected", "disconnected", "closed"]

logger = logging.getLogger("trivet.client")


_ADVICE = "nobody awaits it; let it start a task in a nursery of yours"


def refuse_coroutine(callback: Callable[..., object], result: object, advice: str) -> None:
    """Raise TypeError where a callback that is called without being awaited is async after all."""
    if inspect.iscoroutine(result):
        result.close()
        raise TypeError(f"{callback!r} returned a coroutine; {advice}")


class Observers(Generic[*Args]):
    """Callbacks for one thing that happens to a connection. They are plain functions, and run at its place."""

    def __init__(self, report: Callable[[Exception], None]) -> None:
        self._callbacks: dict[object, Callable[[*Args], object]] = {}
        self._report = report

    def __bool__(self) -> bool:
        return bool(self._callbacks)

    def add(self, callback: Callable[[*Args], object]) -> Callable[[], None]:
        """Returns what removes it; calling that twice does no harm."""
        token = object()
        self._callbacks[token] = callback

        def unsubscribe() -> None:
            self._callbacks.pop(token, None)

        return unsubscribe

    def notify(self, *args: *Args) -> None:
        for token, callback in list(self._callbacks.items()):
            if token in self._callbacks:
                try:
                    refuse_coroutine(callback, callback(*args), _ADVICE)
                except Exception as error:
                    self._report(error)


class Notices:
    """All that the users of one connection can be told. `target` is what it is called in the log."""

    def __init__(self, target: object) -> None:
        self._target = target
        self.error: Observers[Exception] = Observers(self._log)
        self.open: Observers[()] = Observers(self.report)
        self.close: Observers[Closed] = Observers(self.report)
        self.status: Observers[Status] = Observers(self.report)
        self.gap: Observers[Missing] = Observers(self.report)

    def report(self, error: Exception) -> None:
        """An error that has no caller. Without an observer it is logged."""
        if self.error:
            self.error.notify(error)
        else:
            self._log(error)

    def _log(self, error: Exception) -> None:
        logger.error("connection to %s: %s", self._target, error, exc_info=error)
