"""Groups of changes, each group in one transaction."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias, TypeGuard

import apsw
import attrs
from outcome import Error, Outcome, Value

from trivet.store.interface import UNCHANGED, ActorRow, Changes, DuplicateActor, StaleGeneration, StoreError
from trivet.store.sqlite.errors import StoreCorrupt, translated
from trivet.store.sqlite.reading import find, key_text
from trivet.store.sqlite.statements import row, rows, run_each

MOST_CHANGES: Final = 1_024
MOST_BYTES: Final = 16 * 2**20
"""Of one group: what comes later waits for it."""


@attrs.frozen
class Create:
    row: ActorRow
    changes: Changes


@attrs.frozen
class Commit:
    actor_id: str
    generation: int
    changes: Changes


@attrs.frozen
class Destroy:
    actor_id: str


@attrs.frozen
class Nothing:
    """Done once all that came before it is."""


Address: TypeAlias = tuple[str, str, tuple[str, ...]]
"""A namespace, a name and a key."""

Change: TypeAlias = Create | Commit | Destroy | Nothing


def concerns(change: Change, actor_id: str | None, address: Address | None) -> bool:
    """Whether it changes the actor of that id, or creates one of that address."""
    match change:
        case Create(row):
            return row.actor_id == actor_id or (row.namespace, row.name, row.key) == address
        case Commit(changed) | Destroy(changed):
            return changed == actor_id
        case Nothing():
            return False


def weigh(change: Change) -> int:
    """About how many bytes it writes."""
    if isinstance(change, Destroy | Nothing):
        return 0
    changes = change.changes
    mappings = (changes.connections, changes.schedules)
    return len(changes.state or b"") + sum(len(value or b"") for mapping in mappings for value in mapping.values())


def _is_state_alone(change: Change) -> TypeGuard[Commit]:
    """Whether it is what most changes are: a new state, and nothing else."""
    if not isinstance(change, Commit):
        return False
    changes = change.changes
    rest = changes.connections or changes.schedules or changes.alarm is not UNCHANGED
    return changes.state is not None and not rest


# In the thread each statement that runs gives up the interpreter's lock, and gets it back when the event loop pleases:
# with a busy loop, up to 5 ms later. So the most common change, a new state in the same life, is one statement, and
# many of them are few: 1,000 beside a busy loop took 39 ms so, and 200 ms one by one (measured).
def _put_states(count: int) -> str:
    values = ", ".join(["(?, ?, ?, ?)"] * count)
    # CROSS JOIN, and not an UPDATE: the planner would go through all states.
    return (
        "INSERT INTO states (actor, version, state) SELECT actors.number, new.column3, CAST(new.column4 AS TEXT) "
        f"FROM (VALUES {values}) AS new CROSS JOIN actors ON actors.id = new.column1 "
        "AND actors.generation = new.column2 WHERE true "
        "ON CONFLICT DO UPDATE SET version = excluded.version, state = excluded.state"
    )


_PUT_STATES: Final = {count: _put_states(count) for count in (128, 32, 8, 1)}


class Writer:
    """Applies changes. For one thread."""

    def __init__(self, connection: apsw.Connection, path: str | os.PathLike[str]) -> None:
        self._connection = connection
        self._path = path
        self.groups = 0
        self.changes = 0

    def apply(self, changes: Sequence[Change]) -> Sequence[Outcome[None]]:
        """Each change as a whole or not at all, in order; what is wrong with one does no harm to the others."""
        try:
            results = self._transaction(changes)
        except Exception as raised:
            error = self._undone(raised)
            if len(changes) == 1:
                return [Error(error)]
            if isinstance(error, StoreCorrupt):
                return [Error(translated(raised, self._path)) for _ in changes]
            return [result for change in changes for result in self.apply([change])]
        self.groups += 1
        self.changes += len(changes)
        return [Value(None) if error is None else Error(error) for error in results]

    def _undone(self, raised: Exception) -> StoreError:
        error = translated(raised, self._path)
        error.__cause__ = raised
        try:
            if self._connection.in_transaction:
                rows(self._connection, "ROLLBACK")
        except apsw.Error as second:
            error.add_note(f"and it could not be rolled back: {second}")
        return error

    def _transaction(self, changes: Sequence[Change]) -> Sequence[StoreError | None]:
        if len(changes) == 1 and _is_state_alone(first := changes[0]) and self._put_states([first]):
            return [None]
        rows(self._connection, "BEGIN IMMEDIATE")
        results: list[StoreError | None] = []
        run: dict[str, Commit] = {}
        for change in changes:
            if _is_state_alone(change) and change.actor_id not in run:
                run[change.actor_id] = change
                continue
            results += self._put_all(list(run.values()))
            run = {}
            if _is_state_alone(change):
                run[change.actor_id] = change
            else:
                results.append(self._apply_one(change))
        results += self._put_all(list(run.values()))
        rows(self._connection, "COMMIT")
        return results

    def _put_all(self, commits: Sequence[Commit]) -> Sequence[StoreError | None]:
        """New states of different actors."""
        start = 0
        for size in _PUT_STATES:
            while len(commits) - start >= size:
                if not self._put_states(commits[start : start + size]):
                    # One is of another life. To write the others again changes nothing.
                    return [self._commit(commit) for commit in commits]
                start += size
        return [None] * start

    def _put_states(self, commits: Sequence[Commit]) -> bool:
        """Whether all of them belong to the life that is kept; the states of those are written."""
        values: list[str | int | bytes | None] = []
        for commit in commits:
            values += (commit.actor_id, commit.generation, commit.changes.state_version, commit.changes.state)
        rows(self._connection, _PUT_STATES[len(commits)], values)
        return self._connection.changes() == len(commits)

    def _apply_one(self, change: Change) -> StoreError | None:
        if isinstance(change, Create):
            return self._create(change.row, change.changes)
        if isinstance(change, Commit):
            return self._commit(change)
        if isinstance(change, Destroy):
            self._destroy(change.actor_id)
        return None

    def _create(self, row: ActorRow, changes: Changes) -> StoreError | None:
        existing = find(self._connection, row.namespace, row.name, row.key)
        if existing is not None:
            return DuplicateActor(existing)
        alarm = None if changes.alarm is UNCHANGED else changes.alarm
        rows(
            self._connection,
            "INSERT INTO actors (id, namespace, name, key, created_at, generation, alarm) VALUES (?, ?, ?, ?, ?, 1, ?)",
            (row.actor_id, row.namespace, row.name, key_text(row.key), row.created_at, alarm),
        )
        self._write(self._connection.last_insert_rowid(), changes)
        return None

    def _commit(self, commit: Commit) -> StoreError | None:
        found = row(self._connection, "SELECT number, generation FROM actors WHERE id = ?", (commit.actor_id,))
        number, generation = found or (0, math.inf)
        if generation > commit.generation:
            return StaleGeneration(f"{commit.actor_id} has another life than number {commit.generation}")
        if generation != commit.generation:
            rows(self._connection, "UPDATE actors SET generation = ? WHERE number = ?", (commit.generation, number))
        if commit.changes.alarm is not UNCHANGED:
            rows(self._connection, "UPDATE actors SET alarm = ? WHERE number = ?", (commit.changes.alarm, number))
        self._write(number, commit.changes)
        return None

    def _write(self, number: int, changes: Changes) -> None:
        if changes.state is not None:
            rows(
                self._connection,
                "INSERT INTO states (actor, version, state) VALUES (?, ?, CAST(? AS TEXT)) "
                "ON CONFLICT DO UPDATE SET version = excluded.version, state = excluded.state",
                (number, changes.state_version, changes.state),
            )
        for table, changed in (("connections", changes.connections), ("schedules", changes.schedules)):
            self._write_mapping(table, number, changed)

    def _write_mapping(self, table: str, number: int, changed: Mapping[str, bytes | None]) -> None:
        kept = [(number, id_, value) for id_, value in changed.items() if value is not None]
        removed = [(number, id_) for id_, value in changed.items() if value is None]
        if removed:
            run_each(self._connection, f"DELETE FROM {table} WHERE actor = ? AND id = ?", removed)
        if kept:
            run_each(
                self._connection,
                f"INSERT INTO {table} (actor, id, data) VALUES (?, ?, CAST(? AS TEXT)) "
                "ON CONFLICT DO UPDATE SET data = excluded.data",
                kept,
            )

    def _destroy(self, actor_id: str) -> None:
        found = row(self._connection, "SELECT number FROM actors WHERE id = ?", (actor_id,))
        if found is not None:
            for statement in (
                "DELETE FROM states WHERE actor = ?",
                "DELETE FROM connections WHERE actor = ?",
                "DELETE FROM schedules WHERE actor = ?",
                "DELETE FROM actors WHERE number = ?",
            ):
                rows(self._connection, statement, found)
