"""The delivery contract at the ends: of calls, of connections, of actors."""

import pytest

from tests.property.machine import DeliveryMachine, Totals, numbers
from tests.property.search import EXAMPLES, rare, search
from trivet.testing import rule

pytestmark = pytest.mark.timeout(900)  # whichever test comes first waits for all of the search


class EndingMachine(DeliveryMachine):
    """More is cancelled, left and stopped."""

    totals = Totals()

    @rule(number=numbers)
    def stop_again(self, number: int) -> None:
        """As `stop`."""
        self.stop(number)

    @rule(number=numbers)
    def send_several_again(self, number: int) -> None:
        """As `send_several`."""
        self.send_several(number)

    @rule(number=numbers)
    def cancel_again(self, number: int) -> None:
        """As `cancel`."""
        self.cancel(number)


MACHINE = EndingMachine


def test_nothing_breaks_the_contract() -> None:
    search(MACHINE)


def test_the_search_is_long() -> None:
    assert search(MACHINE).examples >= EXAMPLES
    assert search(MACHINE).steps / search(MACHINE).examples >= 30


def test_the_search_comes_to_everything_often() -> None:
    assert rare(search(MACHINE)) == {}
