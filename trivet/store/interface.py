"""What survives an actor's life, and what keeps it: the interface that the runtime needs of a store.

A store keeps actors by id: who each is, its state, the connections and schedules that outlive its process, and its
next alarm. One commit changes all of these of one actor at once, or nothing. The shape is that of a Rivet Engine:
atomic batches for each actor, a generation for each life, one next alarm.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from enum import Enum
from typing import Final, Literal, TypeAlias

import attrs
import trio

from trivet.errors import TrivetError


class StoreError(TrivetError):
    """The store could not do what it was asked to: the disk is full, read-only or broken. The message says which."""


class StaleGeneration(StoreError):
    """A commit of a life that is over: another has begun, or the actor was destroyed."""


class DuplicateActor(StoreError):
    """There is an actor of that namespace, name and key; `existing` is it."""

    def __init__(self, existing: "ActorRow") -> None:
        super().__init__(f"there is an actor {existing.name} with this key: {existing.actor_id}")
        self.existing = existing


class _Unchanged(Enum):
    UNCHANGED = "unchanged"


UNCHANGED: Final = _Unchanged.UNCHANGED
Unchanged: TypeAlias = Literal[_Unchanged.UNCHANGED]


@attrs.frozen
class ActorRow:
    """Who an actor is. `created_at` in seconds since 1970; `key` may be empty."""

    actor_id: str
    namespace: str
    name: str
    key: tuple[str, ...]
    created_at: float


@attrs.frozen
class Stored:
    """What an actor wakes up with. `state` is JSON text, None for one without; the mappings hold JSON by id."""

    row: ActorRow
    generation: int
    """Of its last life that committed something."""
    state: bytes | None
    state_version: int
    connections: Mapping[str, bytes]
    schedules: Mapping[str, bytes]


@attrs.frozen
class Changes:
    """What one commit changes. In the mappings, None removes; an id that is not there stays as it was."""

    state: bytes | None = None
    """JSON text; None leaves it, and its version, as it was."""
    state_version: int = 0
    connections: Mapping[str, bytes | None] = attrs.field(factory=dict[str, bytes | None])
    schedules: Mapping[str, bytes | None] = attrs.field(factory=dict[str, bytes | None])
    alarm: float | Unchanged | None = UNCHANGED
    """When the actor must be woken, in seconds since 1970; None for never."""


class Store(ABC):
    """Keeps actors. All methods raise StoreError; none blocks the event loop, and all that are async are checkpoints.

    One process uses a store at a time. Methods may be called from many tasks at once; commits of one actor take effect
    in the order of the calls. Cancelling a commit that has begun leaves it open whether it took effect, until the
    actor is loaded: `load` and its kin wait for what has begun, so that nothing of an earlier life takes effect after
    the next one has read.
    """

    durable: bool
    """Whether what was committed survives the process. Where it does not, nothing is gained by waiting for a commit."""

    @abstractmethod
    async def create(self, row: ActorRow, changes: Changes) -> None:
        """Keep a new actor, of generation 1. Raises DuplicateActor."""

    @abstractmethod
    async def find(self, namespace: str, name: str, key: tuple[str, ...]) -> ActorRow | None:
        """The actor of that name and key, or None."""

    @abstractmethod
    async def find_id(self, actor_id: str) -> ActorRow | None:
        """The actor of that id, or None."""

    @abstractmethod
    async def load(self, actor_id: str) -> Stored | None:
        """Everything of an actor, or None where there is none."""

    async def load_by_key(self, namespace: str, name: str, key: tuple[str, ...]) -> Stored | None:
        """Everything of the actor of that name and key, or None: what a wake begins with.

        Here it is `find` and then `load`. A store that can do both in one read has half the work with a wake.
        """
        row = await self.find(namespace, name, key)
        return None if row is None else await self.load(row.actor_id)

    def load_by_key_nowait(self, namespace: str, name: str, key: tuple[str, ...]) -> Stored | None:
        """`load_by_key`, where nothing has to be waited for. Raises trio.WouldBlock otherwise (here it always does) and
        where anything goes wrong: then `load_by_key` is asked, which need not try the same again.
        """
        raise trio.WouldBlock

    @abstractmethod
    async def commit(self, actor_id: str, generation: int, changes: Changes) -> None:
        """Change all that, or nothing. Returns once it is durable.

        `generation` is that of the life that commits; it is kept. Raises StaleGeneration where a later one has been
        kept, and where the actor is no more.
        """

    @abstractmethod
    async def destroy(self, actor_id: str) -> None:
        """Forget an actor and all of it. Its key is free again. Idempotent."""

    @abstractmethod
    async def list(self, namespace: str, name: str | None, after: tuple[float, str], limit: int) -> Sequence[ActorRow]:
        """The oldest actors of a namespace, of one name or all, with a (created_at, actor_id) above `after`."""

    @abstractmethod
    async def next_alarm(self) -> float | None:
        """The earliest alarm of all actors, in seconds since 1970."""

    @abstractmethod
    async def due(self, now: float, limit: int) -> Sequence[tuple[ActorRow, float]]:
        """The actors whose alarm is not after `now`, the earliest first, with their alarms."""


def check_store(store: object, taker: str) -> None:
    """Raise TypeError, saying what to write, where `taker` was given something else than a Store or None."""
    if store is None or isinstance(store, Store):
        return
    given = repr(store) if isinstance(store, str) else f"a {type(store).__qualname__}"
    if isinstance(store, AbstractAsyncContextManager):
        given = "one that is not open"
    example = "async with trivet.open_sqlite_store(path) as store: ..."
    raise TypeError(
        f"{taker} takes a Store, got {given}; enter it with async with, and pass what that gives: {example}"
    )
