"""The signature of an action, as both of its sides see it."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from trivet.conversion.converter import WireConverter
from trivet.protocol.values import Value


class BoundArgs(NamedTuple):
    """Arguments ready for the call, and how many more had come than the function takes."""

    args: list[object]
    extra: int


class CallSignature:
    """Prepared once for each action; DefinitionError for a function that cannot be called from afar."""

    def __init__(self, fn: Callable[..., object], converter: WireConverter, skip_first: bool = True) -> None:
        raise NotImplementedError

    def bind(self, args: Sequence[Value]) -> BoundArgs:
        """Arguments as they came, structured. ValidationError with paths such as `args[0].user.age`."""
        raise NotImplementedError

    def dump_args(self, args: Sequence[object], kwargs: Mapping[str, object]) -> list[Value]:
        """Arguments as a caller wrote them, as plain values. TypeError as for a plain call; ValidationError."""
        raise NotImplementedError

    def dump_result(self, value: object) -> Value:
        """The function's result as a plain value. UNDEFINED where the annotation is None. ValidationError."""
        raise NotImplementedError

    def load_result(self, value: Value) -> object:
        """The result at the caller. ValidationError."""
        raise NotImplementedError
