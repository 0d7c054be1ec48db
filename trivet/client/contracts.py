"""What an actor class says about its actions and events, as a caller needs it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import attrs

from trivet.actor import Action, Actor
from trivet.conversion import CallSignature, ValidationError, WireConverter, camel_case
from trivet.definition import ActionDefinition, ActorDefinition, define
from trivet.errors import EncodeError
from trivet.event import Event
from trivet.options import Options
from trivet.protocol.values import UNDEFINED, Value

AnyAction: TypeAlias = Action[Any, Any, Any, Any]
AnyEvent: TypeAlias = Event[*tuple[Any, ...]]


@attrs.frozen(eq=False)
class RemoteAction:
    """How to call one action: its name on the wire, and what to do with arguments and result."""

    name: str
    dump: Callable[[Sequence[object], Mapping[str, object]], list[Value]]
    load: Callable[[Value], Any]
    timeout: float | None = None


@attrs.frozen(eq=False)
class RemoteEvent:
    """How to receive one event: its name on the wire, and its payload as positional arguments."""

    name: str
    load: Callable[[Sequence[Value]], Sequence[Any]]
    size: int | None = None
    """How many arguments were declared; None where nothing was."""


def _same_result(value: Value) -> Any:
    return None if value is UNDEFINED else value


def _same_payload(args: Sequence[Value]) -> Sequence[Any]:
    return args


def _check_declared(given: object, kind: type[Any], otherwise: str) -> None:
    if not isinstance(given, kind):
        raise TypeError(f"{getattr(given, '__name__', repr(given))} is {otherwise}")


class Contracts:
    """The definitions of actor classes, each prepared at its first use.

    `known` are definitions that exist already, as those of a registry in the same process.
    """

    def __init__(
        self,
        converter: WireConverter | None = None,
        rename: Callable[[str], str] = camel_case,
        known: Iterable[ActorDefinition] = (),
    ) -> None:
        self._converter = converter or WireConverter(rename)
        self._rename = rename
        self._dump_any = self._converter.unstructurer(object)
        self._definitions: dict[type[Actor[Any, Any, Any]], ActorDefinition] = {one.cls: one for one in known}
        self._actions: dict[AnyAction, RemoteAction] = {}
        self._events: dict[AnyEvent, RemoteEvent] = {}

    def define(self, cls: type[Actor[Any, Any, Any]]) -> ActorDefinition:
        """The definition of a class. Raises DefinitionError."""
        definition = self._definitions.get(cls)
        if definition is None:
            definition = self._definitions[cls] = define(cls, self._converter, self._rename, Options())
        return definition

    def dump(self, value: object) -> Value:
        """A value of no declared type, as it travels. Raises EncodeError."""
        if value is UNDEFINED:
            return UNDEFINED
        try:
            return self._dump_any(value)
        except ValidationError as error:
            raise EncodeError(str(error)) from error

    # -- actions ------------------------------------------------------------------------------------------------------

    def action(self, definition: ActorDefinition | None, action: AnyAction | str) -> RemoteAction:
        """An action by its object, or its name on the wire: then values stay plain. TypeError for another class's."""
        if isinstance(action, str):
            return RemoteAction(action, self._dump_plain, _same_result)
        _check_declared(action, Action, "no action; decorate it with @action")
        if definition is not None:
            known = definition.by_action.get(action)
            if known is None:
                raise TypeError(f"{definition.cls.__name__} has no {action!r}")
            return self._declared(action, known)
        remote = self._actions.get(action)
        if remote is None:
            signature = CallSignature(action.fn, self._converter)
            name = action.wire_name or self._rename(action.attribute)
            remote = RemoteAction(name, signature.dump_args, signature.load_result, action.timeout)
            self._actions[action] = remote
        return remote

    def named_action(self, definition: ActorDefinition | None, path: str) -> RemoteAction | None:
        """An action by its attribute or its name on the wire. None where the class has no such one."""
        if definition is None:
            return self.action(None, path)
        for action, known in definition.by_action.items():
            if path in (known.attribute, known.name):
                return self._declared(action, known)
        return None

    def _declared(self, action: AnyAction, known: ActionDefinition) -> RemoteAction:
        remote = self._actions.get(action)
        if remote is None or remote.name != known.name:
            signature = known.signature
            remote = RemoteAction(known.name, signature.dump_args, signature.load_result, known.timeout)
            self._actions[action] = remote
        return remote

    def _dump_plain(self, args: Sequence[object], kwargs: Mapping[str, object]) -> list[Value]:
        if kwargs:
            raise TypeError("an action that is called by its name on the wire takes positional arguments only")
        return [self.dump(arg) for arg in args]

    # -- events -------------------------------------------------------------------------------------------------------

    def event(self, definition: ActorDefinition | None, event: AnyEvent | str) -> RemoteEvent:
        """An event by its object, or its name on the wire: then payloads stay plain. TypeError for another class's."""
        if isinstance(event, str):
            return RemoteEvent(event, _same_payload)
        _check_declared(event, Event, "no event; declare it with Event(...)")
        if definition is not None:
            known = definition.by_event.get(event)
            if known is None:
                raise TypeError(f"{definition.cls.__name__} has no {event!r}")
            return RemoteEvent(known.name, known.load, len(known.types))
        remote = self._events.get(event)
        if remote is None:
            loaders = [self._converter.structurer(type_) for type_ in event.types]

            def load(args: Sequence[Value]) -> Sequence[Any]:
                padded = [*args, *([UNDEFINED] * (len(loaders) - len(args)))]
                return [loader(arg) for loader, arg in zip(loaders, padded, strict=False)]

            remote = RemoteEvent(event.wire_name or self._rename(event.attribute), load, len(loaders))
            self._events[event] = remote
        return remote
