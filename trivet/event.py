"""Events as actor classes declare them."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, TypeAlias, TypeVar, cast, get_args, overload

from typing_extensions import TypeVarTuple, Unpack

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

_NOT_GIVEN: Final = object()


class Event(Generic[*Payload]):
    """An event that an actor emits, declared in its class body.

        message_received = Event(Message)          # one payload
        game_started = Event()                     # none
        moved = Event(str, int)                    # several, positional
        score = Event[int | None]()                # a type that is not a class

    On the wire it is called `messageReceived`, or what `name` says. `can_subscribe(actor, conn)` decides, sync or
    async, who may subscribe: anything but True refuses that subscriber with `auth.forbidden`. It runs in the
    connection's own task within `Limits.connect_hook_timeout`.
    """

    @overload
    def __init__(self, *, name: str | None = None, can_subscribe: SubscribeHook | None = None) -> None: ...
    @overload
    def __init__(
        self: "Event[T1]",
        type1: type[T1],
        /,
        *,
        name: str | None = None,
        can_subscribe: SubscribeHook | None = None,
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
    ) -> None: ...
    def __init__(self, *types: object, name: str | None = None, can_subscribe: SubscribeHook | None = None) -> None:
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
