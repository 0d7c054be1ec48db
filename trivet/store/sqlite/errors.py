"""What goes wrong with a file of SQLite, told so that somebody can do something about it."""

import os
from json import JSONDecodeError
from typing import Final

import apsw

from trivet.store.interface import StoreError


class StoreFull(StoreError):
    """There is no room for what should be written. Nothing of it was; once there is room, commits work again."""


class StoreReadOnly(StoreError):
    """The file or its directory may not be written to."""


class StoreCorrupt(StoreError):
    """The file is damaged, or is none of trivet's. It was left as it is."""


class StoreInUse(StoreError):
    """Another process has the file, or holds a lock in it."""


class StoreTooNew(StoreError):
    """The file was written by a later version of trivet. It was left as it is."""


# By SQLite's result codes (https://www.sqlite.org/rescode.html): the kind of error, and what to do.
_ADVICE: Final[dict[type[apsw.Error], tuple[type[StoreError], str]]] = {
    apsw.FullError: (StoreFull, "the disk is full; make room, and commits work again"),
    apsw.ReadOnlyError: (StoreReadOnly, "the file may not be written to; check its owner, its mode and its mount"),
    apsw.PermissionsError: (StoreReadOnly, "no permission; check the owner and the mode of the file"),
    apsw.CantOpenError: (StoreReadOnly, "the file cannot be opened or made; check the owner and mode of its directory"),
    apsw.CorruptError: (
        StoreCorrupt,
        "the file is damaged; keep a copy of it, then restore a backup, or save what `.recover` of sqlite3 can read",
    ),
    apsw.NotADBError: (StoreCorrupt, "the file is not a database of SQLite; give another path, or restore a backup"),
    apsw.BusyError: (StoreInUse, "another program holds a lock in the file; end its transaction"),
    apsw.TooBigError: (StoreError, "one value is larger than SQLite keeps (1 GB)"),
    apsw.IOError: (StoreError, "the disk failed, or a limit on the size of files was reached"),
    apsw.InterruptError: (StoreError, "the store is closing"),
}


def translated(error: Exception, path: str | os.PathLike[str]) -> StoreError:
    """The StoreError for an exception that came out of SQLite; a StoreError stays itself."""
    if isinstance(error, StoreError):
        return error
    for kind, (translation, advice) in _ADVICE.items():
        if isinstance(error, kind):
            return translation(f"{os.fspath(path)}: {advice} ({error})")
    if isinstance(error, (UnicodeDecodeError, JSONDecodeError)):
        _, advice = _ADVICE[apsw.CorruptError]
        return StoreCorrupt(f"{os.fspath(path)}: {advice} ({error})")
    return StoreError(f"{os.fspath(path)}: {type(error).__name__}: {error}")
