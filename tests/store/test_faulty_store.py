"""The store that fails when a test says so."""

import pytest
import trio
import trio.testing

from tests.store.support import row, state, stored_state
from trivet.store import MemoryStore, StoreError
from trivet.testing import FaultyStore


@pytest.fixture
async def faulty() -> FaultyStore:
    store = FaultyStore(MemoryStore(durable=True))
    await store.create(row(1), state(0))
    return store


async def test_changes_take_the_time_they_are_told_to(
    faulty: FaultyStore, autojump_clock: trio.testing.MockClock
) -> None:
    faulty.delay = 2.5
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(faulty.commit, "id-1", 1, state(number))
    assert trio.current_time() - began == 2.5


async def test_changes_that_are_held_take_effect_in_order_when_they_are_released(faulty: FaultyStore) -> None:
    faulty.hold()
    done: list[int] = []

    async def commit(number: int) -> None:
        await faulty.commit("id-1", 1, state(number))
        done.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(1, 5):
            nursery.start_soon(commit, number)
            await trio.testing.wait_all_tasks_blocked()
        assert (faulty.waiting, await stored_state(faulty, "id-1")) == (4, 0)
        faulty.release(2)
        await trio.testing.wait_all_tasks_blocked()
        assert (done, await stored_state(faulty, "id-1")) == ([1, 2], 2)
        faulty.release()
    assert sorted(done) == [1, 2, 3, 4]
    assert await stored_state(faulty, "id-1") == 4
    await faulty.commit("id-1", 1, state(5))


async def test_a_held_change_can_be_cancelled_and_never_takes_effect(faulty: FaultyStore) -> None:
    faulty.hold()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(faulty.commit, "id-1", 1, state(1))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    faulty.release()
    assert (faulty.waiting, await stored_state(faulty, "id-1")) == (0, 0)


async def test_the_next_changes_fail_before_or_after_they_take_effect(faulty: FaultyStore) -> None:
    faulty.fail(2, "the cable is out")
    for _ in range(2):
        with pytest.raises(StoreError, match="the cable is out"):
            await faulty.commit("id-1", 1, state(1))
    assert await stored_state(faulty, "id-1") == 0
    faulty.fail(after=True)
    with pytest.raises(StoreError):
        await faulty.commit("id-1", 1, state(2))
    assert await stored_state(faulty, "id-1") == 2
    await faulty.commit("id-1", 1, state(3))
    assert faulty.changes == 3


async def test_the_next_reads_fail(faulty: FaultyStore) -> None:
    faulty.fail_reads()
    with pytest.raises(StoreError):
        await faulty.load("id-1")
    assert await faulty.find_id("id-1") == row(1)


async def test_a_crash_forgets_what_was_not_committed(faulty: FaultyStore) -> None:
    faulty.hold()
    refused: list[int] = []

    async def commit(number: int) -> None:
        try:
            await faulty.commit("id-1", 1, state(number))
        except StoreError:
            refused.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(1, 4):
            nursery.start_soon(commit, number)
        await trio.testing.wait_all_tasks_blocked()
        faulty.crash()
    assert sorted(refused) == [1, 2, 3]
    with pytest.raises(StoreError):
        await faulty.load("id-1")
    reopened = faulty.reopened()
    assert reopened.durable
    assert await stored_state(reopened, "id-1") == 0
    await reopened.commit("id-1", 2, state("a new life"))
