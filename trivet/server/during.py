"""A context that is small, for what lasts as long as a connection."""

from collections.abc import Callable
from typing import Generic, TypeVar

T_co = TypeVar("T_co", covariant=True)


class During(Generic[T_co]):
    """Gives a value, and undoes at the end what was done for it. A generator's frame would be five times as large."""

    __slots__ = ("_undo", "_value")

    def __init__(self, value: T_co, undo: Callable[[], None]) -> None:
        self._value = value
        self._undo = undo

    def __enter__(self) -> T_co:
        return self._value

    def __exit__(self, *_: object) -> None:
        self._undo()
