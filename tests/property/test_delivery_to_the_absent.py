"""The delivery contract for clients that are mostly away, or on their way back."""

import pytest

from tests.property.machine import DeliveryMachine, Totals, numbers
from tests.property.search import EXAMPLES, rare, search
from trivet.testing import rule

pytestmark = pytest.mark.timeout(900)  # whichever test comes first waits for all of the search


class AbsentMachine(DeliveryMachine):
    """Transports break twice as often, and more is emitted meanwhile."""

    totals = Totals()

    @rule(number=numbers)
    async def break_again(self, number: int) -> None:
        """As `break_`."""
        await self.break_(number)

    @rule(number=numbers)
    def flood_again(self, number: int) -> None:
        """As `flood`."""
        self.flood(number)


MACHINE = AbsentMachine


def test_nothing_breaks_the_contract() -> None:
    search(MACHINE)


def test_the_search_is_long() -> None:
    assert search(MACHINE).examples >= EXAMPLES
    assert search(MACHINE).steps / search(MACHINE).examples >= 30


def test_the_search_comes_to_everything_often() -> None:
    assert rare(search(MACHINE)) == {}
