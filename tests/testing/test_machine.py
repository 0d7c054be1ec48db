"""The bridge between Hypothesis and Trio keeps its promises."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, run_state_machine_as_test
from trio._core import _run

from trivet.testing import TrioMachine, initialize, invariant, precondition, rule
from trivet.testing.scheduling import seed_scheduler


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


def test_a_trio_that_cannot_be_seeded_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_run, "_r", None)
    with pytest.raises(RuntimeError, match="cannot seed it"):
        seed_scheduler(0)


class Reordering(TrioMachine):
    """A queue that forgets its order when two things are put in from different tasks: the bug is in the schedule."""

    bursts = 0

    @rule(n=st.integers(1, 5))
    async def burst(self, n: int) -> None:
        Reordering.bursts = n
        arrived: list[int] = []

        async def put(item: int) -> None:
            await trio.lowlevel.checkpoint()
            arrived.append(item)

        for item in range(n):
            self.nursery.start_soon(put, item)
        await trio.testing.wait_all_tasks_blocked()
        assert arrived == sorted(arrived)


def test_a_race_is_found_and_shrunk() -> None:
    search = settings(max_examples=50, derandomize=True, database=None, phases=[Phase.generate, Phase.shrink])
    with pytest.raises(AssertionError, match=r"assert \[1, 0\] == \[0, 1\]") as caught:
        run_state_machine_as_test(Reordering, settings=search)
    assert Reordering.bursts == 2
    assert "\n".join(caught.value.__notes__).count("burst") == 1


def test_every_kind_of_method_may_be_async() -> None:
    done: list[str] = []

    @asynccontextmanager
    async def context() -> AsyncGenerator[list[str]]:
        done.append("entered")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            yield done
            nursery.cancel_scope.cancel()
        done.append("left")

    class Everything(TrioMachine):
        things = Bundle[int]("things")

        async def open(self) -> None:
            await trio.sleep(1)
            assert await self.enter(context()) is done

        @initialize(target=things)
        async def first(self) -> int:
            await trio.sleep(1)
            return 1

        @precondition(lambda self: self.is_ready)
        @rule(thing=things)
        async def use(self, thing: int) -> None:
            await trio.sleep(1)
            done.append(f"used {thing}")

        @rule()
        def plain(self) -> None:
            self.run(trio.sleep, 1)

        @invariant()
        async def holds(self) -> None:
            await trio.lowlevel.checkpoint()
            done.append("held")

        is_ready = True

    run_state_machine_as_test(
        Everything, settings=settings(max_examples=5, stateful_step_count=5, derandomize=True, database=None)
    )
    assert {"entered", "used 1", "held", "left"} == set(done)
    assert done.count("entered") == done.count("left")


def started() -> TrioMachine:
    machine = Reordering()
    machine.start()
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


def test_what_a_context_raises_at_its_end_comes_out_of_leaving_it() -> None:
    @asynccontextmanager
    async def context() -> AsyncGenerator[object]:
        yield object()
        raise LookupError("at the end")

    machine = started()
    value = machine.run(machine.enter, context())
    with pytest.raises(LookupError, match="at the end"):
        machine.run(machine.leave, value)
    machine.teardown()
