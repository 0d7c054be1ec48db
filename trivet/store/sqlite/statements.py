"""Statements of SQL, typed."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias, cast

import apsw

Values: TypeAlias = Sequence[str | bytes | float | None]
Row: TypeAlias = tuple[Any, ...]


def keep_plans(connection: apsw.Connection) -> None:
    """Prepare each statement once, and not again for each new value.

    apsw's SQLite is made with STAT4, which may choose another plan for other values: a join whose values have changed
    is prepared anew, which costs more than to run it (12 us of 17, measured). The statements here have one good plan.
    """
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)


def rows(connection: apsw.Connection, statements: str, values: Values = ()) -> list[Row]:
    """Run one statement or several, to the end. Raises apsw.Error."""
    # apsw's own types name collections.abc.Buffer, which Python 3.11 does not have.
    cursor = connection.execute(statements, values)  # pyright: ignore[reportUnknownMemberType]
    return cast("list[Row]", cursor.fetchall())  # pyright: ignore[reportUnknownMemberType]


def row(connection: apsw.Connection, statement: str, values: Values = ()) -> Row | None:
    """The first row, of a statement that has one at most."""
    found = rows(connection, statement, values)
    return found[0] if found else None


def run_each(connection: apsw.Connection, statement: str, each: Iterable[Values]) -> None:
    """Run a statement once for each of the values. Raises apsw.Error."""
    connection.executemany(statement, each)  # pyright: ignore[reportUnknownMemberType]
