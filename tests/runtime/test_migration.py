"""State of an older class: migrated, or refused with words that help."""

import json
from typing import Any

import attrs
import pytest

from tests.runtime.support import REQUEST
from trivet import Actor, Options, PublicError, Registry, action
from trivet.runtime.host import open_host
from trivet.store import MemoryStore


@attrs.define
class OldState:
    name: str = "old"
    tags: list[str] = attrs.field(factory=lambda: ["a"])


@attrs.define
class NewState:
    title: str
    tags: list[str]
    size: int = 1


class Old(Actor[OldState]):
    name = "thing"

    @action
    def show(self) -> str:
        return f"{self.state.name} {self.state.tags}"


class Migrating(Actor[NewState]):
    name = "thing"
    options = Options(state_version=2)

    def create_state(self, input: None) -> NewState:
        return NewState("new", [])

    def on_migrate(self, is_new: bool) -> None:
        if self.stored is not None and self.stored.version < 2:
            self.stored.value["title"] = self.stored.value.pop("name").upper()

    @action
    def show(self) -> str:
        assert self.stored is None
        return f"{self.state.title} {self.state.tags} {self.state.size}"


class NotMigrating(Actor[NewState]):
    name = "thing"

    def create_state(self, input: None) -> NewState:
        return NewState("new", [])

    @action
    def show(self) -> str:
        return self.state.title


class WithoutState(Actor):
    name = "thing"

    @action
    def show(self) -> str:
        return "nothing"


async def show(store: MemoryStore, cls: type[Actor[Any]]) -> object:
    async with open_host(Registry(cls), store=store) as host:
        instance, _ = await host.get_or_create("default", "thing", ("k",))
        return await instance.call("show", [], request=REQUEST)


async def stored(store: MemoryStore) -> tuple[Any, int]:
    row = await store.find("default", "thing", ("k",))
    assert row is not None
    found = await store.load(row.actor_id)
    assert found is not None
    assert found.state is not None
    return json.loads(found.state), found.state_version


async def test_a_changed_class_migrates_what_was_stored() -> None:
    store = MemoryStore(durable=True)
    assert await show(store, Old) == "old ['a']"
    assert await stored(store) == ({"name": "old", "tags": ["a"]}, 1)
    assert await show(store, Migrating) == "OLD ['a'] 1"
    assert await stored(store) == ({"title": "OLD", "tags": ["a"], "size": 1}, 2)
    assert await show(store, Migrating) == "OLD ['a'] 1"


async def test_a_new_actor_has_nothing_to_migrate() -> None:
    assert await show(MemoryStore(durable=True), Migrating) == "new [] 1"


async def test_what_does_not_fit_is_refused_with_actor_and_path(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore(durable=True)
    await show(store, Old)
    for _ in range(2):
        with pytest.raises(PublicError, match="internal_error"):
            await show(store, NotMigrating)
    assert "thing[k]: its stored state does not fit NotMigrating: " in caplog.text
    assert "title" in caplog.text
    assert "change it in on_migrate" in caplog.text
    assert await stored(store) == ({"name": "old", "tags": ["a"]}, 1)  # nothing is lost
    assert await show(store, Old) == "old ['a']"


async def test_what_a_newer_class_has_stored_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore(durable=True)
    await show(store, Migrating)
    with pytest.raises(PublicError, match="internal_error"):
        await show(store, NotMigrating)
    assert "was stored with version 2, which is newer than 1" in caplog.text


async def test_a_class_may_gain_or_lose_its_state(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore(durable=True)
    assert await show(store, WithoutState) == "nothing"
    assert await show(store, Old) == "old ['a']"
    assert await show(store, WithoutState) == "nothing"
    assert await show(store, Old) == "old ['a']"
    fresh = MemoryStore(durable=True)
    await show(fresh, WithoutState)
    with pytest.raises(PublicError, match="internal_error"):
        await show(fresh, NotMigrating)
    assert "was stored without a state" in caplog.text


def test_versions_count_from_one() -> None:
    with pytest.raises(ValueError, match="state_version"):
        Options(state_version=0)
