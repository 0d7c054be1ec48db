"""What survives: the interface of stores, and the stores."""

from trivet.store.interface import (
    UNCHANGED,
    ActorRow,
    Changes,
    DuplicateActor,
    StaleGeneration,
    Store,
    Stored,
    StoreError,
    Unchanged,
    check_store,
)
from trivet.store.memory import MemoryStore

__all__ = [
    "UNCHANGED",
    "ActorRow",
    "Changes",
    "DuplicateActor",
    "MemoryStore",
    "StaleGeneration",
    "Store",
    "StoreError",
    "Stored",
    "Unchanged",
    "check_store",
]
