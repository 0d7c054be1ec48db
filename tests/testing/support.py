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
    secret = Event(int)

    @secret.can_subscribe
    def nobody(self, conn: Conn[None, object]) -> bool:
        return False

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
