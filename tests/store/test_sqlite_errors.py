"""What is wrong with a file is said so that somebody can do something about it, and the file is left as it is."""

import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import apsw
import pytest
import trio

from tests.store.support import row, state, stored_state
from trivet.store import Changes, Store, StoreError
from trivet.store.sqlite import (
    SQLiteStore,
    StoreCorrupt,
    StoreFull,
    StoreInUse,
    StoreReadOnly,
    StoreTooNew,
    check_sqlite_store,
    open_sqlite_store,
)
from trivet.store.sqlite import file as file_module
from trivet.store.sqlite.file import FILE_NAME, open_file
from trivet.store.sqlite.schema import APPLICATION_ID, MIGRATIONS
from trivet.store.sqlite.statements import rows

LARGE: Final = b'"' + b"x" * 1_000_000 + b'"'

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX")


async def fill(directory: Path, actors: int = 50) -> Path:
    """A file with so many actors, closed."""
    async with open_sqlite_store(directory) as store:
        for number in range(actors):
            await store.create(row(number), state(f"{number} " + "x" * 1000, connections={"c": b"1"}))
    return directory / FILE_NAME


async def error_of_opening(directory: Path) -> StoreError:
    """It is the same the second time, and the file is as it was."""
    file = directory / FILE_NAME
    before = file.read_bytes()
    with pytest.raises(StoreError) as first:
        async with open_sqlite_store(directory):
            pass
    with pytest.raises(type(first.value)):
        async with open_sqlite_store(directory):
            pass
    assert file.read_bytes() == before
    assert str(file) in str(first.value)
    return first.value


# No room


async def test_a_full_disk_refuses_what_has_no_room_and_nothing_else(in_file: SQLiteStore) -> None:
    for number in range(10):
        await in_file.create(row(number), state("before"))
    writer = in_file._file.writer
    (pages,) = rows(writer, "PRAGMA page_count")[0]
    rows(writer, f"PRAGMA max_page_count = {pages + 20}")
    refused: dict[str, str] = {}

    async def commit(actor_id: str, changes: Changes) -> None:
        try:
            await in_file.commit(actor_id, 1, changes)
        except StoreFull as error:
            refused[actor_id] = str(error)

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(commit, f"id-{number}", Changes(LARGE, 1) if number == 5 else state("after"))
    assert list(refused) == ["id-5"]
    assert "disk is full; make room" in refused["id-5"]
    assert [await stored_state(in_file, f"id-{n}") for n in range(10)] == ["after"] * 5 + ["before"] + ["after"] * 4
    rows(writer, "PRAGMA max_page_count = 1000000")
    await commit("id-5", Changes(LARGE, 1))
    assert len(refused) == 1


@posix
async def test_a_write_that_fails_leaves_the_store_usable(in_file: SQLiteStore) -> None:
    import resource

    await in_file.create(row(1), state("before"))
    log_size = os.stat(f"{in_file._file.path}-wal").st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (log_size + 50_000, hard))
    try:
        with pytest.raises(StoreError, match="limit on the size of files"):
            await in_file.commit("id-1", 1, Changes(LARGE, 1))
        assert await stored_state(in_file, "id-1") == "before"
        await in_file.commit("id-1", 1, state("small"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert await stored_state(in_file, "id-1") == "small"
    await in_file.commit("id-1", 1, Changes(LARGE, 1))


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path]:
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "trivet", tmp_path], capture_output=True).returncode:
        pytest.skip("may not mount")
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


def fill_up(file: Path) -> None:
    with file.open("wb", buffering=0) as opened, suppress(OSError):
        while True:
            opened.write(bytes(4096))


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
async def test_a_disk_that_is_really_full(small_disk: Path) -> None:
    async with open_sqlite_store(small_disk) as store:
        await store.create(row(1), state("before"))
        fill_up(small_disk / "ballast")
        with pytest.raises(StoreFull):
            await store.commit("id-1", 1, Changes(LARGE[:200_000] + b'"', 1))
        assert await stored_state(store, "id-1") == "before"
        os.unlink(small_disk / "ballast")
        await store.commit("id-1", 1, state("after"))
        assert await stored_state(store, "id-1") == "after"
    assert await check_sqlite_store(small_disk) == []


# No permission


@contextmanager
def somebody_elses_directory() -> Generator[Path]:
    """A directory, and in it this process may do what everybody may: root may do anything."""
    directory = Path(tempfile.mkdtemp(prefix="trivet-"))
    directory.chmod(0o777)
    root = os.geteuid() == 0
    try:
        if root:
            os.chown(directory, 65534, -1)
            os.seteuid(65534)
        yield directory
    finally:
        if root:
            os.seteuid(0)
        directory.chmod(0o700)
        shutil.rmtree(directory)


@posix
async def test_a_file_that_may_not_be_written_to() -> None:
    with somebody_elses_directory() as directory:
        file = await fill(directory)
        file.chmod(0o444)
        error = await error_of_opening(directory)
        assert isinstance(error, StoreReadOnly)
        assert "check its owner, its mode and its mount" in str(error)


@posix
async def test_a_directory_that_may_not_be_written_to() -> None:
    with somebody_elses_directory() as directory:
        directory.chmod(0o555)
        with pytest.raises(StoreReadOnly, match="check the owner and mode of its directory"):
            async with open_sqlite_store(directory):
                pass
        with pytest.raises(StoreReadOnly, match="cannot be made"):
            async with open_sqlite_store(directory / "below"):
                pass


# Not what it should be


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text("dear diary\n" * 500)
    error = await error_of_opening(tmp_path)
    assert isinstance(error, StoreCorrupt)
    assert "not a database" in str(error)


async def test_a_database_of_another_program(tmp_path: Path) -> None:
    other = apsw.Connection(os.fspath(tmp_path / FILE_NAME))
    rows(other, "CREATE TABLE recipes (name TEXT)")
    other.close()
    error = await error_of_opening(tmp_path)
    assert isinstance(error, StoreCorrupt)
    assert "another program" in str(error)


async def test_a_file_of_a_later_version(tmp_path: Path) -> None:
    later = apsw.Connection(os.fspath(await fill(tmp_path)))
    rows(later, f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    later.close()
    error = await error_of_opening(tmp_path)
    assert isinstance(error, StoreTooNew)
    assert f"schema {len(MIGRATIONS) + 1}" in str(error)


@pytest.mark.parametrize("keep", [0.5, 0.9])
@pytest.mark.parametrize("small", [0, file_module.SMALL_FILE])
async def test_a_file_that_lost_its_end(
    tmp_path: Path, keep: float, small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_module, "SMALL_FILE", small)
    file = await fill(tmp_path)
    os.truncate(file, int(file.stat().st_size * keep))
    assert isinstance(await error_of_opening(tmp_path), StoreCorrupt)


async def test_an_empty_file_whose_log_is_not(tmp_path: Path) -> None:
    """SQLite would throw the log away, and begin anew."""
    image = tmp_path / "image"
    image.mkdir()
    async with open_sqlite_store(tmp_path) as store:
        await store.create(row(1), state("kept"))
        shutil.copy(tmp_path / f"{FILE_NAME}-wal", image)
    (image / FILE_NAME).touch()
    error = await error_of_opening(image)
    assert isinstance(error, StoreCorrupt)
    (image / FILE_NAME).unlink()
    with pytest.raises(StoreCorrupt, match="restore both"):
        async with open_sqlite_store(image):
            pass


async def test_an_overwritten_page_of_a_small_file_is_found_at_the_start(tmp_path: Path) -> None:
    file = await fill(tmp_path)
    with file.open("r+b") as opened:
        opened.seek(4096 * 4)
        opened.write(b"\xa5" * 4096)
    assert isinstance(await error_of_opening(tmp_path), StoreCorrupt)


async def test_an_overwritten_page_of_a_large_file_harms_only_whose_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_module, "SMALL_FILE", 0)
    file = await fill(tmp_path)
    connection = apsw.Connection(os.fspath(file))
    leaves = rows(connection, "SELECT pageno FROM dbstat WHERE name = 'states' AND pagetype = 'leaf'")
    page: int = leaves[5][0]
    connection.close()
    with file.open("r+b") as opened:
        opened.seek(4096 * (page - 1))
        opened.write(b"\xa5" * 4096)
    broken: list[str] = []
    async with open_sqlite_store(tmp_path) as store:
        for number in range(50):
            try:
                await store.load(f"id-{number}")
            except StoreCorrupt as error:
                broken.append(str(error))
        await store.commit("id-0", 1, state("goes on"))
    assert 0 < len(broken) < 10
    assert all("restore a backup" in text for text in broken)
    assert await check_sqlite_store(tmp_path) != []
    with pytest.raises(StoreCorrupt):
        async with open_sqlite_store(tmp_path, check="full"):
            pass


async def test_flipped_bytes_raise_nothing_but_store_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = await fill(tmp_path)
    whole = file.read_bytes()
    generator = random.Random(0)

    async def use(store: Store) -> None:
        uses: list[Callable[[], Awaitable[object]]] = [
            lambda: store.load(f"id-{generator.randrange(50)}"),
            lambda: store.find("default", "room", ("7",)),
            lambda: store.list("default", None, (0.0, ""), 100),
            lambda: store.commit(f"id-{generator.randrange(50)}", 1, state("new", schedules={"s": b"1"})),
            lambda: store.create(row(1000), Changes()),
        ]
        for one in uses:
            with trio.fail_after(30):
                try:
                    await one()
                except StoreError:
                    pass

    for attempt in range(40):
        monkeypatch.setattr(file_module, "SMALL_FILE", 0 if attempt % 2 else file_module.SMALL_FILE)
        damaged = bytearray(whole)
        for _ in range(generator.choice([1, 10, 1000])):
            damaged[generator.randrange(len(damaged))] ^= 1 << generator.randrange(8)
        file.write_bytes(damaged)
        try:
            async with open_sqlite_store(tmp_path) as store:
                await use(store)
        except StoreError:
            pass
        monkeypatch.undo()


async def test_a_log_that_was_written_by_half_holds_the_commits_before(tmp_path: Path) -> None:
    image = tmp_path / "image"
    async with open_sqlite_store(tmp_path) as store:
        await store.create(row(1), state(0))
        for number in range(1, 20):
            await store.commit("id-1", 1, state(number))
        database, log = ((tmp_path / name).read_bytes() for name in (FILE_NAME, f"{FILE_NAME}-wal"))
    found: list[int] = []
    for size in range(0, len(log) + 1, 3001):
        image.mkdir()
        (image / FILE_NAME).write_bytes(database)
        (image / f"{FILE_NAME}-wal").write_bytes(log[:size])
        async with open_sqlite_store(image) as store:
            stored = await store.load("id-1")
            found.append(-1 if stored is None else int(stored.state or b"-1"))
        shutil.rmtree(image)
    assert found == sorted(found)
    assert found[0] == -1
    assert found[-1] in (18, 19)


# Not alone


async def test_a_store_is_opened_once(tmp_path: Path) -> None:
    async with open_sqlite_store(tmp_path):
        with pytest.raises(StoreInUse, match=f"process {os.getpid()} has .* open"):
            async with open_sqlite_store(tmp_path):
                pass
    async with open_sqlite_store(tmp_path):
        pass


async def test_another_process_cannot_open_it(tmp_path: Path) -> None:
    program = (
        "import sys, trio\n"
        "from trivet.store.sqlite import StoreInUse, open_sqlite_store\n"
        "async def main():\n"
        "    try:\n"
        "        async with open_sqlite_store(sys.argv[1]): print('opened')\n"
        "    except StoreInUse as error: print(error)\n"
        "trio.run(main)\n"
    )
    async with open_sqlite_store(tmp_path) as store:
        await store.create(row(1), Changes())
        result = await trio.run_process([sys.executable, "-c", program, str(tmp_path)], capture_stdout=True)
        assert f"process {os.getpid()} has {tmp_path} open".encode() in result.stdout
        await store.commit("id-1", 1, state(1))


async def test_a_lock_that_another_program_holds_too_long(in_file: SQLiteStore) -> None:
    await in_file.create(row(1), state("before"))
    in_file._file.writer.set_busy_timeout(1)
    other = apsw.Connection(os.fspath(in_file._file.path))
    rows(other, "BEGIN IMMEDIATE")
    with pytest.raises(StoreInUse, match="another program holds a lock"):
        await in_file.commit("id-1", 1, state("after"))
    rows(other, "ROLLBACK")
    other.close()
    await in_file.commit("id-1", 1, state("after"))
    assert await stored_state(in_file, "id-1") == "after"


# Of an earlier version


async def test_a_file_of_an_earlier_version_becomes_one_of_this(tmp_path: Path) -> None:
    """As a later trivet will find a file of this one."""
    await fill(tmp_path)
    second = (
        "ALTER TABLE actors ADD COLUMN region TEXT NOT NULL DEFAULT 'here'; CREATE INDEX by_region ON actors (region)"
    )
    for _ in range(2):
        opened = open_file(tmp_path, "normal", "quick", (*MIGRATIONS, second))
        assert rows(opened.writer, "SELECT DISTINCT region FROM actors") == [("here",)]
        assert rows(opened.writer, "PRAGMA user_version") == [(len(MIGRATIONS) + 1,)]
        opened.close()
    with pytest.raises(StoreTooNew):
        async with open_sqlite_store(tmp_path):
            pass


async def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    file = await fill(tmp_path)
    before = file.read_bytes()
    wrong = "ALTER TABLE actors ADD COLUMN region TEXT; SELECT * FROM nothing_of_that_name"
    with pytest.raises(StoreError, match="nothing_of_that_name"):
        open_file(tmp_path, "normal", "quick", (*MIGRATIONS, wrong))
    assert file.read_bytes() == before
    async with open_sqlite_store(tmp_path) as store:
        assert await store.find_id("id-1") == row(1)


async def test_the_file_says_whose_it_is(tmp_path: Path) -> None:
    file = await fill(tmp_path)
    assert file.read_bytes()[68:72] == APPLICATION_ID.to_bytes(4, "big") == b"trvt"
