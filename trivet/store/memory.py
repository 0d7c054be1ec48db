"""A store that lives as long as its process."""

from bisect import insort
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import attrs
import trio

from trivet.store.interface import (
    UNCHANGED,
    ActorRow,
    Changes,
    DuplicateActor,
    StaleGeneration,
    Store,
    Stored,
)

_NONE: Final[Mapping[str, bytes]] = MappingProxyType({})


@attrs.define
class _Kept:
    """One actor. A change puts another mapping in the place of one, so that what was loaded stays as it was."""

    row: ActorRow
    generation: int = 1
    state: bytes | None = None
    state_version: int = 0
    connections: Mapping[str, bytes] = _NONE
    schedules: Mapping[str, bytes] = _NONE
    alarm: float | None = None


class MemoryStore(Store):
    """Keeps actors in memory. They sleep and wake as with any store; with the process all of them are gone.

    `durable=True` makes actors treat it as one that survives: tests do that, to see what a restart finds.
    """

    def __init__(self, *, durable: bool = False) -> None:
        self.durable = durable
        self._by_id: dict[str, _Kept] = {}
        self._by_address: dict[tuple[str, str, tuple[str, ...]], _Kept] = {}

    async def create(self, row: ActorRow, changes: Changes) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        address = (row.namespace, row.name, row.key)
        if address in self._by_address:
            raise DuplicateActor(self._by_address[address].row)
        kept = self._by_id[row.actor_id] = self._by_address[address] = _Kept(row)
        _apply(kept, changes)
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def find(self, namespace: str, name: str, key: tuple[str, ...]) -> ActorRow | None:
        await trio.lowlevel.checkpoint()
        kept = self._by_address.get((namespace, name, key))
        return None if kept is None else kept.row

    async def find_id(self, actor_id: str) -> ActorRow | None:
        await trio.lowlevel.checkpoint()
        kept = self._by_id.get(actor_id)
        return None if kept is None else kept.row

    async def load(self, actor_id: str) -> Stored | None:
        await trio.lowlevel.checkpoint()
        kept = self._by_id.get(actor_id)
        return None if kept is None else _stored(kept)

    async def load_by_key(self, namespace: str, name: str, key: tuple[str, ...]) -> Stored | None:
        await trio.lowlevel.checkpoint()
        kept = self._by_address.get((namespace, name, key))
        return None if kept is None else _stored(kept)

    def load_by_key_nowait(self, namespace: str, name: str, key: tuple[str, ...]) -> Stored | None:
        kept = self._by_address.get((namespace, name, key))
        return None if kept is None else _stored(kept)

    async def commit(self, actor_id: str, generation: int, changes: Changes) -> None:
        # Before anything of it, so that commits take effect in the order of the calls: Trio's scheduler has none.
        await trio.lowlevel.checkpoint_if_cancelled()
        kept = self._by_id.get(actor_id)
        if kept is None or generation < kept.generation:
            raise StaleGeneration(f"{actor_id} has another life than number {generation}")
        kept.generation = generation
        _apply(kept, changes)
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def destroy(self, actor_id: str) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        kept = self._by_id.pop(actor_id, None)
        if kept is not None:
            del self._by_address[kept.row.namespace, kept.row.name, kept.row.key]
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def list(self, namespace: str, name: str | None, after: tuple[float, str], limit: int) -> Sequence[ActorRow]:
        await trio.lowlevel.checkpoint()
        found: list[tuple[float, str, ActorRow]] = []
        for kept in self._by_id.values():
            row = kept.row
            place = (row.created_at, row.actor_id)
            if row.namespace == namespace and name in (None, row.name) and place > after:
                insort(found, (*place, row))
        return [row for *_, row in found[:limit]]

    async def next_alarm(self) -> float | None:
        await trio.lowlevel.checkpoint()
        return min((kept.alarm for kept in self._by_id.values() if kept.alarm is not None), default=None)

    async def due(self, now: float, limit: int) -> Sequence[tuple[ActorRow, float]]:
        await trio.lowlevel.checkpoint()
        due = [(kept.alarm, kept.row) for kept in self._by_id.values() if kept.alarm is not None and kept.alarm <= now]
        due.sort(key=lambda one: (one[0], one[1].actor_id))
        return [(row, alarm) for alarm, row in due[:limit]]


def _stored(kept: _Kept) -> Stored:
    return Stored(kept.row, kept.generation, kept.state, kept.state_version, kept.connections, kept.schedules)


def _apply(kept: _Kept, changes: Changes) -> None:
    if changes.state is not None:
        kept.state, kept.state_version = changes.state, changes.state_version
    if changes.connections:
        kept.connections = _changed(kept.connections, changes.connections)
    if changes.schedules:
        kept.schedules = _changed(kept.schedules, changes.schedules)
    if changes.alarm is not UNCHANGED:
        kept.alarm = changes.alarm


def _changed(table: Mapping[str, bytes], changes: Mapping[str, bytes | None]) -> Mapping[str, bytes]:
    return {id_: value for id_, value in {**table, **changes}.items() if value is not None} or _NONE
