"""The bridge between Hypothesis and Trio keeps its promises."""

import pytest
import trio
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule, run_state_machine_as_test

from tests.property.trio_machine import TrioMachine, seed_scheduler, seeds


def schedule(seed: int) -> tuple[int, ...]:
    """In which order eight tasks ran that could all run at once."""
    order: list[int] = []

    async def task(number: int) -> None:
        await trio.lowlevel.checkpoint()
        order.append(number)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(task, number)

    seed_scheduler(seed)
    trio.run(main)
    return tuple(order)


def test_a_seed_gives_one_schedule_and_other_seeds_give_others() -> None:
    assert [schedule(7) for _ in range(3)] == [schedule(7)] * 3
    assert len({schedule(seed) for seed in range(50)}) > 40


def test_a_seed_gives_the_same_schedule_inside_a_hypothesis_test() -> None:
    schedules: dict[int, set[tuple[int, ...]]] = {}

    @settings(max_examples=30, database=None)
    @given(st.integers(0, 9))
    def collect(seed: int) -> None:
        schedules.setdefault(seed, set()).add(schedule(seed))

    collect()
    assert {len(found) for found in schedules.values()} == {1}
    assert len({one for found in schedules.values() for one in found}) > 5


class Reordering(TrioMachine):
    """A queue that forgets its order when two things are put in from different tasks: the bug is in the schedule."""

    @initialize(seed=seeds)
    def begin(self, seed: int) -> None:
        self.start(seed)

    @rule(n=st.integers(1, 5))
    def burst(self, n: int) -> None:
        self.occurred["rule: burst"] += 1
        arrived: list[int] = []

        async def put(item: int) -> None:
            await trio.lowlevel.checkpoint()
            arrived.append(item)

        for item in range(n):
            self.nursery.start_soon(put, item)
        self.settle()
        assert arrived == sorted(arrived)


def started() -> TrioMachine:
    machine = Reordering()
    machine.start(0)
    return machine


def test_a_deadlock_is_an_error() -> None:
    machine = started()
    with pytest.raises(trio.TooSlowError):
        machine.run(trio.Event().wait)
    machine.teardown()


def test_time_passes_only_while_a_rule_waits_for_it() -> None:
    machine = started()
    fired = trio.Event()

    async def fire() -> None:
        await trio.sleep(10)
        fired.set()

    machine.nursery.start_soon(fire)
    machine.settle()
    assert not fired.is_set()
    machine.run(trio.sleep, 10.5)
    assert fired.is_set()
    machine.teardown()


def test_a_task_that_outlives_the_example_is_a_failure() -> None:
    machine = started()
    machine.nursery.start_soon(trio.sleep_forever)
    with pytest.raises(AssertionError, match="sleep_forever"):
        machine.teardown()


def test_what_a_background_task_raises_comes_out_of_the_rule_in_progress() -> None:
    machine = started()

    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise LookupError("in the background")

    machine.nursery.start_soon(fail)
    with pytest.raises(LookupError, match="in the background"):
        machine.run(trio.sleep, 1)
    machine.teardown()


def test_a_race_is_found_and_shrunk() -> None:
    search = settings(max_examples=50, derandomize=True, database=None, phases=[Phase.generate, Phase.shrink])
    with pytest.raises(AssertionError, match=r"assert \[1, 0\] == \[0, 1\]"):
        run_state_machine_as_test(Reordering, settings=search)
    assert Reordering.latest is not None
    assert Reordering.latest.occurred["rule: burst"] == 1
