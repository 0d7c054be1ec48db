"""The actor of the durability tests: it writes down all that it does, so that what is missing can be told.

trivet serve tests.faults.ledger:registry --data DIR
"""

import math

import attrs
import trio

from trivet import Actor, Conn, Event, Options, Registry, action


@attrs.define
class Book:
    lines: list[str] = attrs.field(factory=list[str])
    came: list[str] = attrs.field(factory=list[str])
    left: list[str] = attrs.field(factory=list[str])
    lives: int = 0


@attrs.frozen
class Page:
    """What a ledger remembers."""

    lines: list[str]
    came: list[str]
    left: list[str]
    lives: int
    planned: int


class Ledger(Actor[Book, None]):
    """Every line has its number, is told to those who listen, and to who wrote it."""

    options = Options(durability="gated", sleep_after=math.inf)
    written = Event(int, str)

    def on_wake(self) -> None:
        self.state.lives += 1

    def on_connect(self, conn: Conn) -> None:
        if conn.kind == "events":
            self.state.came.append(conn.id)

    def on_disconnect(self, conn: Conn) -> None:
        if conn.kind == "events":
            self.state.left.append(conn.id)

    def _note(self, text: str) -> int:
        number = len(self.state.lines)
        self.state.lines.append(text)
        self.broadcast(self.written, number, text)
        return number

    @action
    def write(self, text: str) -> int:
        return self._note(text)

    @action
    async def write_twice(self, text: str) -> list[int]:
        """A snapshot may be taken between the two, by whatever else is saved."""
        first = self._note(f"{text}, first")
        await trio.sleep(0.002)
        return [first, self._note(f"{text}, second")]

    @action(concurrent=True)
    async def write_beside(self, text: str) -> int:
        await trio.sleep(0.001)
        return self._note(text)

    @action
    def plan(self, seconds: float, text: str) -> str:
        return self.schedule.after(seconds, Ledger.write, text)

    @action
    def tick(self, seconds: float) -> None:
        self.schedule.every("tick", seconds, Ledger.note_tick)

    @action
    def note_tick(self) -> None:
        self._note(f"tick in life {self.state.lives}")

    @action
    def rest(self) -> None:
        self.schedule.cancel("tick")
        self.sleep()

    @action(readonly=True)
    def page(self) -> Page:
        state = self.state
        planned = sum(entry.every is None for entry in self.schedule.list())
        return Page(list(state.lines), list(state.came), list(state.left), state.lives, planned)


registry = Registry(Ledger)
