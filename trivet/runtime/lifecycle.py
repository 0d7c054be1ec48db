"""Between waking and sleeping: the phases of an actor, and what leads from one to the next."""

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final


class Phase(Enum):
    """Where an actor that is in memory stands."""

    __hash__ = object.__hash__  # Enum's own is a function in Python, and every life looks itself up in a table

    ASLEEP = auto()
    """It has no task and no instance of the user's class; its connections, if any, wait for it to wake."""
    STARTING = auto()
    """Its hooks up to `on_wake` run."""
    RUNNING = auto()
    DRAINING = auto()
    """It takes no new work, and finishes what had arrived."""
    CLOSING = auto()
    """`on_sleep` or `on_destroy` runs, then what it leaves behind is saved."""
    GONE = auto()
    """It is out of memory: destroyed, or asleep with nobody that waits for it. Another object may be the actor now."""


class Goal(Enum):
    """Why a life ends, and so what comes after it."""

    SLEEP = auto()
    """It was idle, or asked for it: the next request or schedule wakes it. Its connections stay."""
    STOP = auto()
    """Its process ends: asleep, without its connections."""
    DESTROY = auto()
    """It is removed from the store."""
    RESTART = auto()
    """It crashed, or could not save: the next request finds it as it was last saved. Its connections are ended."""


TRANSITIONS: Final[Mapping[Phase, frozenset[Phase]]] = {
    Phase.ASLEEP: frozenset({Phase.STARTING, Phase.GONE}),
    Phase.STARTING: frozenset({Phase.RUNNING, Phase.ASLEEP, Phase.GONE}),
    Phase.RUNNING: frozenset({Phase.DRAINING, Phase.ASLEEP, Phase.GONE}),
    Phase.DRAINING: frozenset({Phase.CLOSING, Phase.ASLEEP, Phase.GONE}),
    Phase.CLOSING: frozenset({Phase.ASLEEP, Phase.GONE}),
    Phase.GONE: frozenset(),
}
"""From RUNNING on, a crash or a cancellation ends a life at once."""

STRONGER: Final[Mapping[Goal, int]] = {Goal.SLEEP: 0, Goal.STOP: 1, Goal.DESTROY: 2, Goal.RESTART: 3}
"""Of two reasons to end, the one with the greater number wins."""


class Lifecycle:
    """The phase of one actor. Every change goes through `move`."""

    __slots__ = ("goal", "phase")

    def __init__(self) -> None:
        self.phase = Phase.ASLEEP
        self.goal: Goal | None = None
        """Why the present life ends; None while nobody wants it to."""

    def move(self, to: Phase) -> None:
        """Go on to another phase. Raises AssertionError for one that does not follow."""
        assert to in TRANSITIONS[self.phase], f"{self.phase.name} is not followed by {to.name}"
        self.phase = to
        if to is Phase.STARTING:
            self.goal = None

    def aim(self, goal: Goal) -> None:
        """Note a reason to end, unless there is a stronger one."""
        if self.goal is None or STRONGER[goal] > STRONGER[self.goal]:
            self.goal = goal

    @property
    def ending(self) -> bool:
        """Whether it takes no new work any more in this life."""
        return self.phase in (Phase.DRAINING, Phase.CLOSING, Phase.GONE)
