"""Which events a connection is subscribed to, and what the server says to that."""

from collections.abc import Callable, Iterable, Sequence

import attrs
import trio

from trivet.client.outgoing import Frame, Outbound, Outgoing, extension_frame
from trivet.errors import ActorError
from trivet.limits import Limits
from trivet.protocol.codec import Codec
from trivet.protocol.extension import Subscribe
from trivet.protocol.messages import SubscriptionRequest


@attrs.define(eq=False)
class Subscription(Outbound):
    """One request for the events of a name. `settled` once the server has answered it, or will not."""

    id: int
    name: str
    plain: bytes
    settled: trio.Event = attrs.field(factory=trio.Event, init=False)

    def frames(self, extended: bool) -> Sequence[Frame]:
        return [extension_frame(Subscribe(self.id, self.name))] if extended else [Frame(self.plain)]

    def on_taken(self, extended: bool) -> None:
        if not extended:  # there is no answer, and none is needed: it is in force before any later message
            self.settled.set()


@attrs.define(eq=False)
class Unsubscription(Outbound):
    """The end of a subscription, which has no answer. `done` is called when it is on its way."""

    subscription: Subscription
    plain: bytes
    done: Callable[[], object]

    def frames(self, extended: bool) -> Sequence[Frame]:
        return [Frame(self.plain)]

    def on_taken(self, extended: bool) -> None:
        self.done()


class Subscriptions:
    """One subscription for each name that has listeners.

    `refused(name, error)` is called when the server does not grant one.
    """

    def __init__(
        self,
        outgoing: Outgoing,
        codec: Codec,
        limits: Limits,
        new_id: Callable[[], int],
        refused: Callable[[str, ActorError], None],
    ) -> None:
        self._outgoing = outgoing
        self._codec = codec
        self._limits = limits
        self._new_id = new_id
        self._refused = refused
        self._current: dict[str, Subscription] = {}
        self._ending: dict[str, Unsubscription] = {}
        self._attached = False
        self._over = False

    def subscribe(self, name: str) -> None:
        """A name has listeners. Raises ValueError, or ActorError when there are too many."""
        item = self._subscription(name)
        if len(self._current) >= self._limits.subscriptions:
            raise ActorError("connection", "too_many_subscriptions", "Too many subscriptions")
        self._current[name] = item
        if self._over:
            item.settled.set()
        if not self._attached:
            return  # every name is subscribed to once there is a session
        ending = self._ending.pop(name, None)
        if ending is None:
            self._outgoing.put(item)
        else:  # the server never hears that there was nobody for a moment
            self._outgoing.withdraw(ending)
            self._current[name] = ending.subscription

    def unsubscribe(self, name: str) -> None:
        """A name has lost its last listener."""
        item = self._current.pop(name, None)
        if item is None or not self._attached:
            return
        if self._outgoing.withdraw(item):
            return
        plain = self._codec.encode_to_server(SubscriptionRequest(name, False))
        ending = Unsubscription(item, plain, lambda: self._ending.pop(name, None))
        self._ending[name] = ending
        self._outgoing.put(ending)

    def _subscription(self, name: str) -> Subscription:
        if not 0 < len(name.encode()) <= self._limits.event_name:
            raise ValueError(f"an event name has 1 to {self._limits.event_name} bytes")
        return Subscription(self._new_id(), name, self._codec.encode_to_server(SubscriptionRequest(name, True)))

    # -- sessions -----------------------------------------------------------------------------------------------------

    def attach(self) -> Iterable[Outbound]:
        """A session begins: the requests for every name, to be sent first."""
        self._attached = True
        for name, old in self._current.items():
            # Whoever waits for the old one's answer waits for the new one's.
            self._current[name] = new = self._subscription(name)
            new.settled = old.settled if not old.settled.is_set() else new.settled
        return self._current.values()

    def detach(self) -> None:
        """The session is over."""
        self._attached = False
        for item in (*self._current.values(), *self._ending.values()):
            self._outgoing.withdraw(item)
        self._ending.clear()

    # -- answers ------------------------------------------------------------------------------------------------------

    def granted(self, id: int) -> None:
        """The server has put a subscription in force."""
        for item in (*self._current.values(), *(ending.subscription for ending in self._ending.values())):
            if item.id == id:
                item.settled.set()

    def refuse(self, id: int, error: ActorError) -> None:
        """The server has not. One that nobody wants any more is of no interest."""
        for name, item in list(self._current.items()):
            if item.id == id:
                del self._current[name]
                self._refused(name, error)
                item.settled.set()
        for name, ending in list(self._ending.items()):
            if ending.subscription.id == id:  # there is nothing to end
                self._outgoing.withdraw(ending)
                del self._ending[name]

    async def wait(self, name: str) -> None:
        """Wait until a subscription is answered, where it will be, or over."""
        item = self._current.get(name)
        if item is not None and self._outgoing.extended:
            await item.settled.wait()
        else:
            await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """The connection is over: nobody is to wait any more, and nothing is asked for."""
        self._over = True
        self._attached = False
        for item in self._current.values():
            item.settled.set()
