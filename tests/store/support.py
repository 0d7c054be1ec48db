"""What the tests of stores share."""

import json
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
import pytest
import trio
from outcome import Outcome

from trivet.store import ActorRow, Changes, Store
from trivet.store.sqlite import SQLiteStore
from trivet.store.sqlite.writer import Change


def row(number: int, *, name: str = "room", namespace: str = "default", key: tuple[str, ...] | None = None) -> ActorRow:
    """The actor of that number: created at that second."""
    return ActorRow(f"id-{number}", namespace, name, (str(number),) if key is None else key, float(number))


def state(value: object, version: int = 1, **rest: Any) -> Changes:
    """A commit of a state, and what else is given."""
    return Changes(json.dumps(value).encode(), version, **rest)


async def stored_state(store: Store, actor_id: str) -> object:
    stored = await store.load(actor_id)
    assert stored is not None
    return None if stored.state is None else json.loads(stored.state)


def values(mapping: Mapping[str, bytes]) -> dict[str, object]:
    return {id_: json.loads(value) for id_, value in mapping.items()}


@attrs.frozen
class StoppedWriter:
    begun: trio.Event
    """It has a group in its hands."""
    go_on: threading.Event


@contextmanager
def stopped_writer(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> Generator[StoppedWriter]:
    """The writer's thread stops at its next group, as with a slow disk, until it is told to go on."""
    stopped = StoppedWriter(trio.Event(), threading.Event())
    token = trio.lowlevel.current_trio_token()
    apply = store._committer.apply

    def slow(changes: Sequence[Change]) -> Sequence[Outcome[None]]:
        token.run_sync_soon(stopped.begun.set)
        assert stopped.go_on.wait(60)
        return apply(changes)

    with monkeypatch.context() as patch:
        patch.setattr(store._committer, "apply", slow)
        try:
            yield stopped
        finally:
            stopped.go_on.set()
