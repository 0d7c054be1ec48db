"""For tests of actors: a world in memory with a network that fails, the delivery contract, and state machines.

Nothing else of trivet imports this package. `TrioMachine` and its decorators need Hypothesis, and are loaded when they
are used; the rest needs Trio alone.
"""

from typing import TYPE_CHECKING, Any

from trivet.testing.delivery import DeliveryChecker as DeliveryChecker
from trivet.testing.network import Link as Link
from trivet.testing.rules import Violation as Violation
from trivet.testing.store import FaultyStore as FaultyStore
from trivet.testing.world import World as World
from trivet.testing.world import WorldClient as WorldClient

if TYPE_CHECKING:
    from trivet.testing.machine import TrioMachine as TrioMachine
    from trivet.testing.machine import initialize as initialize
    from trivet.testing.machine import invariant as invariant
    from trivet.testing.machine import precondition as precondition
    from trivet.testing.machine import rule as rule

_OF_HYPOTHESIS = ("TrioMachine", "initialize", "invariant", "precondition", "rule")


def __getattr__(name: str) -> Any:
    if name in _OF_HYPOTHESIS:
        from trivet.testing import machine

        return getattr(machine, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
