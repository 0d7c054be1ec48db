"""Bugs to plant in the runtime for one test, each as an honest mistake might be. All patched names are in `PLANTS`."""

from collections.abc import Callable
from typing import Any, Final
from weakref import WeakKeyDictionary

import attrs
import trio

from trivet.protocol import extension
from trivet.protocol.messages import ActionRequest, ToServer
from trivet.protocol.messages import Event as EventMessage
from trivet.runtime import calls, membership
from trivet.runtime.connection import Conn
from trivet.runtime.emit import Emitter
from trivet.runtime.instance import Instance
from trivet.runtime.outbox import Outbox
from trivet.runtime.perform import perform, perform_at_once
from trivet.runtime.session import Session

put = Outbox.put
attach = Outbox.attach
receive = Session.receive
subscribe = Emitter.subscribe
post_disconnect = membership.post_disconnect
forget = membership.forget
dropped_frame = Session._dropped_frame

held: WeakKeyDictionary[Outbox, list[bytes]] = WeakKeyDictionary()


def event_of(outbox: Outbox, frame: bytes) -> int | None:
    """The number of the event in a frame that has one."""
    opcode = outbox.format.frame(b"")[0]
    if frame[0] != opcode:
        return None
    message = outbox.format.codec.decode_to_client(bytes(frame[4 if frame[1] == 126 else 2 :]))
    return int(str(message.args[0])) if isinstance(message, EventMessage) and len(message.args) == 2 else None


def swap_two(self: Outbox, frame: bytes) -> bool:
    if event_of(self, frame) is not None and self not in held:
        held[self] = [frame]
        return True
    done = put(self, frame)
    for late in held.pop(self, []):
        put(self, late)
    return done


def drop_one(self: Outbox, frame: bytes) -> bool:
    return event_of(self, frame) == 1 or put(self, frame)


def double_one(self: Outbox, frame: bytes) -> bool:
    if event_of(self, frame) == 1:
        put(self, frame)
    return put(self, frame)


def answer_first(self: Outbox, frame: bytes) -> bool:
    if event_of(self, frame) is not None:
        held.setdefault(self, []).append(frame)
        return True
    done = put(self, frame)
    for late in held.pop(self, []):
        put(self, late)
    return done


def say_nothing(self: Session, event: str, count: int) -> bytes:
    nothing = extension.encode(extension.Subscribed(1 << 20))
    return self.format.extension_frame(nothing) if self.extended else dropped_frame(self, event, count)


def count_one_more(self: Session, event: str, count: int) -> bytes:
    return dropped_frame(self, event, count + 1)


def lose_one(self: Outbox, transport: Any, received: int) -> bool:
    return attach(self, transport, received + 1) or attach(self, transport, received)


def repeat_one(self: Outbox, transport: Any, received: int) -> bool:
    return attach(self, transport, received - 1) or attach(self, transport, received)


def keep_subscribed(self: Emitter, session: Session, name: str) -> None:
    pass


def subscribe_soon(self: Emitter, session: Session, name: str) -> None:
    async def another_task() -> None:
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        if not session.ended:
            subscribe(self, session, name)

    session.instance.host.tasks.start_soon(another_task)


def handle_soon(self: Session, message: ToServer, **kwargs: Any) -> None:
    async def another_task() -> None:
        receive(self, message, **kwargs)

    if isinstance(message, ActionRequest) and message.id % 2 == 0:
        self.instance.host.tasks.start_soon(another_task)
    else:
        receive(self, message, **kwargs)


def perform_at_once_twice(*args: Any) -> Any:
    perform_at_once(*args)
    return perform_at_once(*args)


async def perform_twice(*args: Any, **kwargs: Any) -> Any:
    await perform(*args, **kwargs)
    return await perform(*args, **kwargs)


def disconnect_twice(instance: Instance, conn: Conn[Any, Any]) -> None:
    post_disconnect(instance, conn)
    post_disconnect(instance, conn)


def disconnect_never(instance: Instance, conn: Conn[Any, Any]) -> None:
    membership.expel(instance, conn)


def leak_a_task(instance: Instance, session: Session) -> None:
    forget(instance, session)
    instance.host.tasks.start_soon(trio.sleep_forever)


@attrs.frozen
class Plant:
    """Replace `target.name`; the machine has to say that one of `rules` is broken."""

    target: object
    name: str
    bug: Callable[..., Any]
    rules: tuple[str, ...]
    length: int = 12
    """How many steps the examples have before they are shrunk. Some detours are not shrunk away."""


PLANTS: Final = (
    Plant(Outbox, "put", swap_two, ("order", "cause", "lost")),
    Plant(Outbox, "put", drop_one, ("lost",)),
    Plant(Outbox, "put", double_one, ("once",)),
    Plant(Outbox, "put", answer_first, ("cause", "lost")),
    Plant(Session, "_dropped_frame", say_nothing, ("lost",)),
    Plant(Session, "_dropped_frame", count_one_more, ("dropped",)),
    Plant(Outbox, "attach", lose_one, ("lost", "answers", "init")),
    Plant(Outbox, "attach", repeat_one, ("once", "answers"), length=6),
    Plant(Emitter, "unsubscribe", keep_subscribed, ("unsubscribed",)),
    Plant(Emitter, "subscribe", subscribe_soon, ("lost",)),
    Plant(Session, "receive", handle_soon, ("start order",)),
    Plant(calls, "perform", perform_twice, ("run once",)),
    Plant(calls, "perform_at_once", perform_at_once_twice, ("run once",)),
    Plant(membership, "post_disconnect", disconnect_twice, ("on_disconnect",)),
    Plant(membership, "post_disconnect", disconnect_never, ("on_disconnect",)),
    Plant(membership, "forget", leak_a_task, ("tasks",)),
)
