"""What caused the code that runs, and which turns it holds: context variables, so that overlapping work is apart."""

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs

from trivet.errors import PublicError

if TYPE_CHECKING:
    from trivet.runtime.connection import Conn
    from trivet.runtime.instance import Instance


@attrs.define(eq=False)
class Cause:
    """The actor whose code runs, and the connection that caused it, where there is one."""

    instance: "Instance"
    conn: "Conn[Any, Any] | None" = None
    changes: bool = True
    """Whether it may change what is saved of the actor."""
    readonly: bool = False
    """Whether it is refused where it tries to."""


class Hold:
    """One taking of an actor's turn: who has it, and for which actors' turns its holder waits meanwhile."""

    __slots__ = ("active", "instance", "waits")

    def __init__(self, instance: "Instance") -> None:
        self.instance = instance
        self.active = True
        self.waits: list[tuple[Hold | Claim, Instance]] = []

    @property
    def turn(self) -> "Hold":
        return self


class Caller:
    """Whoever made a call. What the call leaves behind knows this, and keeps nothing of the call itself."""

    __slots__ = ("waits",)

    def __init__(self) -> None:
        self.waits = True


class Claim:
    """A turn that waits for a call, as long as the caller does."""

    __slots__ = ("_caller", "_of", "turn")

    def __init__(self, of: "Hold | Claim", caller: Caller) -> None:
        self._of = of
        self._caller = caller
        self.turn: Hold = of.turn

    @property
    def active(self) -> bool:
        return self._of.active and self._caller.waits


Chain: TypeAlias = tuple[Hold | Claim, ...]
"""The turns that wait for what runs, outermost first: of the actor that called it, of the actor itself, and so on."""

cause: Final[ContextVar[Cause | None]] = ContextVar("trivet_cause", default=None)
chain: Final[ContextVar[Chain]] = ContextVar("trivet_chain", default=())


class Causing:
    """While entered, what runs is caused by `of`, and `holds` are the turns that wait for it."""

    __slots__ = ("_chain_token", "_holds", "_of", "_token")

    def __init__(self, of: Cause, holds: Chain) -> None:
        self._of = of
        self._holds = holds

    def __enter__(self) -> None:
        if self._of.changes:
            self._of.instance.saver.code_begins()
        self._token = cause.set(self._of)
        self._chain_token = chain.set(self._holds)

    def __exit__(self, *_: object) -> None:
        chain.reset(self._chain_token)
        cause.reset(self._token)
        if self._of.changes:
            self._of.instance.saver.code_ends()
        else:
            self._of.changes = True  # a task that it has left behind has promised nothing


def caused_by(
    instance: "Instance", conn: "Conn[Any, Any] | None", holds: Chain | None = None, *, changes: bool = True
) -> Causing:
    """Run user code on behalf of a connection, or of none; `holds` are the turns that wait for it.

    `changes`: it may change the state, or anything else that is saved.
    """
    if holds is None:
        holds = () if instance.turn_hold is None else (instance.turn_hold,)
    return Causing(Cause(instance, conn, changes), holds)


def watched_by(instance: "Instance") -> Causing:
    """Run `on_state_change`, for which the state is read-only."""
    holds = () if instance.turn_hold is None else (instance.turn_hold,)
    return Causing(Cause(instance, instance.current_conn_or_none(), changes=False, readonly=True), holds)


def cause_in(instance: "Instance") -> Cause | None:
    """What caused the running code, where that is code of this actor."""
    found = cause.get()
    return found if found is not None and found.instance is instance else None


def current_chain() -> Chain:
    """The turns held on behalf of the running code. A background task that an action left behind holds none."""
    return _still(chain.get())


def _still(holds: Chain) -> Chain:
    return tuple(hold for hold in holds if hold.active) if holds else holds


def check_deadlock(holds: Chain, target: "Instance") -> None:
    """Raise `actor.deadlock` where waiting for the turn of `target` would wait for one of `holds`.

    The turn of an actor waits for the actors that its holder calls; following that from `target` must not lead back.
    """
    holds = _still(holds)
    if not holds:
        return
    path: list[Instance] = []
    if _leads_to(target, {hold.turn for hold in holds}, path, set()):
        names = [_describe(hold.turn.instance) for hold in holds] + [_describe(instance) for instance in path]
        raise PublicError(
            "actor", "deadlock", f"This call would wait for itself: {' -> '.join(names)}", {"chain": list(names)}
        )


def _leads_to(target: "Instance", turns: set[Hold], path: "list[Instance]", seen: "set[Instance]") -> bool:
    if target in seen:
        return False
    seen.add(target)
    path.append(target)
    hold = target.turn_hold
    if hold is not None:
        if hold in turns:
            return True
        if any(_leads_to(waited, turns, path, seen) for waiting, waited in hold.waits if waiting.active):
            return True
    path.pop()
    return False


def _describe(instance: "Instance") -> str:
    return f"{instance.name}[{','.join(instance.key)}]"


class Waiting:
    """Marks `holds` as waiting for `target` while entered. Raises `actor.deadlock` on entry."""

    __slots__ = ("_holds", "_target")

    def __init__(self, holds: Chain, target: "Instance") -> None:
        self._holds = holds
        self._target = target

    def __enter__(self) -> None:
        check_deadlock(self._holds, self._target)
        for hold in self._holds:
            hold.turn.waits.append((hold, self._target))

    def __exit__(self, *_: object) -> None:
        for hold in self._holds:
            hold.turn.waits.remove((hold, self._target))
