"""The actor classes that a server hosts, by their names on the wire."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from trivet.actor import Actor, Options
from trivet.conversion import WireConverter, camel_case
from trivet.definition import ActorDefinition, define
from trivet.errors import DefinitionError


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
