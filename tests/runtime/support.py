"""A transport whose client reads as the test says, and connections over it."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar, cast

import trio
import trio.testing

from trivet.actor import Actor
from trivet.protocol.codec import Codec, codec_for
from trivet.protocol.messages import ActionRequest, ActionResponse, Error, Event, Init, SubscriptionRequest, ToClient
from trivet.protocol.values import UNDEFINED, Value
from trivet.raw import Request
from trivet.runtime.instance import Instance
from trivet.runtime.session import Session

ActorT = TypeVar("ActorT", bound=Actor[Any, Any, Any])

REQUEST: Final = Request("GET", "http://127.0.0.1/connect")


class LineFormat:
    """One message a line."""

    def __init__(self, encoding: str = "json") -> None:
        self.codec = cast("Codec", codec_for(encoding))

    def frame(self, payload: bytes) -> bytes:
        return payload + b"\n"

    def extension_frame(self, payload: bytes) -> bytes:
        return b"+" + payload + b"\n"

    def close_frame(self, code: int, reason: str) -> bytes:
        return f"close {code} {reason}\n".encode()


FORMAT: Final = LineFormat()


class FakeTransport:
    """Takes up to `room` bytes without waiting; `send_all` waits until there is room."""

    def __init__(self, room: float = float("inf")) -> None:
        self.room = room
        self.received = bytearray()
        self.sends = 0
        self.finished = False
        self.aborted = False
        self.broken = False
        self._changed = trio.Event()

    def send_nowait(self, data: bytes) -> int:
        if self.broken:
            raise trio.BrokenResourceError
        taken = int(min(len(data), self.room))
        self._take(data[:taken])
        self.sends += 1
        return taken

    async def send_all(self, data: bytes) -> None:
        while data:
            taken = self.send_nowait(data)
            data = data[taken:]
            if data:
                changed = self._changed
                await changed.wait()
        await trio.lowlevel.checkpoint()

    def _take(self, data: bytes) -> None:
        self.received += data
        self.room -= len(data)
        self._notify()

    def _notify(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    def read(self, size: float = float("inf")) -> None:
        """The client reads so many bytes more."""
        self.room += size
        self._notify()

    def finish(self) -> None:
        self.finished = True
        self._notify()

    def abort(self) -> None:
        self.aborted = True
        self._notify()

    @property
    def lines(self) -> list[str]:
        return self.received.decode().splitlines()

    async def until(self, lines: int) -> None:
        """Wait for so many lines in all."""
        while len(self.lines) < lines and not self.aborted:
            changed = self._changed
            await changed.wait()


class Peer:
    """One client of an actor, as its messages."""

    def __init__(self, session: Session, transport: FakeTransport) -> None:
        self.session = session
        self.transport = transport
        self._ids = 0

    def act(self, name: str, *args: Value) -> int:
        """Send an action; returns its id."""
        self._ids += 1
        self.session.receive(ActionRequest(self._ids, name, list(args)))
        return self._ids

    def subscribe(self, event: str) -> None:
        self.session.receive(SubscriptionRequest(event, True))

    def unsubscribe(self, event: str) -> None:
        self.session.receive(SubscriptionRequest(event, False))

    @property
    def messages(self) -> list[ToClient]:
        """What has arrived, without the close frame."""
        lines = [line for line in self.transport.lines if not line.startswith("close ")]
        return [FORMAT.codec.decode_to_client(line) for line in lines]

    @property
    def closed_with(self) -> str | None:
        return next((line.removeprefix("close ") for line in self.transport.lines if line.startswith("close ")), None)

    @property
    def events(self) -> list[tuple[str, list[Any]]]:
        return [(message.name, list(message.args)) for message in self.messages if isinstance(message, Event)]

    def answer(self, action_id: int) -> Any:
        """The output of an action, or its Error; raises LookupError while there is none."""
        for message in self.messages:
            if isinstance(message, ActionResponse) and message.id == action_id:
                return message.output
            if isinstance(message, Error) and message.action_id == action_id:
                return message
        raise LookupError(f"no answer to action {action_id}")

    async def call(self, name: str, *args: Value) -> Any:
        """Send an action and wait for its answer."""
        action_id = self.act(name, *args)
        while True:
            try:
                return self.answer(action_id)
            except LookupError:
                await self.transport.until(len(self.transport.lines) + 1)


@asynccontextmanager
async def connected(
    instance: Instance, params: Value = UNDEFINED, *, room: float = float("inf"), admitted: bool = True
) -> AsyncGenerator[Peer]:
    """A connection; `admitted` waits for its Init."""
    transport = FakeTransport(room)
    async with instance.open_session(transport, FORMAT, params=params, request=REQUEST) as session:
        peer = Peer(session, transport)
        while admitted and not any(isinstance(message, Init) for message in peer.messages):
            assert peer.closed_with is None, f"refused: {peer.messages}"
            await transport.until(len(transport.lines) + 1)
        yield peer


def actor_of(instance: Instance, cls: type[ActorT]) -> ActorT:
    """The object that lives in `instance`."""
    actor = instance.actor
    assert isinstance(actor, cls)
    return actor


async def settled() -> None:
    """Wait until everything waits."""
    await trio.testing.wait_all_tasks_blocked()
