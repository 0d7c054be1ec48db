"""A long search, and what it has to have come to: each file that runs one has a machine of its own."""

from functools import cache
from typing import Final

from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.property.conftest import LONG, SEARCH
from tests.property.machine import DeliveryMachine, Totals

TIMES: Final = 10 if LONG else 1
EXAMPLES: Final = 700 * TIMES
"""Of each of the three machines."""

RULES: Final = (
    "act",
    "act async",
    "act beside",
    "break",
    "cancel",
    "close",
    "come back",
    "connect",
    "emit in background",
    "fall behind",
    "flood",
    "hold",
    "leave",
    "let all happen",
    "let time pass",
    "send several",
    "settle",
    "stop",
    "subscribe",
    "unsubscribe",
)
HAPPENINGS: Final = (
    "call cancelled",
    "call crashed",
    "call ok",
    "call that outlived its connection",
    "call told",
    "cancel of a queued call",
    "cancel of a running call",
    "close 1000",
    "close 1011",
    "dropped cursor",
    "dropped newest",
    "dropped oldest",
    "end with calls waiting",
    "event to several",
    "gap",
    "kick",
    "overlapping calls",
    "partial write",
    "publish that waited",
    "publish that waited in vain",
    "refusal",
    "resume",
    "resume with a replay",
    "stop in time",
    "stop with work queued",
    "too slow",
)

OFTEN: Final = 7
"""In each of the three searches, so that each thing happens 20 times and more in a run."""


@cache
def search(machine: type[DeliveryMachine]) -> Totals:
    """What the search came to. Raises Violation if it has found anything."""
    # The examples are derived from the source of the machine: another machine is another search.
    machine.totals = Totals()
    run_state_machine_as_test(machine, settings=settings(SEARCH, max_examples=EXAMPLES, stateful_step_count=36))
    return machine.totals


def rare(totals: Totals, seldom: frozenset[str] = frozenset()) -> dict[str, int]:
    """What happened less than often, but for what is known to be `seldom` there."""
    expected = [*(f"rule: {name}" for name in RULES), *HAPPENINGS]
    return {what: totals.occurred[what] for what in expected if totals.occurred[what] < OFTEN and what not in seldom}
