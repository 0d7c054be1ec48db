"""Whatever is done to a store, it holds what a dictionary would; and a file holds it when it is opened again."""

import json
import os
import shutil
import tempfile
import threading
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Final, TypeVar

import attrs
import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.store.conftest import OpenStore, faulty, memory, sqlite, sqlite_far
from trivet.store import ActorRow, Changes, DuplicateActor, StaleGeneration, Stored
from trivet.store.sqlite.file import FILE_NAME

T = TypeVar("T")

LONG: Final = os.environ.get("TRIVET_LONG") == "1"

actor_ids = st.sampled_from(["a", "b", "c", "d"])
keys = st.sampled_from([(), ("",), ("x",), ("x", "y")])
names = st.sampled_from(["room", "game"])
json_texts = st.recursive(st.none() | st.integers() | st.text(max_size=5), st.lists, max_leaves=4).map(
    lambda value: json.dumps(value).encode()
)
mappings = st.dictionaries(st.sampled_from(["1", "2", "3"]), st.none() | json_texts, max_size=3)
commits = st.builds(
    Changes,
    state=st.none() | json_texts,
    state_version=st.integers(0, 3),
    connections=mappings,
    schedules=mappings,
    alarm=st.none() | st.sampled_from([1.0, 2.0, 3.5]),
)
states = st.builds(Changes, state=json_texts, state_version=st.integers(0, 3))
changes = commits | states


@attrs.define
class Kept:
    stored: Stored
    alarm: float | None = None


class Loop:
    """A Trio run in a thread, in real time: a virtual clock would leap while the store's threads are at work."""

    def __init__(self) -> None:
        self._ready: SimpleQueue[tuple[trio.lowlevel.TrioToken, trio.Event]] = SimpleQueue()
        self._thread = threading.Thread(target=trio.run, args=(self._main,))
        self._thread.start()
        self._token, self._ended = self._ready.get()

    async def _main(self) -> None:
        ended = trio.Event()
        self._ready.put((trio.lowlevel.current_trio_token(), ended))
        await ended.wait()

    def do(self, call: Callable[[], Awaitable[T]]) -> T:
        return trio.from_thread.run(call, trio_token=self._token)

    def end(self) -> None:
        trio.from_thread.run_sync(self._ended.set, trio_token=self._token)
        self._thread.join()


class StoreMachine(RuleBasedStateMachine):
    open_store: OpenStore
    in_file: bool

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[str, Kept] = {}
        self.directory = Path(tempfile.mkdtemp(prefix="trivet-"))
        self.stack = AsyncExitStack()
        self.loop = Loop()
        self.do = self.loop.do
        self.clock = 0.0

    @initialize()
    def open(self) -> None:
        self.store = self.do(lambda: self.stack.enter_async_context(type(self).open_store(self.directory)))

    @rule(actor_id=actor_ids, name=names, key=keys, changes=changes)
    def create(self, actor_id: str, name: str, key: tuple[str, ...], changes: Changes) -> None:
        if actor_id in self.model:
            return
        self.clock += 0.5
        row = ActorRow(actor_id, "default", name, key, self.clock)
        existing = [kept.stored.row for kept in self.model.values() if self.address(kept.stored.row) == (name, key)]
        try:
            self.do(partial(self.store.create, row, changes))
        except DuplicateActor as error:
            refused_for = [error.existing]
        else:
            refused_for = []
            self.model[actor_id] = self.changed(Kept(Stored(row, 1, None, 0, {}, {})), 1, changes)
        assert refused_for == existing

    @rule(some=st.lists(st.tuples(actor_ids, st.integers(0, 2), changes), min_size=1, max_size=12))
    def commit_together(self, some: list[tuple[str, int, Changes]]) -> None:
        """At once, so that they come into one group; of an actor in the order in which the tasks began."""
        outcomes: list[tuple[str, int, Changes, list[bool]]] = []

        async def commit(actor_id: str, generation: int, changes: Changes) -> None:
            accepted: list[bool] = []
            outcomes.append((actor_id, generation, changes, accepted))
            try:
                await self.store.commit(actor_id, generation, changes)
            except StaleGeneration:
                accepted.append(False)
            else:
                accepted.append(True)

        async def all_of_them() -> None:
            async with trio.open_nursery() as nursery:
                for actor_id, older, changes in some:
                    kept = self.model.get(actor_id)
                    generation = 1 if kept is None else kept.stored.generation + 1 - older
                    nursery.start_soon(commit, actor_id, generation, changes)

        self.do(all_of_them)
        for actor_id, generation, changes, accepted in outcomes:
            kept = self.model.get(actor_id)
            if kept is None or generation < kept.stored.generation:
                assert accepted == [False]
            else:
                assert accepted == [True]
                self.model[actor_id] = self.changed(kept, generation, changes)

    @rule(actor_id=actor_ids)
    def destroy(self, actor_id: str) -> None:
        self.do(partial(self.store.destroy, actor_id))
        self.model.pop(actor_id, None)

    @rule()
    def reopen(self) -> None:
        if self.in_file:
            self.do(self.stack.aclose)
            self.open()

    @rule()
    def crash(self) -> None:
        """Go on with the files as they are now: no process had a chance to tidy them up."""
        if self.in_file:
            image = Path(tempfile.mkdtemp(prefix="trivet-"))
            for name in (FILE_NAME, f"{FILE_NAME}-wal"):
                shutil.copy(self.directory / name, image / name)
            self.do(self.stack.aclose)
            shutil.rmtree(self.directory)
            self.directory = image
            self.open()

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        async def compare() -> None:
            for actor_id in "abcd":
                kept = self.model.get(actor_id)
                assert await self.store.load(actor_id) == (None if kept is None else kept.stored)
                assert await self.store.find_id(actor_id) == (None if kept is None else kept.stored.row)
            for kept in self.model.values():
                row = kept.stored.row
                assert await self.store.find("default", row.name, row.key) == row
            by_age = sorted((kept.stored.row for kept in self.model.values()), key=lambda row: row.created_at)
            assert list(await self.store.list("default", None, (0.0, ""), 10)) == by_age
            alarms = sorted((kept.alarm, actor_id) for actor_id, kept in self.model.items() if kept.alarm is not None)
            due = [(self.model[actor_id].stored.row, alarm) for alarm, actor_id in alarms if alarm <= 2.0]
            assert list(await self.store.due(2.0, 10)) == due
            assert await self.store.next_alarm() == min((alarm for alarm, _ in alarms), default=None)

        self.do(compare)

    def teardown(self) -> None:
        self.do(self.stack.aclose)
        self.loop.end()
        shutil.rmtree(self.directory)

    def address(self, row: ActorRow) -> tuple[str, tuple[str, ...]]:
        return row.name, row.key

    def changed(self, kept: Kept, generation: int, changes: Changes) -> Kept:
        def merged(old: dict[str, bytes], new: dict[str, bytes | None]) -> dict[str, bytes]:
            return {id_: value for id_, value in {**old, **new}.items() if value is not None}

        stored = attrs.evolve(
            kept.stored,
            generation=generation,
            connections=merged(dict(kept.stored.connections), dict(changes.connections)),
            schedules=merged(dict(kept.stored.schedules), dict(changes.schedules)),
        )
        if changes.state is not None:
            stored = attrs.evolve(stored, state=changes.state, state_version=changes.state_version)
        return Kept(stored, changes.alarm if isinstance(changes.alarm, float | None) else kept.alarm)


def machine(open_store: OpenStore, *, in_file: bool) -> type[StoreMachine]:
    return type(open_store.__name__, (StoreMachine,), {"open_store": staticmethod(open_store), "in_file": in_file})


def case(machine: type[StoreMachine], examples: int) -> type:
    test = machine.TestCase
    if LONG:
        test.settings = settings(max_examples=100 * examples, deadline=None)
    else:
        test.settings = settings(max_examples=examples, stateful_step_count=20, deadline=None, derandomize=True)
    return test


TestMemory = case(machine(memory, in_file=False), 10)
TestFaulty = case(machine(faulty, in_file=False), 5)
TestSqlite = case(machine(sqlite, in_file=True), 10)
TestSqliteFar = case(machine(sqlite_far, in_file=True), 5)
