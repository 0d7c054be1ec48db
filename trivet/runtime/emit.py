"""Events on their way into outboxes: checked and encoded once, then appended for each recipient."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from trivet.definition import ActorDefinition, EventDefinition
from trivet.errors import DefinitionError
from trivet.event import Event
from trivet.limits import Limits
from trivet.protocol.messages import Event as EventMessage
from trivet.protocol.values import Value
from trivet.runtime import answers
from trivet.runtime.connection import Conn
from trivet.runtime.outbox import Format, Outbox

if TYPE_CHECKING:
    from trivet.runtime.session import Session


class Emitter:
    """Who subscribed to what, grouped by the format of their frames, in the order of subscription."""

    def __init__(self, definition: ActorDefinition, limits: Limits) -> None:
        self._definition = definition
        self._limits = limits
        self._subscribers: dict[str, dict[Format, dict[Session, None]]] = {}

    def subscribe(self, session: "Session", name: str) -> None:
        """Add a subscriber."""
        session.subscriptions[name] = None
        self._subscribers.setdefault(name, {}).setdefault(session.format, {})[session] = None

    def unsubscribe(self, session: "Session", name: str) -> None:
        """Remove a subscriber."""
        if name in session.subscriptions:
            del session.subscriptions[name]
            self._remove(session, name)

    def forget(self, session: "Session") -> None:
        """Remove all subscriptions of a connection."""
        for name in session.subscriptions:
            self._remove(session, name)
        session.subscriptions.clear()

    def _remove(self, session: "Session", name: str) -> None:
        by_format = self._subscribers[name]
        of_format = by_format[session.format]
        del of_format[session]
        if not of_format:
            del by_format[session.format]
            if not by_format:
                del self._subscribers[name]

    def broadcast(
        self,
        event: Event[*tuple[Any, ...]] | str,
        args: Sequence[object],
        exclude: "Conn[Any, Any] | str | Iterable[Conn[Any, Any] | str]",
        where: Callable[[Conn[Any, Any]], bool] | None,
    ) -> int:
        """To every subscriber but the excluded. Everything that can fail does so before the first is touched."""
        definition, name = self._resolve(event)
        subscribers = self._subscribers.get(name)
        if not subscribers:
            if self._definition.options.strict:
                self._encode(name, definition, args, ())
            return 0
        groups = _recipients(subscribers, exclude, where)
        frames = self._encode(name, definition, args, groups)
        count = 0
        for format_, outboxes in groups.items():
            frame = frames[format_]
            for outbox in outboxes:
                outbox.put(frame)
            count += len(outboxes)
        return count

    def send(self, session: "Session", event: Event[*tuple[Any, ...]] | str, args: Sequence[object]) -> bool:
        """To one connection, subscribed or not."""
        definition, name = self._resolve(event)
        return session.outbox.put(self._encode(name, definition, args, (session.format,))[session.format])

    def _resolve(self, event: Event[*tuple[Any, ...]] | str) -> tuple[EventDefinition | None, str]:
        if isinstance(event, str):
            definition = self._definition.events.get(event)
            if definition is None and self._definition.options.strict:
                raise DefinitionError(f"{self._definition.name} declares no event {event!r}")
            return definition, event
        definition = self._definition.by_event.get(event)
        if definition is None:
            raise DefinitionError(f"{event!r} is not an event of {self._definition.cls.__qualname__}")
        return definition, definition.name

    def _encode(
        self, name: str, definition: EventDefinition | None, args: Sequence[object], formats: Iterable[Format]
    ) -> dict[Format, bytes]:
        values: list[Value]
        values = [self._definition.dump_any(arg) for arg in args] if definition is None else definition.dump(args)
        message = EventMessage(name, values)
        frames: dict[Format, bytes] = {}
        for format_ in formats:
            payload = format_.codec.encode_to_client(message)
            if len(payload) > self._limits.outgoing_message:
                raise answers.outgoing_too_long()
            frames[format_] = format_.frame(payload)
        return frames


def _recipients(
    subscribers: "dict[Format, dict[Session, None]]",
    exclude: "Conn[Any, Any] | str | Iterable[Conn[Any, Any] | str]",
    where: Callable[[Conn[Any, Any]], bool] | None,
) -> dict[Format, list[Outbox]]:
    excluded = _ids(exclude)
    if not excluded and where is None:
        return {format_: [session.outbox for session in sessions] for format_, sessions in subscribers.items()}
    groups: dict[Format, list[Outbox]] = {}
    for format_, sessions in subscribers.items():
        chosen = [
            session.outbox
            for session in tuple(sessions)
            if session.conn.id not in excluded and (where is None or where(session.conn))
        ]
        if chosen:
            groups[format_] = chosen
    return groups


def _ids(exclude: "Conn[Any, Any] | str | Iterable[Conn[Any, Any] | str]") -> set[str]:
    if isinstance(exclude, Conn):
        return {exclude.id}
    if isinstance(exclude, str):
        return {exclude}
    return {item.id if isinstance(item, Conn) else item for item in exclude}
