"""The tables, and how files of earlier versions become files of this one.

All of it is text that a person can read in the sqlite3 shell:

    SELECT name, key, state FROM actors JOIN states ON actor = number;
"""

from typing import Final

APPLICATION_ID: Final = int.from_bytes(b"trvt", "big")
"""In the file's header, so that no other database is taken for one of trivet's (and `file` can tell)."""

_FIRST: Final = """
-- Who there is. A row is small, and written to only as an actor is made, begins a life, or sets its alarm.
CREATE TABLE actors (
    number      INTEGER PRIMARY KEY,    -- what the other tables call the actor; free again once it is destroyed
    id          TEXT NOT NULL UNIQUE,
    namespace   TEXT NOT NULL,
    name        TEXT NOT NULL,
    key         TEXT NOT NULL,          -- a JSON array of strings
    created_at  REAL NOT NULL,          -- seconds since 1970
    generation  INTEGER NOT NULL,       -- of the last life that committed something
    alarm       REAL,                   -- when to wake the actor, seconds since 1970
    UNIQUE (namespace, name, key)
) STRICT;
CREATE INDEX actors_by_age ON actors (namespace, created_at, id);
CREATE INDEX actors_by_name_and_age ON actors (namespace, name, created_at, id);
CREATE INDEX actors_by_alarm ON actors (alarm, id) WHERE alarm IS NOT NULL;

-- Apart from the actors: SQLite writes whole rows, and states may be large.
CREATE TABLE states (
    actor       INTEGER PRIMARY KEY,    -- actors.number
    version     INTEGER NOT NULL,       -- of the state's own schema, which the actor's class knows
    state       TEXT NOT NULL           -- JSON
) STRICT;

CREATE TABLE connections (
    actor       INTEGER NOT NULL,       -- actors.number
    id          TEXT NOT NULL,
    data        TEXT NOT NULL,          -- JSON
    PRIMARY KEY (actor, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE schedules (
    actor       INTEGER NOT NULL,       -- actors.number
    id          TEXT NOT NULL,
    data        TEXT NOT NULL,          -- JSON
    PRIMARY KEY (actor, id)
) STRICT, WITHOUT ROWID;
"""

MIGRATIONS: Final[tuple[str, ...]] = (_FIRST,)
"""Scripts; the version of a file (PRAGMA user_version) is how many of them it has seen. Only ever append."""
