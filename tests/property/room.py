"""An actor that does what it is told and keeps a journal of it."""

from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any, ClassVar, Final, TypeAlias

import attrs
import trio

from tests.property.model import Emit, Entry, Mark
from trivet import Actor, Conn, Event, Limits, Registry, UserError, action, latest

Op: TypeAlias = Sequence[str | int]
"""One thing for the actor to do, `[name, *arguments]`: see `Room.obey`."""

RoomConn: TypeAlias = Conn[None, dict[str, Any]]
Step: TypeAlias = Callable[[], Awaitable[object]]

LIMITS: Final = Limits(outbox_soft_messages=5, outbox_soft_time=5, outbox_hard_messages=60, outbox_hard_bytes=1 << 18)
DROPPABLE: Final = ("oldest", "newest", "cursor")
EVENTS: Final = ("alpha", "oldest", "newest", "cursor", "slow")
"""What may be emitted without waiting."""


class Crash(Exception):
    """A mistake of the actor's author: the client is not told of it, the log is."""


@attrs.define
class Book:
    """What the actors of one example did."""

    journal: list[Entry] = attrs.field(factory=list["Entry"])
    occurred: Counter[str] = attrs.field(factory=Counter[str])
    ids: Iterator[int] = attrs.field(factory=count)
    running: int = 0


class Room(Actor[None, None, dict[str, Any]]):
    """Does the ops that an action, a connection's params or `do_in_background` bring."""

    book: ClassVar[Book]
    """Set for each example."""

    alpha = Event(int, int)
    oldest = Event(int, int, overflow="drop_oldest")
    newest = Event(int, int, overflow="drop_newest")
    cursor = Event(int, int, overflow=latest(lambda _, key: key))
    gentle = Event(int, int, overflow="block")
    slow = Event(int, int)
    """A subscription to it takes its time."""
    forbidden = Event(int, int)

    @slow.can_subscribe
    async def take_your_time(self, conn: RoomConn) -> bool:
        await trio.sleep(0.005)
        return True

    @forbidden.can_subscribe
    def refuse(self, conn: RoomConn) -> bool:
        return False

    # -- what clients call --------------------------------------------------------------------------------------------

    @action
    def act(self, call: int, ops: list[Any]) -> int:
        with self.as_call(call, serial=True):
            for _ in self.obey(ops):
                pass  # a sync action cannot pause
        return call

    @action
    async def act_async(self, call: int, ops: list[Any]) -> int:
        with self.as_call(call, serial=True):
            await self.obey_and_wait(ops)
        return call

    @action(concurrent=True, abandoned="cancel")
    async def act_beside(self, call: int, ops: list[Any]) -> int:
        with self.as_call(call, serial=False):
            await self.obey_and_wait(ops)
        return call

    def do_in_background(self, ops: Sequence[Op]) -> None:
        self.start_soon(self.obey_and_wait, ops)

    # -- hooks --------------------------------------------------------------------------------------------------------

    async def on_connect(self, conn: RoomConn) -> None:
        journal = self.book.journal
        journal.append(Mark("connect", conn.id))
        try:
            await self.obey_and_wait(conn.params["ops"])
        except BaseException:
            journal.append(Mark("rejected", conn.id))
            raise
        journal.append(Mark("admitted", conn.id))

    async def on_disconnect(self, conn: RoomConn) -> None:
        journal = self.book.journal
        journal.append(Mark("disconnect", conn.id))
        try:
            await self.obey_and_wait([["all", "alpha"], ["pause", 1], ["one", conn.params["label"], "alpha"]])
        finally:  # also when the end of the actor cuts it off
            journal.append(Mark("disconnected", conn.id))

    def on_destroy(self) -> None:
        self.book.journal.append(Mark("stopped"))
        self.book.occurred["stop in time"] += 1

    # -- doing and writing down ---------------------------------------------------------------------------------------

    @contextmanager
    def as_call(self, call: int, *, serial: bool) -> Generator[None]:
        book, conn = self.book, self.conn
        book.journal.append(Mark("call", conn.id, call, serial))
        book.running += 1
        book.occurred["overlapping calls"] += book.running > 1
        how = "ok"
        try:
            yield
        except UserError:
            how = "told"
            raise
        except Crash:
            how = "crashed"
            raise
        except trio.Cancelled:
            how = "cancelled"
            raise
        finally:
            book.running -= 1
            book.journal.append(Mark("return", conn.id, call, serial, how))
            book.occurred["call that outlived its connection"] += conn.id not in self.conns
            book.occurred[f"call {how}"] += 1

    async def obey_and_wait(self, ops: Sequence[Op]) -> None:
        for step in self.obey(ops):
            await step()

    def obey(self, ops: Sequence[Op]) -> Generator[Step]:
        """Do them; yields what has to be awaited."""
        for op in ops:
            match op:
                case ["all", str(event)]:
                    self._emit(event, lambda conn: True)
                case ["others", str(event)]:
                    own = self.conn_or_none
                    self._emit(event, partial(_is_other, own), exclude=() if own is None else own)
                case ["where", str(event), int(rest)]:
                    chosen = partial(_is_odd_or_even, rest)
                    self._emit(event, chosen, where=chosen)
                case ["one", int(label), str(event)]:
                    self._send(label, event)
                case ["flood", str(event), int(times)]:
                    for _ in range(times):
                        self._emit(event, lambda conn: True)
                case ["publish", int(milliseconds)]:
                    yield partial(self._publish, milliseconds / 1000)
                case ["publish to", int(label), int(milliseconds)]:
                    yield partial(self._publish_to, label, milliseconds / 1000)
                case ["kick", int(label)]:
                    if (conn := self._find(label)) is not None:
                        self.book.journal.append(Mark("kick", conn.id))
                        self.book.occurred["kick"] += 1
                        self.book.occurred["kick with calls waiting"] += conn.statistics().unanswered_calls > 1
                        conn.disconnect("out")
                case ["later", int(milliseconds), str(event)]:
                    self.do_in_background([["pause", milliseconds], ["all", event]])
                case ["pause", int(milliseconds)]:
                    yield partial(trio.sleep, milliseconds / 1000)
                case ["fail"]:
                    raise UserError("as told")
                case ["crash"]:
                    raise Crash
                case _:
                    raise AssertionError(op)

    def _emit(self, event: str, meant: Callable[[RoomConn], bool], **choice: Any) -> None:
        number = next(self.book.ids)
        entry = self._write_down(number, event, meant)
        entry.recipients = self.broadcast(getattr(self, event), number, number % 2, **choice).recipients
        self.book.occurred["event to several"] += entry.recipients > 1

    async def _publish(self, timeout: float) -> None:
        number, full = next(self.book.ids), self._full()
        try:
            result = await self.publish(self.gentle, number, 0, timeout=timeout)
        except trio.TooSlowError:
            self.book.occurred["publish that waited in vain"] += 1
        else:  # there was no pause since it was emitted
            self._write_down(number, "gentle", lambda conn: True).recipients = result.recipients
            self._note_wait(full)

    async def _publish_to(self, label: int, timeout: float) -> None:
        conn = self._find(label)
        if conn is None:
            return
        number, full = next(self.book.ids), self._full()
        try:
            sent = await conn.publish(self.gentle, number, 0, timeout=timeout)
        except trio.TooSlowError:
            self.book.occurred["publish that waited in vain"] += 1
        else:
            if sent:
                entry = self._write_down(number, "gentle", lambda one: one is conn)
                entry.targeted, entry.recipients = True, 1
                self._note_wait(full)

    def _full(self) -> set[str]:
        bound = LIMITS.outbox_soft_messages
        return {conn.id for conn in self.conns.values() if conn.statistics().queued_messages > bound}

    def _note_wait(self, full: set[str]) -> None:
        self.book.occurred["publish that waited"] += bool(full - self._full())

    def _send(self, label: int, event: str) -> None:
        conn = self._find(label)
        if conn is not None:
            number = next(self.book.ids)
            entry = self._write_down(number, event, lambda one: one is conn)
            entry.targeted = True
            entry.recipients = conn.send(getattr(self, event), number, number % 2)

    def _write_down(self, number: int, event: str, meant: Callable[[RoomConn], bool]) -> Emit:
        conns = self.conns.values()
        to = frozenset(conn.id for conn in conns if meant(conn))
        entry = Emit(number, event, to, frozenset(conn.id for conn in conns), droppable=event in DROPPABLE)
        self.book.journal.append(entry)
        return entry

    def _find(self, label: int) -> RoomConn | None:
        return self.conns.find(lambda conn: conn.params["label"] == label)


def _is_other(own: RoomConn | None, conn: RoomConn) -> bool:
    return conn is not own


def _is_odd_or_even(rest: int, conn: RoomConn) -> bool:
    return bool(conn.params["label"] % 2 == rest)


REGISTRY: Final = Registry(Room)
