"""What the store in a file does beyond what every store does."""

import errno
import logging
import os
import sys
from pathlib import Path

import apsw
import pytest
import trio
import trio.testing

from tests.store.support import row, state, stopped_writer, stored_state
from trivet.store import Changes, Stored, StoreError
from trivet.store.sqlite import SQLiteStore, check_sqlite_store, checkpoints, open_sqlite_store
from trivet.store.sqlite import store as store_module
from trivet.store.sqlite.file import FILE_NAME
from trivet.store.sqlite.statements import rows

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads on the event loop need RWF_NOWAIT")


async def test_what_waits_shares_one_transaction(in_file: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        await in_file.create(row(number), state("before"))
    before = in_file.statistics()
    async with trio.open_nursery() as nursery:
        with stopped_writer(in_file, monkeypatch):
            nursery.start_soon(in_file.commit, "id-0", 1, state("first"))
            await trio.testing.wait_all_tasks_blocked()
            for number in range(1000):
                nursery.start_soon(in_file.create, row(10 + number), state(number))
            await trio.testing.wait_all_tasks_blocked()
            assert in_file.statistics().waiting == 1001
    after = in_file.statistics()
    assert after.changes - before.changes == 1001
    assert after.groups - before.groups <= 3
    assert [await stored_state(in_file, f"id-{10 + number}") for number in range(1000)] == list(range(1000))


async def test_a_thousand_actors_commit_together(in_file: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(1000):
            nursery.start_soon(in_file.create, row(number), Changes())
    for turn in range(2):
        async with trio.open_nursery() as nursery:
            with stopped_writer(in_file, monkeypatch):
                for number in range(1000):
                    nursery.start_soon(in_file.commit, f"id-{number}", 1, state([turn, number]))
                await trio.testing.wait_all_tasks_blocked()
        assert [await stored_state(in_file, f"id-{n}") for n in range(1000)] == [[turn, n] for n in range(1000)]


async def test_reads_do_not_wait_for_commits(in_file: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await in_file.create(row(1), state("before", alarm=1.0))
    async with trio.open_nursery() as nursery:
        with stopped_writer(in_file, monkeypatch):
            nursery.start_soon(in_file.commit, "id-1", 1, state("after"))
            await trio.testing.wait_all_tasks_blocked()
            assert await stored_state(in_file, "id-1") == "before"
            assert await in_file.find("default", "room", ("1",)) == row(1)
            assert await in_file.list("default", None, (0.0, ""), 10) == [row(1)]
            assert await in_file.due(2.0, 10) == [(row(1), 1.0)]
            assert in_file.statistics().waiting == 1
    assert await stored_state(in_file, "id-1") == "after"


async def test_cancelling_a_commit_does_not_wait_for_the_disk(
    in_file: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await in_file.create(row(1), state("before"))
    await in_file.create(row(2), state("before"))
    with stopped_writer(in_file, monkeypatch) as writer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_file.commit, "id-1", 1, state("in flight"))
            await writer.begun.wait()
            nursery.start_soon(in_file.commit, "id-2", 1, state("not begun"))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert not writer.go_on.is_set()
        assert in_file.statistics().waiting == 0
    await in_file.commit("id-1", 1, Changes())
    assert await stored_state(in_file, "id-1") == "in flight"
    assert await stored_state(in_file, "id-2") == "before"


@pytest.mark.parametrize("by_key", [False, True], ids=["load", "load_by_key"])
async def test_what_loads_an_actor_waits_for_a_commit_that_was_cut_off(
    in_file: SQLiteStore, monkeypatch: pytest.MonkeyPatch, by_key: bool
) -> None:
    await in_file.create(row(1), state("before"))
    await in_file.create(row(2), state("another"))
    loaded: list[object] = []

    async def load() -> None:
        stored = await (in_file.load_by_key("default", "room", ("1",)) if by_key else in_file.load("id-1"))
        assert stored is not None
        loaded.append(stored.state)

    async with trio.open_nursery() as loads:
        with stopped_writer(in_file, monkeypatch) as writer:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(in_file.commit, "id-1", 1, state("in flight"))
                await writer.begun.wait()
                nursery.cancel_scope.cancel()
            with pytest.raises(trio.WouldBlock):
                in_file.load_by_key_nowait("default", "room", ("1",))
            loads.start_soon(load)
            await stored_state(in_file, "id-2")  # nobody else waits
            await in_file.load_by_key("default", "room", ("2",))
            assert loaded == []
    assert loaded == [b'"in flight"']
    assert list(in_file._writer.cut_off) == []


async def test_nothing_is_kept_of_changes_that_were_cut_off_and_are_over(
    in_file: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nobody ever loads the actor again."""
    for number in (1, 2):
        await in_file.create(row(number), state("before"))
    with stopped_writer(in_file, monkeypatch) as writer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_file.commit, "id-1", 1, state("in flight"))
            await writer.begun.wait()
            nursery.start_soon(in_file.commit, "id-2", 1, state("not begun"))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert len(list(in_file._writer.cut_off)) == 2
    await in_file.destroy("id-1")
    assert list(in_file._writer.cut_off) == []


async def test_there_may_be_an_actor_where_its_creation_was_cut_off(
    in_file: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Stored | None] = []

    async def look() -> None:
        found.append(await in_file.load_by_key("default", "room", ("1",)))

    async with trio.open_nursery() as looks:
        with stopped_writer(in_file, monkeypatch) as writer:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(in_file.create, row(1), state("in flight"))
                await writer.begun.wait()
                nursery.cancel_scope.cancel()
            with pytest.raises(trio.WouldBlock):
                in_file.load_by_key_nowait("default", "room", ("1",))
            looks.start_soon(look)
            assert await in_file.load_by_key("default", "room", ("2",)) is None  # nobody else waits
            assert found == []
    assert [stored.row for stored in found if stored] == [row(1)]


async def test_a_store_that_closes_keeps_no_load_waiting_for_a_change_that_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "CLOSE_SECONDS", 0.05)
    dying = open_sqlite_store(tmp_path)
    store = await dying.__aenter__()
    await store.create(row(1), state("before"))
    with stopped_writer(store, monkeypatch) as writer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.commit, "id-1", 1, state("in flight"))
            await writer.begun.wait()
            nursery.cancel_scope.cancel()
        with pytest.raises(StoreError, match="the disk does not answer"):
            await dying.__aexit__(None, None, None)
        with trio.fail_after(10), pytest.raises(StoreError, match="was closed"):
            await store.load("id-1")


async def test_a_commit_that_fails_after_it_was_cut_off_keeps_nobody_waiting(
    in_file: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await in_file.create(row(1), state("before"))
    with stopped_writer(in_file, monkeypatch) as writer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_file.commit, "id-1", 1, state("in flight"))
            await writer.begun.wait()
            nursery.cancel_scope.cancel()
        rows(in_file._file.writer, "PRAGMA query_only = 1")
    assert await stored_state(in_file, "id-1") == "before"


# Reads


@linux
async def test_what_is_in_memory_is_read_on_the_event_loop(in_file: SQLiteStore) -> None:
    if in_file._file.near is None:
        pytest.skip("this file system does not say what it has in memory")
    await in_file.create(row(1), state("small"))
    await in_file.create(row(2), Changes(b'"' + b"x" * 1_000_000 + b'"', 1))
    before = in_file.statistics()
    await in_file.load("id-1")
    await in_file.find("default", "room", ("1",))
    assert in_file.load_by_key_nowait("default", "room", ("1",)) == await in_file.load("id-1")
    await in_file.next_alarm()
    after = in_file.statistics()
    assert (after.near_reads - before.near_reads, after.far_reads - before.far_reads) == (5, 0)
    stored = await in_file.load("id-2")
    assert stored is not None
    assert len(stored.state or b"") == 1_000_002
    assert in_file.statistics().far_reads == after.far_reads + 1
    with pytest.raises(trio.WouldBlock):
        in_file.load_by_key_nowait("default", "room", ("2",))
    assert await in_file.load_by_key("default", "room", ("2",)) == stored
    assert in_file.statistics().far_reads == after.far_reads + 2


@linux
@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EIO])
async def test_what_is_not_in_memory_is_read_in_a_thread(
    in_file: SQLiteStore, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    if in_file._file.near is None:
        pytest.skip("this file system does not say what it has in memory")
    for actor in range(500):
        await in_file.create(row(actor), state("x" * 3000))
    before = in_file.statistics()

    def not_there(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "preadv", not_there)
    assert await stored_state(in_file, "id-250") == "x" * 3000
    assert in_file.statistics().far_reads == before.far_reads + 1
    monkeypatch.undo()
    assert await stored_state(in_file, "id-250") == "x" * 3000
    assert in_file.statistics().far_reads == before.far_reads + 1


# For people


async def test_a_person_can_read_and_change_the_file_in_a_shell(tmp_path: Path) -> None:
    async with open_sqlite_store(tmp_path) as store:
        await store.create(row(1, key=("a", "é")), state({"name": "é"}, 3, connections={"c": b'{"x": 1}'}))
    shell = apsw.Connection(os.fspath(tmp_path / FILE_NAME))
    assert rows(
        shell, "SELECT name, key, version, state, state ->> 'name' FROM actors JOIN states ON actor = number"
    ) == [("room", '["a","é"]', 3, '{"name": "\\u00e9"}', "é")]
    assert rows(shell, "SELECT id, data FROM connections") == [("c", '{"x": 1}')]
    rows(shell, "UPDATE states SET state = json_set(state, '$.name', 'changed')")
    shell.close()
    async with open_sqlite_store(tmp_path) as store:
        assert await stored_state(store, "id-1") == {"name": "changed"}


async def test_a_file_that_a_person_broke_is_reported_by_the_check(tmp_path: Path) -> None:
    async with open_sqlite_store(tmp_path) as store:
        await store.create(row(1), state(1))
    assert await check_sqlite_store(tmp_path) == []
    shell = apsw.Connection(os.fspath(tmp_path / FILE_NAME))
    rows(shell, "UPDATE states SET state = '{broken'; INSERT INTO schedules VALUES (77, 'id', '1')")
    shell.close()
    assert await check_sqlite_store(tmp_path) == ["a state that is not JSON: id-1", "schedules of no actor: 77"]


async def test_a_path_is_a_file_or_a_directory(tmp_path: Path) -> None:
    for where, file in (
        (tmp_path / "a" / "b", tmp_path / "a" / "b" / FILE_NAME),
        (tmp_path / "c.db", tmp_path / "c.db"),
        (str(tmp_path), tmp_path / FILE_NAME),
    ):
        async with open_sqlite_store(where):
            assert await trio.Path(file).is_file()


# The log


async def test_the_log_begins_anew_under_commits_that_never_pause(
    in_file: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "EVERY_PAGES", 20)
    monkeypatch.setattr(checkpoints, "WAL_LIMIT", 100 * 4096)
    for number in range(4):
        await in_file.create(row(number), state(0))
    written = 0

    def is_shorter_than_what_went_through_it() -> bool:
        return written > 1_000_000 and os.stat(f"{in_file._file.path}-wal").st_size < written / 2

    async def commit(actor_id: str) -> None:
        nonlocal written
        while not is_shorter_than_what_went_through_it():
            await in_file.commit(actor_id, 1, state("x" * 20_000))
            written += 20_000

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(commit, f"id-{number}")


async def test_a_log_that_cannot_go_into_the_file_is_warned_of_and_nothing_else(
    in_file: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    warned = trio.Event()
    token = trio.lowlevel.current_trio_token()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            token.run_sync_soon(warned.set)

    handler = Handler()
    logging.getLogger("trivet.store").addHandler(handler)
    monkeypatch.setattr(checkpoints, "EVERY_PAGES", 1)
    in_file._file.checkpointer.close()
    try:
        await in_file.create(row(1), state(1))
        with trio.fail_after(60):
            await warned.wait()
    finally:
        logging.getLogger("trivet.store").removeHandler(handler)
    await in_file.commit("id-1", 1, state(2))
    assert await stored_state(in_file, "id-1") == 2


# Closing


async def test_closing_leaves_one_file_that_holds_everything(tmp_path: Path) -> None:
    async with open_sqlite_store(tmp_path) as store:
        await store.create(row(1), state(1))
    assert sorted(os.listdir(tmp_path)) == [FILE_NAME, f"{FILE_NAME}-lock"]


async def test_closing_commits_what_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with trio.open_nursery() as nursery:
        async with open_sqlite_store(tmp_path) as store:
            await store.create(row(1), state("before"))
            with stopped_writer(store, monkeypatch) as writer:
                nursery.start_soon(store.commit, "id-1", 1, state("first"))
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(store.commit, "id-1", 1, state("second"))
                await trio.testing.wait_all_tasks_blocked()
                writer.go_on.set()
    async with open_sqlite_store(tmp_path) as store:
        assert await stored_state(store, "id-1") == "second"


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    async with open_sqlite_store(tmp_path) as store:
        await store.create(row(1), state(1))
    with pytest.raises(StoreError, match="was closed"):
        await store.load("id-1")
    with pytest.raises(trio.WouldBlock):
        store.load_by_key_nowait("default", "room", ("1",))
    with pytest.raises(StoreError, match="was closed"):
        await store.due(1.0, 1)
    with pytest.raises(StoreError, match="was closed"):
        await store.commit("id-1", 1, state(2))


async def test_a_cancelled_block_closes_all_the_same(tmp_path: Path) -> None:
    for number in range(3):
        with trio.CancelScope() as scope:
            async with open_sqlite_store(tmp_path) as store:
                await store.create(row(number), state(number))
                scope.cancel()
                await store.commit(f"id-{number}", 1, state("cancelled"))
    async with open_sqlite_store(tmp_path) as store:
        assert [await stored_state(store, f"id-{number}") for number in range(3)] == [0, 1, 2]


async def test_opening_that_is_cancelled_leaves_no_lock(tmp_path: Path) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        async with open_sqlite_store(tmp_path):
            await trio.lowlevel.checkpoint()
    async with open_sqlite_store(tmp_path):
        pass


async def test_a_disk_that_never_answers_does_not_keep_a_store_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "CLOSE_SECONDS", 0.05)
    raised: list[str] = []

    async def commit(store: SQLiteStore) -> None:
        try:
            await store.commit("id-1", 1, state("lost"))
        except StoreError as error:
            raised.append(str(error))

    async with trio.open_nursery() as nursery:
        store_of_dead_disk = open_sqlite_store(tmp_path)
        store = await store_of_dead_disk.__aenter__()
        await store.create(row(1), state("before"))
        with stopped_writer(store, monkeypatch):
            nursery.start_soon(commit, store)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(StoreError, match="the disk does not answer"):
                await store_of_dead_disk.__aexit__(None, None, None)
            await trio.testing.wait_all_tasks_blocked()
            assert raised == ["the store was closed before the disk answered"]


async def test_time_is_not_the_stores_business(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """A virtual clock leaps ahead while the threads are at work; no deadline of the store is one of Trio's."""
    async with trio.open_nursery() as nursery:
        for seconds in range(1000, 1_000_000, 1000):
            nursery.start_soon(trio.sleep, seconds)
        for _ in range(3):
            async with open_sqlite_store(tmp_path) as store:
                await store.destroy("id-1")
                await store.create(row(1), state("kept", alarm=5.0))
                assert await store.next_alarm() == 5.0
        nursery.cancel_scope.cancel()
