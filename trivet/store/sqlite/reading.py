"""What is asked of a file, over whichever connection."""

import json
from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring
from types import MappingProxyType
from typing import Any, Final, cast

import apsw

from trivet.store.interface import ActorRow, Stored
from trivet.store.sqlite.statements import Row, row, rows

_ROW: Final = "id, namespace, name, key, created_at"

_load_json: Final = json.JSONDecoder().decode


def key_text(key: Sequence[str]) -> str:
    """A key as it stands in the file. There is one text for each key."""
    text = f"[{','.join(map(encode_basestring, key))}]"
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        # Half of a surrogate pair, which JSON can carry and UTF-8 cannot.
        return json.dumps(key, separators=(",", ":"))
    return text


def _key(text: str) -> tuple[str, ...]:
    parts: list[str] = _load_json(text)
    return tuple(parts)


def _actor_row(columns: Sequence[Any]) -> ActorRow:
    actor_id, namespace, name, key, created_at = columns
    return ActorRow(actor_id, namespace, name, _key(key), created_at)


def find(connection: apsw.Connection, namespace: str, name: str, key: Sequence[str]) -> ActorRow | None:
    found = row(
        connection,
        f"SELECT {_ROW} FROM actors WHERE namespace = ? AND name = ? AND key = ?",
        (namespace, name, key_text(key)),
    )
    return None if found is None else _actor_row(found)


def find_id(connection: apsw.Connection, actor_id: str) -> ActorRow | None:
    found = row(connection, f"SELECT {_ROW} FROM actors WHERE id = ?", (actor_id,))
    return None if found is None else _actor_row(found)


_OF_ACTOR: Final = (
    f"SELECT {_ROW}, generation, version, CAST(state AS BLOB), number, "
    "EXISTS (SELECT 1 FROM connections WHERE actor = number) OR EXISTS (SELECT 1 FROM schedules WHERE actor = number) "
    "FROM actors LEFT JOIN states ON actor = number WHERE "
)
_OF_ID: Final = f"{_OF_ACTOR} id = ?"
_OF_KEY: Final = f"{_OF_ACTOR} namespace = ? AND name = ? AND key = ?"


_NONE: Final[Mapping[str, bytes]] = MappingProxyType({})


def load(connection: apsw.Connection, actor_id: str) -> Stored | None:
    return _load(connection, _OF_ID, (actor_id,))


def load_by_key(connection: apsw.Connection, namespace: str, name: str, key: tuple[str, ...]) -> Stored | None:
    return _load(connection, _OF_KEY, (namespace, name, key_text(key)), key)


def _load(
    connection: apsw.Connection, query: str, values: Sequence[str], key: tuple[str, ...] | None = None
) -> Stored | None:
    found = row(connection, query, values)
    if found is None or not found[-1]:
        # Nearly always, and half the price of all three tables.
        return None if found is None else _stored(found, _NONE, _NONE, key)
    # In a transaction, so that all of it is of one moment.
    rows(connection, "BEGIN")
    try:
        found = row(connection, query, values)
        if found is None:
            return None
        of_actor = (found[-2],)
        connections = rows(connection, "SELECT id, CAST(data AS BLOB) FROM connections WHERE actor = ?", of_actor)
        schedules = rows(connection, "SELECT id, CAST(data AS BLOB) FROM schedules WHERE actor = ?", of_actor)
        return _stored(found, dict(connections), dict(schedules), key)
    finally:
        # Some errors have ended it already.
        if connection.in_transaction:
            rows(connection, "COMMIT")


def _stored(
    found: Row, connections: Mapping[str, bytes], schedules: Mapping[str, bytes], key: tuple[str, ...] | None
) -> Stored:
    """`key`: the actor's, where it is known."""
    actor_id, namespace, name, text, created_at, generation, version, state, _, _ = found
    who = ActorRow(actor_id, namespace, name, _key(text) if key is None else key, created_at)
    return Stored(who, generation, state, version or 0, connections, schedules)


def list_actors(
    connection: apsw.Connection, namespace: str, name: str | None, after: tuple[float, str], limit: int
) -> Sequence[ActorRow]:
    of_name, names = ("", ()) if name is None else (" AND name = ?", (name,))
    found = rows(
        connection,
        f"SELECT {_ROW} FROM actors WHERE namespace = ?{of_name} AND (created_at, id) > (?, ?) "
        "ORDER BY created_at, id LIMIT ?",
        (namespace, *names, *after, limit),
    )
    return [_actor_row(columns) for columns in found]


def next_alarm(connection: apsw.Connection) -> float | None:
    return cast("float | None", rows(connection, "SELECT min(alarm) FROM actors WHERE alarm IS NOT NULL")[0][0])


def due(connection: apsw.Connection, now: float, limit: int) -> Sequence[tuple[ActorRow, float]]:
    found = rows(
        connection, f"SELECT {_ROW}, alarm FROM actors WHERE alarm <= ? ORDER BY alarm, id LIMIT ?", (now, limit)
    )
    return [(_actor_row(columns), alarm) for *columns, alarm in found]
