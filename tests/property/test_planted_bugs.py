"""The machine finds the bugs that are planted for it, says which rule they break, and shrinks them to a few steps."""

from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.property.conftest import SEARCH
from tests.property.machine import DeliveryMachine, Totals
from tests.property.model import Violation
from tests.property.plants import PLANTS, Plant, held

SHORT = settings(SEARCH, max_examples=1000, derandomize=True)
FEW = 6


class Found(KeyboardInterrupt):
    """Enough: an example is as short as it has to be. Hypothesis stops for an interruption, and shrinks no further."""


class HuntingMachine(DeliveryMachine):
    """Ends the search with a few steps after which one of the rules is broken."""

    totals = Totals()
    expected: ClassVar[tuple[str, ...]]
    """Any of these."""

    def judge(self) -> None:
        try:
            super().judge()
        except Violation as violation:
            if self.steps <= FEW and violation.rule in self.expected:
                raise Found from violation
            raise


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.bug.__name__)
def test_a_planted_bug_is_found_named_and_shrunk(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plant.target, plant.name, plant.bug)
    monkeypatch.setattr(HuntingMachine, "expected", plant.rules, raising=False)
    held.clear()
    with pytest.raises(Found):
        run_state_machine_as_test(HuntingMachine, settings=settings(SHORT, stateful_step_count=plant.length))
