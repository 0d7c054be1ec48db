"""Actors in a file of SQLite: one writer, commits in groups, nothing on the event loop that waits for a disk."""

from trivet.store.sqlite.errors import StoreCorrupt, StoreFull, StoreInUse, StoreReadOnly, StoreTooNew
from trivet.store.sqlite.store import SQLiteStore, StoreStatistics, check_sqlite_store, open_sqlite_store

__all__ = [
    "SQLiteStore",
    "StoreCorrupt",
    "StoreFull",
    "StoreInUse",
    "StoreReadOnly",
    "StoreStatistics",
    "StoreTooNew",
    "check_sqlite_store",
    "open_sqlite_store",
]
