"""What the tests of stores share."""

import json
from collections.abc import Mapping
from typing import Any

from trivet.store import ActorRow, Changes, Store


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
