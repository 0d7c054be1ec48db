"""The signature of an action, as both of its sides see it."""

import inspect
import typing
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from inspect import Parameter
from types import NoneType
from typing import Any, NamedTuple

import attrs

from trivet.conversion.annotations import type_hints
from trivet.conversion.arms import admits_undefined
from trivet.conversion.converter import WireConverter
from trivet.conversion.errors import Issue, ValidationError
from trivet.conversion.paths import Gathering
from trivet.conversion.shapes import ANYTHING
from trivet.errors import DefinitionError
from trivet.protocol.values import UNDEFINED, Value


class BoundArgs(NamedTuple):
    """Arguments ready for the call, and how many more had come than the function takes."""

    args: list[object]
    extra: int


@attrs.frozen(eq=False)
class _Position:
    name: str
    default: Any
    structure: Callable[[Value], Any]
    unstructure: Callable[[Any], Value]
    required: bool

    @property
    def missing(self) -> Issue:
        return Issue("", f"missing ({self.name})")


class CallSignature:
    """What calls to a function look like from outside: positional arguments and a result, all plain values.

    Prepared once for each function. DefinitionError for one that cannot be called from afar: each parameter needs an
    annotation; `*args: T` is fine, `**kwargs` and keyword-only parameters without default are not. A keyword-only
    parameter with default is the function's own business: calls from outside never set it.

    `skip_first` leaves out `self`.
    """

    def __init__(self, fn: Callable[..., object], converter: WireConverter, skip_first: bool = True) -> None:
        self.name = getattr(fn, "__qualname__", repr(fn)).rpartition("<locals>.")[2]
        signature = inspect.signature(fn)
        parameters = list(signature.parameters.values())[1 if skip_first else 0 :]
        hints = type_hints(fn, f"{self.name}()")
        positional: list[Parameter] = []
        self._positions: list[_Position] = []
        self._rest: _Position | None = None
        for parameter in parameters:
            if parameter.kind is Parameter.KEYWORD_ONLY and parameter.default is not Parameter.empty:
                continue
            position = self._position(parameter, hints, converter)
            positional.append(parameter)
            if parameter.kind is Parameter.VAR_POSITIONAL:
                self._rest = position
            else:
                self._positions.append(position)
        self._signature = signature.replace(parameters=positional)
        self._needed = sum(parameter.default is Parameter.empty for parameter in positional) - (self._rest is not None)
        self._structure = [position.structure for position in self._positions]
        result = _result_type(hints["return"]) if "return" in hints else object
        self.returns_nothing = result in (None, NoneType)
        shape = converter.shape(result, f"the result of {self.name}()")
        self._structure_result = converter.structurer_of(shape)
        self._unstructure_result = converter.unstructurer_of(shape)

    def _position(self, parameter: Parameter, hints: Mapping[str, Any], converter: WireConverter) -> _Position:
        what = f"the parameter {parameter.name!r} of {self.name}()"
        if parameter.kind is Parameter.VAR_KEYWORD:
            raise DefinitionError(f"{what}: arguments travel by position; declare them one by one instead of **")
        if parameter.kind is Parameter.KEYWORD_ONLY:
            raise DefinitionError(f"{what}: arguments travel by position; give it a default or move it before the *")
        if parameter.name not in hints:
            raise DefinitionError(f"{what} has no annotation; add one (`object` for any plain value)")
        shape = converter.shape(hints[parameter.name], what)
        default = parameter.default
        required = default is Parameter.empty
        if required and shape is not ANYTHING and admits_undefined(shape):
            default, required = UNDEFINED, False
        return _Position(
            parameter.name, default, converter.structurer_of(shape), converter.unstructurer_of(shape), required
        )

    def bind(self, args: Sequence[Value]) -> BoundArgs:
        """Arguments as they came, structured. One that is absent or UNDEFINED takes the parameter's default; extra ones
        are counted. ValidationError with paths such as `args[0].user.age`, for a missing one
        `args[1]: missing (role)`.
        """
        count = len(args)
        if count == len(self._positions) and UNDEFINED not in args:
            try:
                return BoundArgs([structure(value) for structure, value in zip(self._structure, args, strict=True)], 0)
            except ValidationError:
                pass  # found again below, with its place
        bound: list[object] = []
        gathering = Gathering()
        for index, position in enumerate(self._positions):
            value = args[index] if index < count else UNDEFINED
            if value is UNDEFINED and not position.required:
                bound.append(position.default)
            elif index >= count:
                gathering.add([position.missing], f"args[{index}]")
            else:
                try:
                    bound.append(position.structure(value))
                except ValidationError as error:
                    issues = [position.missing] if value is UNDEFINED else error.issues
                    gathering.add(issues, f"args[{index}]")
        extra = max(0, count - len(self._positions))
        if self._rest is not None and extra:
            for index in range(len(self._positions), count):
                try:
                    bound.append(self._rest.structure(args[index]))
                except ValidationError as error:
                    gathering.add(error.issues, f"args[{index}]")
            extra = 0
        gathering.check()
        return BoundArgs(bound, extra)

    def dump_args(self, args: Sequence[object], kwargs: Mapping[str, object]) -> list[Value]:
        """Arguments as a caller wrote them, as plain values by position: UNDEFINED stands for a default that was
        skipped, and those at the end are left out.

        TypeError for a call that Python would refuse; ValidationError for values that are not of their types.
        """
        if kwargs or len(args) < self._needed or (self._rest is None and len(args) > len(self._positions)):
            args = self._by_position(args, kwargs)
        gathering = Gathering()
        dumped: list[Value] = []
        for index, value in enumerate(args):
            position = self._positions[index] if index < len(self._positions) else self._rest
            if position is None:
                break
            if value is UNDEFINED and not position.required:
                dumped.append(UNDEFINED)
                continue
            try:
                dumped.append(position.unstructure(value))
            except ValidationError as error:
                gathering.add(error.issues, f"args[{index}]")
        gathering.check()
        if self._rest is None:
            while dumped and dumped[-1] is UNDEFINED and not self._positions[len(dumped) - 1].required:
                dumped.pop()
        return dumped

    def _by_position(self, args: Sequence[object], kwargs: Mapping[str, object]) -> list[object]:
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}(): {error}") from None
        values: list[object] = [bound.arguments.get(position.name, UNDEFINED) for position in self._positions]
        for parameter in self._signature.parameters.values():
            if parameter.kind is Parameter.VAR_POSITIONAL:
                values.extend(bound.arguments.get(parameter.name, ()))
        return values

    def dump_result(self, value: object) -> Value:
        """The function's result as a plain value: JavaScript's undefined where the annotation is None, though a None of
        any other type is null. ValidationError.
        """
        plain = self._unstructure_result(value)
        return UNDEFINED if self.returns_nothing else plain

    def load_result(self, value: Value) -> object:
        """The result at the caller. Where the annotation is None, it is None whatever came. ValidationError."""
        return None if self.returns_nothing else self._structure_result(value)


def _result_type(annotation: Any) -> Any:
    """What is left to the caller of a function that returns an awaitable."""
    if typing.get_origin(annotation) in (Awaitable, Coroutine):
        return typing.get_args(annotation)[-1]
    return annotation
