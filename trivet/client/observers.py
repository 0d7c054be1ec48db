"""Callbacks that are told what happens to a connection."""

from collections.abc import Callable
from typing import Generic

from typing_extensions import TypeVarTuple

Args = TypeVarTuple("Args")


class Observers(Generic[*Args]):
    """Callbacks for one thing that happens to a connection."""

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
                    callback(*args)
                except Exception as error:
                    self._report(error)
