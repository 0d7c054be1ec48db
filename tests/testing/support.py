"""Actors for the tests of the kit."""

import attrs
import trio

from trivet import Actor, Conn, Event, Registry, UserError, action


@attrs.define
class Counted:
    count: int = 0


class Counter(Actor[Counted, None, object]):
    """Tells its connections each new count."""

    counted = Event(int)
    said = Event(str)
    flagged = Event(int, overflow="drop_newest")
    secret = Event(int)

    slow = Event(int)

    @secret.can_subscribe
    def nobody(self, conn: Conn[None, object]) -> bool:
        return False

    @slow.can_subscribe
    async def everybody_in_the_end(self, conn: Conn[None, object]) -> bool:
        await trio.sleep(2)
        return True

    def on_disconnect(self, conn: Conn[None, object]) -> None:
        self.broadcast(self.said, "somebody left")

    @action
    def increment(self, times: int = 1) -> int:
        for _ in range(times):
            self.state.count += 1
            self.broadcast(self.counted, self.state.count)
        return self.state.count

    @action
    def say(self, text: str) -> str:
        self.broadcast(self.said, text)
        return text

    @action
    def whisper(self, text: str) -> None:
        self.conn.send(self.said, text)

    @action
    def tell_others(self, text: str) -> None:
        self.broadcast(self.said, text, exclude=self.conn)

    @action
    def flag(self, numbers: list[int]) -> None:
        for number in numbers:
            self.broadcast(self.flagged, number)

    @action
    def tell_slowly(self, number: int) -> None:
        self.broadcast(self.slow, number)

    @action
    def tell_secret(self) -> None:
        self.broadcast(self.secret, 1)

    @action
    def flag_me(self) -> None:
        """The filter has an answer for the caller alone."""
        chosen = {self.conn.id: True}
        self.broadcast(self.flagged, 0, where=lambda conn: chosen[conn.id])

    @action
    async def say_patiently(self, text: str) -> None:
        await self.publish(self.said, text)
        await self.conn.publish(self.said, f"{text} to you")

    @action(concurrent=True)
    async def beside(self) -> None:
        await trio.lowlevel.checkpoint()

    @action
    async def wait(self, seconds: float) -> None:
        await trio.sleep(seconds)

    @action
    def emit_nonsense(self) -> None:
        self.broadcast("anything", object())

    @action
    def fail(self) -> None:
        raise UserError("no")

    @action(readonly=True)
    def get_count(self) -> int:
        return self.state.count


REGISTRY = Registry(Counter)
