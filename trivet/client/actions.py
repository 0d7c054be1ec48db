"""Actions as methods, for convenience and for callers that do not have the actor's class."""

from collections.abc import Awaitable, Callable
from typing import Any

from trivet.client.contracts import Contracts, RemoteAction
from trivet.definition import ActorDefinition

Caller = Callable[[RemoteAction, tuple[Any, ...], dict[str, Any]], Awaitable[Any]]


class ActionsProxy:
    """`proxy.send_message("bob", "hi")` calls the action of that name; `proxy.calculator.add(1, 2)` a nested one.

    With an actor class a name is the method's or the one on the wire, and arguments and results are typed values.
    Without one it is the name on the wire as it is written, and they are plain.
    """

    def __init__(
        self, contracts: Contracts, definition: ActorDefinition | None, caller: Caller, path: str = ""
    ) -> None:
        self._contracts = contracts
        self._definition = definition
        self._caller = caller
        self._path = path

    def __getattr__(self, name: str) -> "ActionsProxy":
        if name.startswith("__"):  # protocols that look for methods shall not find actions
            raise AttributeError(name)
        path = f"{self._path}.{name}" if self._path else name
        if self._definition is not None:
            names = [name for one in self._definition.by_action.values() for name in (one.attribute, one.name)]
            if not any(name == path or name.startswith(path + ".") for name in names):
                raise AttributeError(f"{self._definition.cls.__name__} has no action {path!r}")
        return ActionsProxy(self._contracts, self._definition, self._caller, path)

    def __call__(self, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        action = self._contracts.named_action(self._definition, self._path) if self._path else None
        if action is None:
            raise TypeError(f"{self._path or 'the proxy itself'!r} is not an action")
        return self._caller(action, args, kwargs)
