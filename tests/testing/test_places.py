"""What the kit wraps is there, is what actors and clients really use, and its absence is told by name."""

import functools
from collections import Counter as Count
from typing import Any

import pytest
import trio.testing

from tests.testing.support import REGISTRY, Counter
from trivet.client.listeners import Listeners
from trivet.testing import World
from trivet.testing.places import PLACES, Place, wrap

METHODS = [place for place in PLACES if not place.given]


def ignore(*_: object) -> None:
    pass


async def use_every_place(world: World) -> None:
    async with (await world.client()).get_or_create(Counter, "a").connect() as connection:
        connection.on_error(ignore)
        connection.on(Counter.secret, ignore)  # which is refused
        connection.on(Counter.said, ignore)()
        connection.on(Counter.said, ignore)
        await connection.call(Counter.say, "to all")
        await connection.call(Counter.whisper, "to one")
        await connection.call(Counter.say_patiently, "to all, and to one")
        await world.restart_server()  # after which there is a gap
        await connection.call(Counter.get_count)


async def test_all_that_is_taken_down_passes_through_these_places(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    passed: Count[Place] = Count()

    def counted(place: Place, method: Any) -> Any:
        @functools.wraps(method)
        def count(*args: Any, **kwargs: Any) -> Any:
            passed[place] += 1
            return method(*args, **kwargs)

        return count

    for place in METHODS:
        monkeypatch.setattr(place.owner, place.name, counted(place, getattr(place.owner, place.name)))
    async with World(REGISTRY) as world:
        await use_every_place(world)
    assert [str(place) for place in METHODS if not passed[place]] == []


@pytest.mark.parametrize("place", METHODS, ids=lambda place: f"{place.owner.__name__}.{place.name}")
def test_a_place_that_takes_something_else_is_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def something_else(self: object, *, new: int) -> None: ...

    monkeypatch.setattr(place.owner, place.name, something_else)
    with pytest.raises(RuntimeError) as caught:
        World(REGISTRY)
    assert str(caught.value) == f"trivet.testing takes down what passes through {place}, which takes (new)"


@pytest.mark.parametrize("place", METHODS, ids=lambda place: f"{place.owner.__name__}.{place.name}")
def test_a_place_that_is_gone_is_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(place.owner, place.name)
    with pytest.raises(RuntimeError) as caught:
        World(REGISTRY)
    assert str(caught.value) == f"trivet.testing takes down what passes through {place}, and there is no such method"


def test_a_given_place_that_is_gone_is_named() -> None:
    listeners = object.__new__(Listeners)
    with pytest.raises(RuntimeError, match=r"Listeners\._subscribe\(name, wanted\), and there is no such method"):
        wrap(listeners, "_subscribe", lambda method: method)


def test_places_are_named_in_full() -> None:
    assert str(PLACES[0]) == "trivet.runtime.emit.Emitter.broadcast(event, args, exclude, where)"
