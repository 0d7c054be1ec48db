"""Between users' types and the values that travel."""

from collections.abc import Callable
from typing import Any

from trivet.conversion.annotations import ShapeReader
from trivet.conversion.arms import Choices
from trivet.conversion.hooks import two_speeds
from trivet.conversion.names import camel_case
from trivet.conversion.shapes import Shape
from trivet.conversion.structuring import Structuring
from trivet.conversion.unstructuring import Unstructuring
from trivet.protocol.values import Value


class Converter:
    """Prepares functions for types: what the wire and storage have in common."""

    def __init__(self, rename: Callable[[str], str] | None, *, stored: bool) -> None:
        self._reader = ShapeReader(rename)
        self._choices = Choices()
        self._structuring = [Structuring(self._choices, detailed=detailed, stored=stored) for detailed in (False, True)]
        self._unstructuring = [
            Unstructuring(self._reader, detailed=detailed, stored=stored) for detailed in (False, True)
        ]

    def shape(self, type_: object, what: str | None = None) -> Shape:
        """What the converter knows about a type. `what` names the place of the type in a DefinitionError."""
        return self._reader.read(type_, what or "type")

    def structurer_of(self, shape: Shape) -> Callable[[Value], Any]:
        fast, detailed = (hooks.hook(shape) for hooks in self._structuring)
        convert, forget = two_speeds(fast, detailed), self._choices.forget

        def structure(value: Value) -> Any:
            try:
                return convert(value)
            finally:
                forget()

        return structure

    def unstructurer_of(self, shape: Shape) -> Callable[[Any], Value]:
        fast, detailed = (hooks.hook(shape) for hooks in self._unstructuring)
        return two_speeds(fast, detailed)


class WireConverter(Converter):
    """Between users' types and the values that travel. One for each registry: what it prepared, it keeps.

    Fields of attrs classes and dataclasses have the names that `rename` makes of theirs (of the `__init__` argument,
    where that differs: `_x` travels as `x`), unless their metadata names them (`wire_name`). TypedDicts and dicts keep
    their keys. An instance of a subclass travels with the fields of the declared class; in the place of an undeclared
    type (`object`) with those of its own.

    * Strict: nothing is coerced but an integral float up to 2^53-1 to int, and int to float.
    * Unknown keys are ignored; an undefined field is an absent one. Fields outside of `__init__` are sent, and ignored
      when they come.
    * Enums travel by value, UUID and Decimal as str, date as ISO 8601, timedelta as seconds, tuples and NamedTuples as
      arrays. datetime needs a time zone on its way out, and may come as an ISO 8601 string with an offset. A set may
      come as an array.
    * A union takes the arm that is exactly the value's plain type; else, of the arms that the value structures to, the
      one that leaves the fewest of its keys unknown, the earlier one first.
    """

    def __init__(self, rename: Callable[[str], str] = camel_case) -> None:
        super().__init__(rename, stored=False)

    def structurer(self, type_: object) -> Callable[[Value], Any]:
        """A function from plain values to values of the type; it raises ValidationError, which lists every mistake.

        DefinitionError here and now for a type that cannot travel.
        """
        return self.structurer_of(self.shape(type_))

    def unstructurer(self, type_: object) -> Callable[[Any], Value]:
        """A function from values of the type to plain ones; it raises ValidationError for any other value.

        The plain value shares nothing that can change with the value. DefinitionError for a type that cannot travel.
        """
        return self.unstructurer_of(self.shape(type_))
