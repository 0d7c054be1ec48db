"""Events as actor classes declare them."""

from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Generic, Literal, TypeAlias, TypeVar, cast, get_args, overload

import attrs
from typing_extensions import TypeVarTuple, Unpack

from trivet.errors import DefinitionError

Ts = TypeVarTuple("Ts")
Payload = TypeVarTuple("Payload", default=Unpack[tuple[()]])  # so that Event() is the event without a payload
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")

# The hook of one event: `(actor, conn) -> bool`, sync or async. Its parameters are the declaring class's own types,
# which an Event does not know.
SubscribeHook: TypeAlias = Callable[[Any, Any], bool | Awaitable[bool]]
HookT = TypeVar("HookT", bound=SubscribeHook)

OverflowPolicy: TypeAlias = Literal["disconnect", "drop_oldest", "drop_newest", "latest", "block"]


@attrs.frozen
class Latest(Generic[*Ts]):
    """The overflow policy made by `latest`."""

    key: Callable[[*Ts], Hashable]


def latest(key: Callable[[*Ts], Hashable]) -> Latest[*Ts]:
    """Overflow policy: of the events that wait for a slow client only the latest of each key matters.

    `key` is called with the payload, once for each emit: `Event(Cursor, overflow=latest(lambda cursor: cursor.user))`.
    Where all events of a name are alike, say `overflow="latest"`.
    """
    return Latest(key)


def _all_alike(*_: object) -> Hashable:
    return None


class Event(Generic[*Payload]):
    """An event that an actor emits, declared in its class body.

        message_received = Event(Message)          # one payload
        game_started = Event()                     # none
        moved = Event(str, int)                    # several, positional
        score = Event[int | None]()                # a type that is not a class

    On the wire it is called `messageReceived`, or what `name` says. `can_subscribe(actor, conn)` decides, sync or
    async, who may subscribe: anything but True refuses that subscriber with `auth.forbidden`. It runs in the
    connection's own task within `Limits.connect_hook_timeout`. RivetKit's protocol has no frame for a refusal: its
    clients are told by the end of their whole connection, 1011 `auth.forbidden`, as with RivetKit.

    `overflow` says what happens when a recipient is slow, that is, when its outbox has reached its soft bound:

    * "disconnect" (default): nothing is left out; the connection ends by its bounds.
    * "drop_oldest", "drop_newest", `latest(key)`: events give way, and the client is told how many, where the first of
      them stood. A fast client gets all of them.
    * "block": such an event is emitted with `await self.publish(...)` or `await conn.publish(...)` alone, which wait.

    With `gated=False` it waits for no commit, under whatever durability: for what tells nothing of the state, such as
    who is typing. It still comes after everything that was sent to the same connection before.
    """

    @overload
    def __init__(
        self,
        *,
        name: str | None = None,
        can_subscribe: SubscribeHook | None = None,
        overflow: OverflowPolicy | Latest[*Payload] = "disconnect",
        gated: bool = True,
    ) -> None: ...
    @overload
    def __init__(
        self: "Event[T1]",
        type1: type[T1],
        /,
        *,
        name: str | None = None,
        can_subscribe: SubscribeHook | None = None,
        overflow: OverflowPolicy | Latest[T1] = "disconnect",
        gated: bool = True,
    ) -> None: ...
    @overload
    def __init__(
        self: "Event[T1, T2]",
        type1: type[T1],
        type2: type[T2],
        /,
        *,
        name: str | None = None,
        can_subscribe: SubscribeHook | None = None,
        overflow: OverflowPolicy | Latest[T1, T2] = "disconnect",
        gated: bool = True,
    ) -> None: ...
    @overload
    def __init__(
        self: "Event[T1, T2, T3]",
        type1: type[T1],
        type2: type[T2],
        type3: type[T3],
        /,
        *,
        name: str | None = None,
        can_subscribe: SubscribeHook | None = None,
        overflow: OverflowPolicy | Latest[T1, T2, T3] = "disconnect",
        gated: bool = True,
    ) -> None: ...
    @overload
    def __init__(
        self: "Event[T1, T2, T3, T4]",
        type1: type[T1],
        type2: type[T2],
        type3: type[T3],
        type4: type[T4],
        /,
        *,
        name: str | None = None,
        can_subscribe: SubscribeHook | None = None,
        overflow: OverflowPolicy | Latest[T1, T2, T3, T4] = "disconnect",
        gated: bool = True,
    ) -> None: ...
    def __init__(
        self,
        *types: object,
        name: str | None = None,
        can_subscribe: SubscribeHook | None = None,
        overflow: OverflowPolicy | Latest[*tuple[Any, ...]] = "disconnect",
        gated: bool = True,
    ) -> None:
        if not isinstance(overflow, Latest) and overflow not in get_args(OverflowPolicy):
            raise DefinitionError(
                f"overflow={overflow!r}: use one of {', '.join(get_args(OverflowPolicy))}, or latest(key)"
            )
        for type_ in types:
            if isinstance(type_, (dict, list, set)):
                raise DefinitionError(f"Event({type_!r}): give a type, such as dict[str, int] or an attrs class")
        self.policy: OverflowPolicy = "latest" if isinstance(overflow, Latest) else overflow
        """What happens to it when a recipient is slow."""
        self.key: Callable[..., Hashable] | None = overflow.key if isinstance(overflow, Latest) else None
        """With the policy "latest": which events a later one makes out of date."""
        if overflow == "latest":
            self.key = _all_alike
        self.gated = gated
        """Whether it waits until what it may tell is saved."""
        self._types = types
        self._subscribe_hook = can_subscribe
        self.wire_name = name
        """The name on the wire where it was given, else None: derived from the attribute's name."""
        self.attribute = ""
        """The name in the class body."""

    def __set_name__(self, owner: type, name: str) -> None:
        if not self.attribute:
            self.attribute = name

    @property
    def types(self) -> tuple[object, ...]:
        """The declared types of the payload, by position."""
        # `Event[int | None]()` leaves its types here, set by typing after __init__ has run.
        generic: object = getattr(self, "__orig_class__", None)
        return self._types or get_args(generic)

    @property
    def subscribe_hook(self) -> SubscribeHook | None:
        """The hook that decides who may subscribe."""
        return self._subscribe_hook

    def can_subscribe(self, hook: HookT) -> HookT:
        """Decorator form of the `can_subscribe` argument, for a method of the same class body."""
        self._subscribe_hook = cast("SubscribeHook", hook)
        return hook

    def __repr__(self) -> str:
        return f"<Event {self.wire_name or self.attribute}>"
