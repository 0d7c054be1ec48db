"""The actor classes that a server hosts, by their names on the wire."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from trivet.actor import Actor
from trivet.conversion import WireConverter, camel_case
from trivet.definition import ActorDefinition, define
from trivet.errors import DefinitionError
from trivet.options import Options


class Registry(Mapping[str, ActorDefinition]):
    """Actor classes, checked and prepared. A Mapping from wire names to definitions.

    `options` are the defaults for every class; `rename` makes wire names from Python's names (default: camelCase).
    Raises DefinitionError for a class that cannot work, and for two of one name.
    """

    def __init__(
        self,
        *classes: type[Actor[Any, Any, Any]],
        options: Options | None = None,
        rename: Callable[[str], str] = camel_case,
    ) -> None:
        self.rename = rename
        self._converter = WireConverter(rename)
        self._definitions: dict[str, ActorDefinition] = {}
        for cls in classes:
            _check_is_class(cls)
            definition = define(cls, self._converter, rename, options or Options())
            if definition.name in self._definitions:
                other = self._definitions[definition.name].cls
                raise DefinitionError(
                    f"{other.__qualname__} and {cls.__qualname__} are both called {definition.name!r} on the wire;"
                    " give one of them a `name`"
                )
            self._definitions[definition.name] = definition

    def __getitem__(self, name: str) -> ActorDefinition:
        return self._definitions[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._definitions)

    def __len__(self) -> int:
        return len(self._definitions)

    def __repr__(self) -> str:
        return f"<Registry {', '.join(self._definitions)}>"


def _check_is_class(cls: object) -> None:
    if isinstance(cls, type) and issubclass(cls, Actor):
        return
    if isinstance(cls, Actor):
        shown = f"an instance of {type(cls).__name__}"  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    else:
        shown = cls.__name__ if isinstance(cls, type) else repr(cls)
    raise DefinitionError(f"{shown} is not an Actor class; pass classes: Registry(A, B)")


def check_registry(registry: object, taker: str) -> None:
    """Raise TypeError, saying what to write, where `taker` was given something else than a Registry."""
    if isinstance(registry, Registry):
        return
    if isinstance(registry, type):
        given, instead = f"the class {registry.__name__}", registry.__name__
    else:
        given, instead = repr(registry), "..."
    raise TypeError(f"{taker} takes a Registry, got {given}; write {taker}(Registry({instead}))")
