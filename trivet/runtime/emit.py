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
from trivet.runtime.audience import Audience
from trivet.runtime.backlog import Backlog
from trivet.runtime.connection import Conn
from trivet.runtime.flush import Flusher
from trivet.runtime.frames import Droppable
from trivet.runtime.outbox import Outbox
from trivet.runtime.transport import Format

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


@attrs.frozen
class _Group:
    """Recipients with frames of one format: `chosen`, or where that is None `everybody` of an audience but `others`."""

    format: Format
    chosen: list[Outbox] | None
    audience: Audience | None = None
    everybody: tuple[Outbox, ...] = ()
    others: dict[Outbox, None] = attrs.field(factory=dict[Outbox, None])

    @property
    def boxes(self) -> list[Outbox]:
        """Whom it is for."""
        return [box for box in self.everybody if box not in self.others] if self.chosen is None else self.chosen

    @property
    def size(self) -> int:
        return len(self.everybody) - len(self.others) if self.chosen is None else len(self.chosen)

    def put(self, frame: bytes) -> None:
        boxes: Iterable[Outbox]
        if self.chosen is not None:
            boxes = self.chosen
        elif self.audience is not None and self.audience.everybody is self.everybody:
            self.audience.put(frame, self.others)
            return
        else:  # it had to wait for the store, and meanwhile the audience has changed
            boxes = self.boxes
        for box in boxes:
            box.put(frame)

    def first_full(self) -> Outbox | None:
        """One over its soft bound that a flush does not help."""
        boxes: Iterable[Outbox] = self.chosen or ()
        if self.audience is not None and self.chosen is None:
            if self.audience.full:
                self.audience.flush_all()
            boxes = [box for box in self.audience.apart if box not in self.others]  # the others have taken it
        return next((box for box in boxes if box.full), None)


class Emitter:
    """Who subscribed to what."""

    # Without __slots__, so that `trivet.testing` can put its own in the place of one emitter's methods.

    def __init__(self, definition: ActorDefinition, limits: Limits, backlog: Backlog, flusher: Flusher) -> None:
        self._definition = definition
        self._limits = limits
        self._backlog = backlog
        self._flusher = flusher
        self.gate: Saver | None = None
        """What events wait behind, where they wait for the store."""
        self.emitted = 0
        """Events that had a recipient, since the start."""
        self._audiences: dict[tuple[Format, frozenset[str]], Audience] = {}
        self._by_event: dict[str, dict[Audience, None]] = {}

    def subscribe(self, session: "Session", name: str) -> None:
        """Add a subscriber."""
        session.subscriptions[name] = None
        self._move(session)

    def unsubscribe(self, session: "Session", name: str) -> None:
        """Remove a subscriber."""
        if name in session.subscriptions:
            del session.subscriptions[name]
            self._move(session)

    def forget(self, session: "Session") -> None:
        """Remove all subscriptions of a connection."""
        if session.subscriptions:
            session.subscriptions.clear()
            self._move(session)

    def _move(self, session: "Session") -> None:
        """To the audience of its subscriptions."""
        old = session.outbox.audience
        if old is not None:
            old.remove(session)
            if not old.members:
                del self._audiences[old.format, old.names]
                for name in old.names:
                    audiences = self._by_event[name]
                    del audiences[old]
                    if not audiences:
                        del self._by_event[name]
        names = frozenset(session.subscriptions)
        if not names:
            return
        audience = self._audiences.get((session.format, names))
        if audience is None:
            audience = Audience(session.format, names, self._flusher, self._backlog)
            self._audiences[session.format, names] = audience
            for name in names:
                self._by_event.setdefault(name, {})[audience] = None
        audience.add(session)

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
        audiences = self._by_event.get(name)
        if not audiences:
            if self._definition.options.strict:
                self._encode(name, definition, args, ())
            return _NOBODY
        groups = _groups(audiences, exclude, where)
        return self._emit(groups, self._encode(name, definition, args, _formats(groups)), definition)

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
                groups = _groups(self._by_event.get(name, {}), excluded, where)
                full = next((box for group in groups if (box := group.first_full())), None)
                if full is None:
                    return self._emit(groups, self._encode(name, definition, args, _formats(groups)), definition)
                full.flush()
                await full.wait_for_room()

    def _emit(
        self, groups: list[_Group], frames: dict[Format, bytes], definition: EventDefinition | None
    ) -> BroadcastResult:
        gate = self.gate
        if gate is None or not groups:
            return self._deliver(groups, frames)
        if definition is not None and not definition.gated:
            return self._deliver_ungated(groups, frames, gate)
        size = sum(map(len, frames.values()))
        gate.check_room(size)
        boxes = [box for group in groups for box in group.boxes] if gate.tracks else ()
        gate.hold(partial(self._deliver, groups, frames), size=size, boxes=boxes)
        return BroadcastResult(sum(group.size for group in groups))

    def _deliver_ungated(self, groups: list[_Group], frames: dict[Format, bytes], gate: "Saver") -> BroadcastResult:
        """At once, but to those for whom something is held after that."""
        for group in groups:
            frame, boxes = frames[group.format], group.boxes
            if not any(map(gate.holds_for, boxes)):
                group.put(frame)
                continue
            for box in boxes:
                if gate.holds_for(box):
                    gate.check_room(len(frame))
                    gate.hold(partial(box.put, frame), size=len(frame), boxes=(box,))
                else:
                    box.put(frame)
        self.emitted += 1
        return BroadcastResult(sum(group.size for group in groups))

    def _deliver(self, groups: list[_Group], frames: dict[Format, bytes]) -> BroadcastResult:
        backlog = self._backlog
        dropped, ended = backlog.dropped, backlog.ended
        count = 0
        for group in groups:
            count += group.size
            group.put(frames[group.format])
        if count:
            self.emitted += 1
        return BroadcastResult(count, backlog.dropped - dropped, backlog.ended - ended)

    def send(self, session: "Session", event: Event[*tuple[Any, ...]] | str, args: Sequence[object]) -> bool:
        """To one connection, subscribed or not."""
        definition, name = self._resolve(event)
        _refuse_block(definition)
        frames = self._encode(name, definition, args, (session.format,))
        self._emit([_Group(session.format, [session.outbox])], frames, definition)
        return not session.ended

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
        if session.ended:
            return False
        self._emit([_Group(session.format, [session.outbox])], frames, definition)
        return not session.ended

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
        hash(key)  # raises here, where it is the emitter's mistake
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


def _formats(groups: list[_Group]) -> Iterable[Format]:
    return dict.fromkeys(group.format for group in groups)


def _groups(
    audiences: Iterable[Audience],
    exclude: "Conn[Any, Any] | str | Iterable[Conn[Any, Any] | str]",
    where: Callable[[Conn[Any, Any]], bool] | None,
) -> list[_Group]:
    excluded = _ids(exclude)
    groups: list[_Group] = []
    for audience in tuple(audiences):
        if where is None:
            others = {audience.members[conn_id].outbox: None for conn_id in excluded if conn_id in audience.members}
            group = _Group(audience.format, None, audience, audience.everybody, others)
        else:
            chosen: list[Outbox] = []
            others = dict[Outbox, None]()
            for conn_id, session in tuple(audience.members.items()):
                if conn_id not in excluded and where(session.conn):
                    chosen.append(session.outbox)
                else:
                    others[session.outbox] = None
            # The fewer are told apart from their audience.
            if len(chosen) < len(others):
                group = _Group(audience.format, chosen)
            else:
                group = _Group(audience.format, None, audience, audience.everybody, others)
        if group.size:
            groups.append(group)
    return groups


def _ids(exclude: "Conn[Any, Any] | str | Iterable[Conn[Any, Any] | str]") -> set[str]:
    if isinstance(exclude, Conn):
        return {exclude.id}
    if isinstance(exclude, str):
        return {exclude}
    return {item.id if isinstance(item, Conn) else item for item in exclude}
