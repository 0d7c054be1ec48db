"""What every store does."""

import contextlib
import json
import math

import pytest
import trio
import trio.testing

from tests.store.support import row, state, stored_state, values
from trivet.store import ActorRow, Changes, DuplicateActor, StaleGeneration, Store, Stored

BEGINNING = (-math.inf, "")


async def test_a_created_actor_is_found_and_loaded_as_it_was_created(store: Store) -> None:
    who = ActorRow("an-id", "default", "chatRoom", ("general", "2"), 1_700_000_000.125)
    changes = Changes(b'{"a": "\\u00e9"}', 3, {"c1": b'{"x": 1}', "none": None}, {"s1": b"[]"}, alarm=5.5)
    await store.create(who, changes)
    assert await store.find("default", "chatRoom", ("general", "2")) == who
    assert await store.find_id("an-id") == who
    stored = Stored(who, 1, b'{"a": "\\u00e9"}', 3, {"c1": b'{"x": 1}'}, {"s1": b"[]"})
    assert await store.load("an-id") == stored
    assert await store.load_by_key("default", "chatRoom", ("general", "2")) == stored
    assert await store.due(5.5, 10) == [(who, 5.5)]


async def test_an_actor_may_have_no_state(store: Store) -> None:
    await store.create(row(1), Changes())
    assert await store.load("id-1") == Stored(row(1), 1, None, 0, {}, {})
    await store.commit("id-1", 1, state("first", 2))
    assert await store.load("id-1") == Stored(row(1), 1, b'"first"', 2, {}, {})
    assert await store.load_by_key("default", "room", ("1",)) == await store.load("id-1")


async def test_what_does_not_exist_is_none(store: Store) -> None:
    await store.create(row(1), Changes())
    assert await store.find("default", "room", ()) is None
    assert await store.find("other", "room", ("1",)) is None
    assert await store.find("default", "other", ("1",)) is None
    assert await store.find_id("id-2") is None
    assert await store.load("id-2") is None
    assert await store.load_by_key("default", "room", ("2",)) is None
    assert await store.load_by_key("default", "other", ("1",)) is None


@pytest.mark.parametrize(
    "key",
    [(), ("",), ("", ""), ("a/b",), ("a", "b"), ('"', "\\", "\0"), ("é", "😀"), ("\ud83d",), ("a" * 1000,)],
    ids=ascii,
)
async def test_keys_are_told_apart(store: Store, key: tuple[str, ...]) -> None:
    others = [("b",), ("a,b",), ('a","b',), ("\ud83d\ude00",), ("\\ud83d",)]
    for number, other in enumerate([*others, key]):
        await store.create(row(number, key=other), Changes())
    assert await store.find("default", "room", key) == row(len(others), key=key)
    assert await store.load_by_key("default", "room", key) == await store.load(f"id-{len(others)}")


async def test_there_is_one_actor_of_a_namespace_a_name_and_a_key(store: Store) -> None:
    await store.create(row(1), state("kept"))
    again = ActorRow("another", "default", "room", ("1",), 7.0)
    with pytest.raises(DuplicateActor) as raised:
        await store.create(again, state("lost"))
    assert raised.value.existing == row(1)
    assert await store.find_id("another") is None
    assert await stored_state(store, "id-1") == "kept"
    await store.create(row(2, namespace="other", key=("1",)), Changes())
    await store.create(row(3, name="other", key=("1",)), Changes())


async def test_of_many_that_create_one_key_one_succeeds(store: Store) -> None:
    created: list[str] = []
    refused: list[str] = []

    async def create(actor_id: str) -> None:
        try:
            await store.create(ActorRow(actor_id, "default", "room", ("one",), 1.0), Changes())
        except DuplicateActor as error:
            refused.append(error.existing.actor_id)
        else:
            created.append(actor_id)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(create, f"candidate-{number}")
    assert len(created) == 1
    assert refused == created * 19


async def test_a_commit_changes_what_it_names(store: Store) -> None:
    await store.create(row(1), state({"n": 1}, connections={"a": b"1", "b": b"2"}, schedules={"s": b"3"}, alarm=9.0))
    await store.commit("id-1", 1, Changes(connections={"a": None, "c": b"4", "gone": None}))
    stored = await store.load("id-1")
    assert stored is not None
    assert (stored.state, stored.state_version) == (b'{"n": 1}', 1)
    assert values(stored.connections) == {"b": 2, "c": 4}
    assert values(stored.schedules) == {"s": 3}
    assert await store.next_alarm() == 9.0
    await store.commit("id-1", 1, Changes(schedules={"s": b"5", "t": b"6"}, alarm=None))
    stored = await store.load("id-1")
    assert stored is not None
    assert values(stored.schedules) == {"s": 5, "t": 6}
    assert await store.next_alarm() is None


async def test_what_was_loaded_does_not_change(store: Store) -> None:
    await store.create(row(1), Changes(connections={"a": b"1"}))
    stored = await store.load("id-1")
    await store.commit("id-1", 1, Changes(b"{}", 1, {"a": None}))
    assert stored == Stored(row(1), 1, None, 0, {"a": b"1"}, {})


async def test_a_later_life_shuts_out_the_earlier(store: Store) -> None:
    await store.create(row(1), state("first life"))
    await store.commit("id-1", 3, Changes())
    for generation in (1, 2):
        with pytest.raises(StaleGeneration):
            await store.commit("id-1", generation, state("late", connections={"c": b"1"}, alarm=1.0))
    stored = await store.load("id-1")
    assert stored == Stored(row(1), 3, b'"first life"', 1, {}, {})
    assert await store.next_alarm() is None
    await store.commit("id-1", 3, state("third life"))
    assert await stored_state(store, "id-1") == "third life"


async def test_nothing_is_committed_to_an_actor_that_is_no_more(store: Store) -> None:
    with pytest.raises(StaleGeneration):
        await store.commit("id-1", 1, state("nobody's"))
    await store.create(row(1), state("old", connections={"c": b"1"}, schedules={"s": b"1"}, alarm=1.0))
    await store.destroy("id-1")
    await store.destroy("id-1")
    with pytest.raises(StaleGeneration):
        await store.commit("id-1", 1, state("late"))
    assert await store.load("id-1") is None
    assert await store.find("default", "room", ("1",)) is None
    assert await store.next_alarm() is None
    await store.create(row(2, key=("1",)), Changes())
    assert await store.load("id-2") == Stored(row(2, key=("1",)), 1, None, 0, {}, {})


async def test_what_one_actor_does_wrong_harms_no_other(store: Store) -> None:
    for number in range(100):
        await store.create(row(number), state(0))
    stale: list[int] = []

    async def commit(number: int) -> None:
        try:
            await store.commit(f"id-{number}", 1 if number % 10 else 0, state(number))
        except StaleGeneration:
            stale.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(commit, number)
    assert sorted(stale) == list(range(0, 100, 10))
    assert [await stored_state(store, f"id-{number}") for number in range(100)] == [
        n if n % 10 else 0 for n in range(100)
    ]


async def test_commits_of_one_actor_take_effect_in_the_order_of_the_calls(store: Store) -> None:
    await store.create(row(1), state(-1))
    called: list[int] = []

    async def commit(number: int) -> None:
        called.append(number)
        await store.commit("id-1", 1, state(number, connections={"last": str(number).encode()}))

    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(commit, number)
    stored = await store.load("id-1")
    assert stored is not None
    assert json.loads(stored.state or b"") == called[-1]
    assert values(stored.connections) == {"last": called[-1]}


async def test_actors_are_listed_by_age(store: Store) -> None:
    made = [
        row(3),
        row(1),
        row(2, name="other"),
        row(4, namespace="elsewhere"),
        ActorRow("id-0", "default", "room", (), 3.0),
    ]
    for who in made:
        await store.create(who, Changes())
    everything = await store.list("default", None, BEGINNING, 10)
    assert [who.actor_id for who in everything] == ["id-1", "id-2", "id-0", "id-3"]
    assert [who.actor_id for who in await store.list("default", "room", BEGINNING, 2)] == ["id-1", "id-0"]
    assert [who.actor_id for who in await store.list("default", "room", (3.0, "id-0"), 2)] == ["id-3"]
    assert await store.list("nowhere", None, BEGINNING, 10) == []


async def test_due_actors_come_the_earliest_first(store: Store) -> None:
    assert await store.next_alarm() is None
    for number, alarm in ((1, 30.0), (2, 10.0), (3, None), (4, 20.0)):
        await store.create(row(number), Changes(alarm=alarm))
    assert await store.next_alarm() == 10.0
    assert await store.due(9.9, 10) == []
    assert await store.due(20.0, 10) == [(row(2), 10.0), (row(4), 20.0)]
    assert await store.due(100.0, 1) == [(row(2), 10.0)]
    await store.commit("id-2", 1, Changes(alarm=40.0))
    assert [alarm for _, alarm in await store.due(100.0, 10)] == [20.0, 30.0, 40.0]


async def test_a_large_state_comes_back_whole(store: Store) -> None:
    large = b'"' + b"x" * 20_000_000 + b'"'
    await store.create(row(1), Changes(large, 1))
    stored = await store.load("id-1")
    assert stored is not None
    assert stored.state == large


async def test_what_needs_no_waiting_is_the_same(store: Store) -> None:
    await store.create(row(1), Changes(b"1", 2, {"c": b"3"}, {"s": b"4"}))
    for key in (("1",), ("nobody",)):
        with contextlib.suppress(trio.WouldBlock):
            found = store.load_by_key_nowait("default", "room", key)
            assert found == await store.load_by_key("default", "room", key)


async def test_every_method_is_a_checkpoint(store: Store) -> None:
    await store.create(row(1), Changes())
    with trio.testing.assert_checkpoints():
        await store.find_id("id-1")
    with trio.testing.assert_checkpoints():
        await store.load("id-1")
    with trio.testing.assert_checkpoints():
        await store.load_by_key("default", "room", ("1",))
    with trio.testing.assert_checkpoints():
        await store.commit("id-1", 1, state(1))
    with trio.testing.assert_checkpoints():
        await store.destroy("id-1")


async def test_a_call_that_is_cancelled_before_it_begins_does_nothing(store: Store) -> None:
    await store.create(row(1), state("kept"))
    with trio.CancelScope() as scope:
        scope.cancel()
        await store.commit("id-1", 1, state("lost"))
    with trio.CancelScope() as scope:
        scope.cancel()
        await store.create(row(2), state("lost"))
    with trio.CancelScope() as scope:
        scope.cancel()
        await store.destroy("id-1")
    assert scope.cancelled_caught
    assert await stored_state(store, "id-1") == "kept"
    assert await store.find_id("id-2") is None


async def test_a_cancelled_commit_took_effect_as_a_whole_or_not_at_all(store: Store) -> None:
    await store.create(row(1), state(0, connections={"c": b"0"}))
    for number in range(1, 30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.commit, "id-1", 1, state(number, connections={"c": str(number).encode()}))
            for _ in range(number % 4):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        stored = await store.load("id-1")
        assert stored is not None
        # The next commit waits for one that has begun.
        await store.commit("id-1", 1, Changes())
        stored = await store.load("id-1")
        assert stored is not None
        assert values(stored.connections) == {"c": json.loads(stored.state or b"")}
