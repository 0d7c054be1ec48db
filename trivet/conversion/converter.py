"""Between users' types and the values that travel."""

from collections.abc import Callable
from typing import Any

from trivet.conversion.names import camel_case
from trivet.protocol.values import Value


class WireConverter:
    """Prepares the functions that structure and unstructure values of declared types. One for each registry."""

    def __init__(self, rename: Callable[[str], str] = camel_case) -> None:
        self.rename = rename

    def structurer(self, type_: object) -> Callable[[Value], Any]:
        """From a plain value to one of `type_`; the function raises ValidationError. DefinitionError here."""
        raise NotImplementedError

    def unstructurer(self, type_: object) -> Callable[[Any], Value]:
        """From a value of `type_` to a plain one; the function raises ValidationError. DefinitionError here."""
        raise NotImplementedError
