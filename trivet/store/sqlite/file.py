"""Opening a file: whose it is, what is wrong with it, and which version it has."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, TypeAlias, cast

import apsw
import attrs

from trivet.store.interface import StoreError
from trivet.store.sqlite.errors import StoreCorrupt, StoreReadOnly, StoreTooNew, translated
from trivet.store.sqlite.lock import FileLock
from trivet.store.sqlite.nowait import NearReader, has_nowait
from trivet.store.sqlite.schema import APPLICATION_ID, MIGRATIONS
from trivet.store.sqlite.statements import keep_plans, rows

Synchronous: TypeAlias = Literal["normal", "full"]
Check: TypeAlias = Literal["quick", "full"]

FILE_NAME: Final = "trivet.sqlite3"

BUSY_SECONDS: Final = 5
"""How long to wait for a lock that another program, a shell for instance, holds in the file."""

SMALL_FILE: Final = 16 * 2**20
"""Files up to this many bytes are read through at every start, which takes about a tenth of a second."""

WAL_LIMIT: Final = 64 * 2**20
"""Bytes that the write-ahead log is cut down to once its content is in the file."""


@attrs.define
class OpenFile:
    """An open file: the connections to it, and the lock."""

    path: Path
    lock: FileLock
    writer: apsw.Connection
    reader: apsw.Connection
    checkpointer: apsw.Connection
    near: NearReader | None

    def interrupt(self) -> None:
        """Make statements that run now end with InterruptError."""
        for connection in (self.writer, self.reader, self.checkpointer):
            with suppress(apsw.ConnectionClosedError):
                connection.interrupt()

    def close(self) -> None:
        """Put the log into the file, as far as that goes, and release the lock."""
        if self.near is not None:
            self.near.close()
        try:
            self.reader.close()
            self.checkpointer.close()
            try:
                self.writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            except apsw.Error:
                # Full disk, another reader, or no time: the log stays, and the next start finds it.
                self.writer.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            self.writer.close()
        finally:
            if self.near is not None:
                self.near.close_descriptors()
            self.lock.release()


def located(where: str | os.PathLike[str]) -> Path:
    """The file that is meant: a path with a suffix is a file, unless it is a directory that exists."""
    path = Path(where).absolute()
    return path if path.suffix and not path.is_dir() else path / FILE_NAME


def open_file(
    where: str | os.PathLike[str], synchronous: Synchronous, check: Check, migrations: Sequence[str] = MIGRATIONS
) -> OpenFile:
    """Open it, or make it. Raises StoreError, having changed nothing in a file that it cannot use."""
    path = located(where)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreReadOnly(f"the directory {path.parent} cannot be made: {error.strerror}") from error
    lock = FileLock(path.with_name(f"{path.name}-lock"))
    opened: list[apsw.Connection] = []
    try:
        _refuse_lost(path)
        writer = _connect(path, synchronous, opened)
        _prepare(writer, path, migrations)
        _check(writer, path, full=check == "full")
        reader = _connect(path, synchronous, opened)
        checkpointer = _connect(path, synchronous, opened)
        near = NearReader(path) if has_nowait(lock.descriptor) else None
        return OpenFile(path, lock, writer, reader, checkpointer, near)
    except BaseException as error:
        for connection in reversed(opened):
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            connection.close()
        lock.release()
        if isinstance(error, Exception):
            raise translated(error, path) from error
        raise


def _connect(path: Path, synchronous: Synchronous, opened: list[apsw.Connection]) -> apsw.Connection:
    connection = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
    opened.append(connection)
    connection.set_busy_timeout(BUSY_SECONDS * 1000)
    keep_plans(connection)
    # SQLite opens a file that it may not write to as well.
    if connection.readonly("main"):
        raise StoreReadOnly(f"{path} may not be written to; check its owner, its mode and its mount")
    rows(connection, "PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON")
    rows(connection, f"PRAGMA journal_size_limit = {WAL_LIMIT}; PRAGMA synchronous = {synchronous}")
    if synchronous == "full":
        # On macOS only this makes the disk itself write (F_FULLFSYNC); elsewhere it changes nothing.
        rows(connection, "PRAGMA fullfsync = ON; PRAGMA checkpoint_fullfsync = ON")
    # The store decides when; see checkpoints.py.
    connection.set_wal_hook(None)
    rows(connection, "PRAGMA wal_autocheckpoint = 0")
    return connection


def _number(connection: apsw.Connection, pragma: str) -> int:
    return cast("int", rows(connection, f"PRAGMA {pragma}")[0][0])


def _refuse_lost(path: Path) -> None:
    """SQLite throws the log of an empty file away. One that has something in it was written for another file."""
    log = path.with_name(f"{path.name}-wal")
    size = path.stat().st_size if path.exists() else 0
    if size == 0 and log.exists() and log.stat().st_size > 0:
        raise StoreCorrupt(
            f"{path} is gone or empty, but its log {log.name} is not; restore both, or move the log away"
        )


def _prepare(connection: apsw.Connection, path: Path, migrations: Sequence[str]) -> None:
    """Make the file one of this version."""
    application, version = _number(connection, "application_id"), _number(connection, "user_version")
    if application != APPLICATION_ID:
        if _number(connection, "page_count") > 0:
            raise StoreCorrupt(f"{path} is a database of another program; give another path")
        rows(connection, f"PRAGMA application_id = {APPLICATION_ID}")
    if version > len(migrations):
        raise StoreTooNew(
            f"{path} was written by a later trivet (schema {version}; this one knows {len(migrations)}); "
            "install that version, or restore a backup"
        )
    mode = rows(connection, "PRAGMA journal_mode = WAL")[0][0]
    if mode != "wal":
        raise StoreError(f"{path}: its file system has no shared memory; use a local disk")
    for number, script in enumerate(migrations[version:], version + 1):
        # DDL is transactional, and so is user_version: a start that fails leaves the file at the version it had.
        with connection:
            rows(connection, script)
            rows(connection, f"PRAGMA user_version = {number}")


def _check(connection: apsw.Connection, path: Path, *, full: bool) -> None:
    """Raises StoreCorrupt. Takes a time that does not grow with the file, unless it shall be full."""
    # What a process that was killed has left goes into the file, so that the file's header is true.
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    size, pages = path.stat().st_size, _number(connection, "page_count")
    if size < pages * _number(connection, "page_size"):
        raise StoreCorrupt(f"{path} has lost its end ({size} bytes of {pages} pages); restore a backup")
    if full or size <= SMALL_FILE:
        wrong = problems(connection, full=full)
    else:
        # The first and the last entry of each table and index, which reads each tree from its root down.
        _sample(connection)
        wrong = []
    if wrong:
        raise StoreCorrupt(f"{path} is damaged: {'; '.join(wrong[:5])}; keep a copy, then restore a backup")


def _sample(connection: apsw.Connection) -> None:
    for table, order in (
        ("actors", "number"),
        ("actors", "id"),
        ("actors", "namespace, name, key"),
        ("actors", "namespace, created_at, id"),
        ("actors", "namespace, name, created_at, id"),
        ("states", "actor"),
        ("connections", "actor, id"),
        ("schedules", "actor, id"),
    ):
        backwards = ", ".join(f"{column} DESC" for column in order.split(", "))
        for direction in (order, backwards):
            rows(connection, f"SELECT * FROM {table} ORDER BY {direction} LIMIT 1")


# Not SQLite's business: what this program promises itself.
_PROMISES: Final = (
    ("a key that is not JSON", "SELECT id FROM actors WHERE NOT json_valid(key)"),
    (
        "a state that is not JSON",
        "SELECT id FROM states JOIN actors ON number = actor WHERE NOT json_valid(state)",
    ),
    *(
        (f"{table} of no actor", f"SELECT actor FROM {table} WHERE actor NOT IN (SELECT number FROM actors)")
        for table in ("states", "connections", "schedules")
    ),
)


def problems(connection: apsw.Connection, *, full: bool) -> list[str]:
    """What is wrong with a file, in words; all of the file is read. `full` compares each index with its table too."""
    try:
        checked = rows(connection, f"PRAGMA {'integrity_check' if full else 'quick_check'}(10)")
    except apsw.CorruptError as error:
        return [str(error)]
    wrong = [cast("str", text) for (text,) in checked if text != "ok"]
    if full and not wrong:
        for what, query in _PROMISES:
            wrong += [f"{what}: {found}" for (found,) in rows(connection, f"{query} LIMIT 1")]
    return wrong
