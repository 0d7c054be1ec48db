"""Nothing that clients and the actor may do, in whatever order, breaks the delivery contract.

The examples of this search are the evidence for docs/delivery.md, so it is counted what they came to.
"""

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.property.conftest import SEARCH
from tests.property.machine import DeliveryMachine, Totals
from tests.property.model import Entry
from tests.property.search import EXAMPLES, rare, search

pytestmark = pytest.mark.timeout(900)  # whichever test comes first waits for all of the search

MACHINE = DeliveryMachine


def test_nothing_breaks_the_contract() -> None:
    search(MACHINE)


def test_the_search_is_long() -> None:
    assert search(MACHINE).examples >= EXAMPLES
    assert search(MACHINE).steps / search(MACHINE).examples >= 30


def test_the_search_comes_to_everything_often() -> None:
    assert rare(search(MACHINE)) == {}


def test_an_example_is_the_same_each_time() -> None:
    journals: list[list[str]] = []

    class Recording(DeliveryMachine):
        totals = Totals()

        def teardown(self) -> None:
            super().teardown()
            journals.append([_shown(entry) for entry in self.journal])

    short = settings(SEARCH, max_examples=10, stateful_step_count=30, derandomize=True, phases=[Phase.generate])
    run_state_machine_as_test(Recording, settings=short)
    first = journals.copy()
    journals.clear()
    run_state_machine_as_test(Recording, settings=short)
    assert journals == first


def _shown(entry: Entry) -> str:
    """Without the ids of connections, which are random."""
    names = ("id", "event", "what", "call", "how", "recipients")
    return str([getattr(entry, name, None) for name in names])
