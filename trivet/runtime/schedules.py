"""What an actor has asked for at later times: kept with its state, and waking it."""

import difflib
import json
import math
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, cast, overload
from uuid import uuid4
from zoneinfo import ZoneInfo

import attrs
from cronsim import CronSim, CronSimError

from trivet.actor import Action, Actor
from trivet.conversion import dump_values, load_values
from trivet.definition import ActionDefinition
from trivet.errors import DefinitionError, PublicError
from trivet.protocol.values import Value
from trivet.runtime.beside import run_scheduled
from trivet.runtime.timers import TimerHandle

if TYPE_CHECKING:
    from trivet.runtime.instance import Instance

A = TypeVar("A", bound=Actor[Any, Any, Any])
P = ParamSpec("P")

# The clock on the wall may be set while a timer runs: it is looked at again after so many seconds.
_LOOK_AGAIN: Final = 60.0


@attrs.frozen
class Schedule:
    """One thing to come. `due` is in seconds since 1970; a one-time schedule has neither `every` nor `cron`."""

    id: str
    action: str
    args: tuple[Value, ...]
    due: float
    every: float | None = None
    """Seconds between its times."""
    cron: str | None = None
    timezone: str = "UTC"


class Schedules:
    """`self.schedule`: actions to be run later, in a turn of their own, with nobody waiting for their result.

    A schedule is kept with the actor's state, and its removal in the same commit as what its action did: after a crash
    an action either has run and is gone, or runs (again, if it had awaited something, with the state of the last
    commit). It wakes an actor that sleeps, and survives a restart of the server; what was due meanwhile runs once. An
    action that raises is logged, and not repeated before its next time. Actions that are due together run in the order
    of their times.

    At most `Limits.schedules` of one actor wait: PublicError `schedule.max_schedules_exceeded`.
    """

    __slots__ = (
        "_changed",
        "_entries",
        "_fired",
        "_instance",
        "_lives",
        "_timer",
    )

    def __init__(self, instance: "Instance", stored: Mapping[str, bytes], *, lives: bool) -> None:
        """Those of one life, which begins with what was kept. Once it `lives`, they fire."""
        self._instance = instance
        self._entries = {id_: _load(id_, data) for id_, data in stored.items()}
        self._changed: dict[str, None] = {}  # dicts are smaller than sets while they are empty
        self._fired: dict[str, None] = {}
        self._timer: TimerHandle | None = None
        self._lives = lives

    # -- what users call ----------------------------------------------------------------------------------------------

    @overload
    def after(
        self, seconds: float | timedelta, action: Action[A, P, Any, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> str: ...
    @overload
    def after(self, seconds: float | timedelta, action: str, /, *args: object) -> str: ...
    def after(self, seconds: float | timedelta, action: Any, /, *args: Any, **kwargs: Any) -> str:
        """Run an action once, in so many seconds, or after a timedelta. Returns the id of the schedule.

        This and the others take `Room.ring`, an action of this class, or its name on the wire: then the arguments are
        plain. Raises DefinitionError for an action that there is not, TypeError for what is none and for too many
        arguments, ValidationError for arguments that do not fit.
        """
        return self._add(uuid4().hex, action, args, kwargs, due=self.now() + _seconds(seconds, 0))

    @overload
    def at(
        self, when: datetime | float, action: Action[A, P, Any, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> str: ...
    @overload
    def at(self, when: datetime | float, action: str, /, *args: object) -> str: ...
    def at(self, when: datetime | float, action: Any, /, *args: Any, **kwargs: Any) -> str:
        """Run an action once, at a datetime (one without a time zone is local) or a number of seconds since 1970."""
        due = when.timestamp() if isinstance(when, datetime) else _number(when, "a datetime or a number of seconds")
        if not math.isfinite(due):
            raise ValueError(f"{when!r} is no time")
        return self._add(uuid4().hex, action, args, kwargs, due=due)

    @overload
    def every(
        self,
        name: str,
        seconds: float | timedelta,
        action: Action[A, P, Any, Any],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> str: ...
    @overload
    def every(self, name: str, seconds: float | timedelta, action: str, /, *args: object) -> str: ...
    def every(self, name: str, seconds: float | timedelta, action: Any, /, *args: Any, **kwargs: Any) -> str:
        """Run an action again and again, the first time in so many seconds, or a timedelta. `name` is its id.

        The same call again changes nothing, so that `on_wake` is a good place for it; another one of that name takes
        its place. A time at which the last run has not ended, or at which nothing lived, is left out.
        """
        period = _seconds(seconds, 0.001)
        return self._add(name, action, args, kwargs, due=self.now() + period, every=period)

    @overload
    def cron(
        self, name: str, expression: str, action: Action[A, P, Any, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> str: ...
    @overload
    def cron(self, name: str, expression: str, action: str, /, *args: object) -> str: ...
    def cron(self, name: str, expression: str, action: Any, /, *args: Any, **kwargs: Any) -> str:
        """Run an action at the times of a cron expression: `"0 3 * * MON-FRI"`, in UTC.

        Another time zone stands before it: `"TZ=Europe/Berlin 0 3 * * *"`. Otherwise as `every`. Raises ValueError for
        an expression that cannot be read, or has no times.
        """
        timezone, expression = _split_timezone(expression)
        due = _next_time(expression, timezone, self.now())
        return self._add(name, action, args, kwargs, due=due, cron=expression, timezone=timezone)

    def now(self) -> float:
        """Seconds since 1970, by the clock that schedules go by: in tests the virtual one."""
        return self._instance.host.wall_clock()

    def list(self) -> "list[Schedule]":
        """What is to come, the next first."""
        return sorted(self._entries.values(), key=lambda one: one.due)

    def get(self, id_: str) -> Schedule | None:
        """The schedule of that id or name, if it is still to come."""
        return self._entries.get(id_)

    def cancel(self, id_: str) -> bool:
        """Take one back. False when there is none (any more). One whose action is running is not repeated."""
        if id_ not in self._entries:
            return False
        self._remove(id_)
        return True

    # -- what the runtime calls ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """From now on, fire."""
        self._lives = True
        self._arm()

    def stop(self) -> None:
        """Fire no more in this life."""
        self._lives = False
        self._disarm()

    def take_changes(self) -> dict[str, bytes | None]:
        """What has changed since the last time."""
        changed, self._changed = self._changed, {}
        entries = self._entries
        return {id_: _dump(entries[id_]) if id_ in entries else None for id_ in changed}

    @property
    def next_due(self) -> float | None:
        """When the actor must live."""
        return min((entry.due for entry in self._entries.values()), default=None)

    def finished(self, entry: Schedule) -> None:
        """An action that was due has run."""
        self._fired.pop(entry.id, None)
        if self._entries.get(entry.id) is not entry:
            return  # cancelled or replaced meanwhile
        due = self._following(entry)
        if due is None:
            self._remove(entry.id)
        else:
            self._set(attrs.evolve(entry, due=due))

    def _following(self, entry: Schedule) -> float | None:
        now = self.now()
        if entry.every is not None:
            # The times stay where they were from the beginning on; those that have passed are left out.
            missed = math.floor((now - entry.due) / entry.every) if now > entry.due else 0
            return entry.due + (missed + 1) * entry.every
        if entry.cron is not None:
            return _next_time(entry.cron, entry.timezone, max(now, entry.due))
        return None

    # -- inside -------------------------------------------------------------------------------------------------------

    def _add(
        self,
        id_: str,
        action: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        due: float,
        every: float | None = None,
        cron: str | None = None,
        timezone: str = "UTC",
    ) -> str:
        definition = self._definition(action)
        if isinstance(action, str):
            values = [self._instance.definition.dump_any(arg) for arg in args]
            if definition.signature.bind(values).extra:
                raise TypeError(f"{definition.attribute} cannot take {len(values)} arguments")
        else:
            values = definition.signature.dump_args(args, kwargs)
        entry = Schedule(id_, definition.name, tuple(load_values(dump_values(values))), due, every, cron, timezone)
        old = self._entries.get(id_)
        if old is not None and attrs.evolve(old, due=due) == entry:
            return id_
        limit = self._instance.host.limits.schedules
        if old is None and len(self._entries) >= limit:
            raise PublicError("schedule", "max_schedules_exceeded", f"An actor has at most {limit} schedules.")
        self._set(entry)
        return id_

    def _definition(self, action: object) -> ActionDefinition:
        definition = self._instance.definition
        name = definition.cls.__name__
        known = definition.by_action
        if isinstance(action, str):
            found = definition.action(action)
            if found is None:
                meant = _nearest(action, known.values())
                hint = f"; did you mean {meant!r}?" if meant else ""
                raise DefinitionError(f"{definition.name} has no action {action!r} that could be scheduled{hint}")
            return found
        if isinstance(action, Action):
            found = known.get(cast("Action[Any, Any, Any, Any]", action))  # type: ignore[redundant-cast]  # pyright infers unknowns
            if found is None:
                raise DefinitionError(f"{definition.name} has no action {action!r} that could be scheduled")
            return found
        fn = getattr(action, "__func__", action)
        method = next((one.attribute for made, one in known.items() if made.fn is fn), None)
        if method is not None:
            raise TypeError(f"schedule the action, not its method: write {name}.{method} instead of self.{method}")
        shown = getattr(action, "__qualname__", repr(action))
        raise TypeError(f"{shown} is no action of {name}, and only these can be scheduled; decorate it with @action")

    def _set(self, entry: Schedule) -> None:
        self._entries[entry.id] = entry
        self._note_change(entry.id)

    def _remove(self, id_: str) -> None:
        del self._entries[id_]
        self._note_change(id_)

    def _note_change(self, id_: str) -> None:
        self._changed[id_] = None
        self._instance.saver.touch()
        if self._lives:
            self._arm()

    def _arm(self) -> None:
        self._disarm()
        due = min((entry.due for entry in self._entries.values() if entry.id not in self._fired), default=None)
        if due is not None:
            delay = min(max(0.0, due - self.now()), _LOOK_AGAIN)
            self._timer = self._instance.host.timers.call_later(delay, self._fire)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        now = self.now()
        for entry in self.list():
            if entry.due <= now and entry.id not in self._fired:
                self._fired[entry.id] = None
                run_scheduled(self._instance, entry)
        self._arm()


def _number(value: object, wanted: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is not {wanted}")
    return float(value)


def _seconds(value: object, least: float) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else _number(value, "seconds or a timedelta")
    if not least <= seconds < math.inf:
        raise ValueError(f"{value!r} is no number of seconds from {least:g} up")
    return seconds


def _nearest(name: str, known: Collection[ActionDefinition]) -> str | None:
    """The name on the wire that was probably meant."""
    names = {one.attribute: one.name for one in known} | {one.name: one.name for one in known}
    return next((names[near] for near in difflib.get_close_matches(name, names, 1)), None)


def _split_timezone(expression: str) -> tuple[str, str]:
    if not expression.startswith("TZ="):
        return "UTC", expression
    zone, _, rest = expression[3:].partition(" ")
    return zone, rest.strip()


def _next_time(expression: str, timezone: str, after: float) -> float:
    """The first time of a cron expression after a moment. Raises ValueError."""
    try:
        zone = ZoneInfo(timezone)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"there is no time zone {timezone!r}") from None
    try:
        return next(CronSim(expression, datetime.fromtimestamp(after, UTC).astimezone(zone))).timestamp()
    except CronSimError as error:
        raise ValueError(f"the cron expression {expression!r} cannot be read: {error}") from None
    except StopIteration:
        raise ValueError(f"the cron expression {expression!r} has no times") from None


def _dump(entry: Schedule) -> bytes:
    fields: dict[str, object] = {"action": entry.action, "due": entry.due}
    if entry.every is not None:
        fields["every"] = entry.every
    if entry.cron is not None:
        fields |= {"cron": entry.cron, "timezone": entry.timezone}
    head = json.dumps(fields, separators=(",", ":")).encode()
    return head[:-1] + b',"args":' + dump_values(entry.args) + b"}"


def _load(id_: str, data: bytes) -> Schedule:
    fields: dict[str, Any] = json.loads(data)
    args = load_values(json.dumps(fields["args"]).encode())
    return Schedule(
        id_,
        fields["action"],
        tuple(args),
        fields["due"],
        fields.get("every"),
        fields.get("cron"),
        fields.get("timezone", "UTC"),
    )
