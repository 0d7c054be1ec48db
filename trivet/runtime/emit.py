"""Events on their way into outboxes: checked and encoded once, then appended for each recipient."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from trivet.definition import ActorDefinition, EventDefinition
from trivet.errors import DefinitionError
from trivet.event import Event
from trivet.limits import Limits
from trivet.protocol.messages import Event as EventMessage
from trivet.protocol.values import Value
from trivet.runtime import answers
from trivet.runtime.connection import Conn
from trivet.runtime.frames import Droppable
from trivet.runtime.outbox import Backlog, Format, Outbox

if TYPE_CHECKING:
    from trivet.runtime.saving import Saver
    from trivet.runtime.session import Session


@attrs.frozen
class BroadcastResult:
    """What became of an event: how many `recipients` it went to, how many events gave way for it or were left out by
    their overflow policy (`dropped`), and how many of the recipients ended at once for their slowness (`disconnected`;
    mostly they are judged after the flush, and so later).
    """

    recipients: int = 0
    dropped: int = 0
    disconnected: int = 0


class Emitter:
    """Who subscribed to what, grouped by the format of their frames, in the order of subscription."""

    def __init__(self, definition: ActorDefinition, limits: Limits, backlog: Backlog) -> None:
        self._definition = definition
        self._limits = limits
        self._backlog = backlog
        self.gate: Saver | None = None
        """What events wait behind, where they wait for the store."""
        self.emitted = 0
        """Events that had a recipient, since the start."""
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
    ) -> BroadcastResult:
        """To every subscriber but the excluded. Everything that can fail does so before the first is touched."""
        definition, name = self._resolve(event)
        _refuse_block(definition)
        subscribers = self._subscribers.get(name)
        if not subscribers:
            if self._definition.options.strict:
                self._encode(name, definition, args, ())
            return _NOBODY
        groups = _recipients(subscribers, exclude, where)
        return self._emit(groups, self._encode(name, definition, args, groups))

    async def publish(
        self,
        event: Event[*tuple[Any, ...]] | str,
        args: Sequence[object],
        exclude: "Conn[Any, Any] | str | Iterable[Conn[Any, Any] | str]",
        where: Callable[[Conn[Any, Any]], bool] | None,
        timeout: float,
    ) -> BroadcastResult:
        """To every subscriber at once, when all of them have room. Raises trio.TooSlowError."""
        definition, name = self._resolve(event)
        excluded = _ids(exclude)
        await trio.lowlevel.checkpoint()
        with trio.fail_after(timeout):
            while True:
                groups = _recipients(self._subscribers.get(name, {}), excluded, where)
                full = next((box for boxes in groups.values() for box in boxes if box.full), None)
                if full is None:
                    return self._emit(groups, self._encode(name, definition, args, groups))
                full.flush()
                await full.wait_for_room()

    def _emit(self, groups: dict[Format, list[Outbox]], frames: dict[Format, bytes]) -> BroadcastResult:
        if self.gate is None or not groups:
            return self._deliver(groups, frames)
        size = sum(map(len, frames.values()))
        self.gate.check_room(size)
        self.gate.hold(partial(self._deliver, groups, frames), size=size)
        return BroadcastResult(sum(map(len, groups.values())))

    def _deliver(self, groups: dict[Format, list[Outbox]], frames: dict[Format, bytes]) -> BroadcastResult:
        count = 0
        backlog = self._backlog
        dropped, ended = backlog.dropped, backlog.ended
        for format_, outboxes in groups.items():
            frame = frames[format_]
            for outbox in outboxes:
                outbox.put(frame)
            count += len(outboxes)
        if count:
            self.emitted += 1
        return BroadcastResult(count, backlog.dropped - dropped, backlog.ended - ended)

    def send(self, session: "Session", event: Event[*tuple[Any, ...]] | str, args: Sequence[object]) -> bool:
        """To one connection, subscribed or not."""
        definition, name = self._resolve(event)
        _refuse_block(definition)
        frames = self._encode(name, definition, args, (session.format,))
        return self._emit({session.format: [session.outbox]}, frames).recipients > 0 and not session.ended

    async def publish_to(
        self, session: "Session", event: Event[*tuple[Any, ...]] | str, args: Sequence[object], timeout: float
    ) -> bool:
        """To one connection, when it has room. Raises trio.TooSlowError."""
        definition, name = self._resolve(event)
        frames = self._encode(name, definition, args, (session.format,))
        await trio.lowlevel.checkpoint()
        with trio.fail_after(timeout):
            session.outbox.flush()
            await session.outbox.wait_for_room()
        return not session.ended and self._emit({session.format: [session.outbox]}, frames).recipients > 0

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
        policy = "disconnect" if definition is None else definition.policy
        key = None if definition is None or definition.key is None else (definition.key(*args),)
        frames: dict[Format, bytes] = {}
        for format_ in formats:
            payload = format_.codec.encode_to_client(message)
            if len(payload) > self._limits.outgoing_message:
                raise answers.outgoing_too_long()
            frame = format_.frame(payload)
            frames[format_] = frame if policy in ("disconnect", "block") else Droppable(frame, name, policy, key)
        return frames


_NOBODY: Final = BroadcastResult()


def _refuse_block(definition: EventDefinition | None) -> None:
    if definition is not None and definition.policy == "block":
        raise TypeError(
            f"{definition.name} blocks: emit it with `await self.publish(...)` or `await conn.publish(...)`"
        )


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
