"""Whatever the store does, and wherever the process ends: what was seen is remembered, and all else happened once."""

import logging
import os
from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.property.remembering import ACTIONS, Forgotten, Step, run, verify
from trivet.runtime.connection import Conn
from trivet.runtime.instance import Instance
from trivet.runtime.saving import Saver
from trivet.runtime.schedules import Schedules
from trivet.runtime.state import State

LONG: Final = os.environ.get("TRIVET_LONG") == "1"

NUMBERS: Final = st.integers(0, 3)
ACTS: Final = st.tuples(st.just("act"), NUMBERS, st.sampled_from(ACTIONS))
STEPS: Final = st.one_of(
    st.just(("connect",)),
    ACTS,
    ACTS,
    st.tuples(st.just("call"), st.sampled_from(ACTIONS)),
    st.tuples(st.just("wait"), st.sampled_from([0.01, 0.05, 0.3, 2.0])),
    st.just(("settle",)),
    st.tuples(st.just("peep"), NUMBERS),
    st.tuples(st.just("leave"), NUMBERS),
    st.just(("nap",)),
    st.tuples(st.just("delay"), st.sampled_from([0.0, 0.005, 0.06])),
    st.just(("hold",)),
    st.just(("release",)),
    st.tuples(st.just("fail"), st.integers(1, 2), st.booleans()),
    st.just(("crash",)),
)
PLANS: Final = st.lists(STEPS, min_size=1, max_size=40)

SEARCH: Final = settings(
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(autouse=True)
def silent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "trivet")


@settings(SEARCH, max_examples=5000 if LONG else 250)
@given(PLANS)
def test_what_was_seen_is_remembered(steps: list[Step]) -> None:
    verify(run(steps))


def release_at_once(self: Saver, release: Callable[[], object], *_: object, **__: object) -> None:
    release()


encode = State.encode
encoded: Final = dict[State, bytes | None]()


def encode_what_was(self: State) -> bytes | None:
    before = encoded.get(self)
    encoded[self] = encode(self)
    return encoded[self] if before is None else before


def release_backwards(self: Saver, held: list[Any]) -> None:
    for one in reversed(held):
        self._held_bytes -= one.size
        one.release()


def keep_the_row(self: Saver, conn: Conn[Any, Any]) -> None: ...


def go_on(self: Saver, exc: Exception, held: list[Any]) -> None:
    self._refuse(held)


take_changes = Schedules.take_changes


def keep_schedules(self: Schedules) -> dict[str, bytes | None]:
    return {id_: data for id_, data in take_changes(self).items() if data is not None}


def release_all_the_same(self: Saver, held: list[Any]) -> None:
    for one in held:
        self._held_bytes -= one.size
        one.release()


settle = Saver.settle


def settle_blindly(self: Saver) -> None:
    self.unseen = False
    settle(self)


CONNECT: Final[Step] = ("connect",)
MOMENT: Final[Step] = ("wait", 0.05)
WHILE: Final[Step] = ("wait", 2.0)
WRITE: Final[Step] = ("act", 0, "write")
FAIL: Final[Step] = ("fail", 1, False)
CRASH: Final[Step] = ("crash",)

PLANTS: Final = [
    (Saver, "hold", release_at_once, "seen", [("hold",), WRITE, ("settle",), CRASH]),
    (State, "encode", encode_what_was, "seen", [WRITE, MOMENT, WRITE, MOMENT, CRASH]),
    (Saver, "_release", release_backwards, "order", [WRITE, WRITE, MOMENT]),
    (Saver, "conn_left", keep_the_row, "on_disconnect", [("leave", 0), WHILE, CRASH]),
    (Saver, "_fail", go_on, "undone", [FAIL, WRITE, MOMENT, WRITE]),
    (Schedules, "take_changes", keep_schedules, "schedules", [("act", 0, "plan"), WHILE, CRASH]),
    (Saver, "_refuse", release_all_the_same, "seen", [FAIL, WRITE, MOMENT]),
    (Saver, "settle", settle_blindly, "seen", [WRITE, MOMENT, CRASH]),
    (Instance, "works_in_background", False, "seen", [("peep", 0), CRASH]),
]


@pytest.mark.parametrize(("target", "name", "plant", "rule", "steps"), PLANTS)
def test_a_planted_bug_is_found_and_named(
    target: type, name: str, plant: object, rule: str, steps: list[Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [CONNECT, MOMENT, *steps]
    verify(run(steps))
    monkeypatch.setattr(target, name, plant)
    with pytest.raises(Forgotten) as raised:
        verify(run(steps))
    assert raised.value.args[0] == rule


@pytest.mark.skipif(not LONG, reason="takes minutes; TRIVET_LONG=1 runs it")
@pytest.mark.parametrize(("target", "name", "plant", "rule", "steps"), PLANTS)
def test_a_planted_bug_is_found_by_chance(
    target: type, name: str, plant: object, rule: str, steps: list[Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, name, plant)

    @settings(SEARCH, max_examples=10_000, derandomize=True, phases=[Phase.generate], report_multiple_bugs=False)
    @given(PLANS)
    def search(steps: list[Step]) -> None:
        verify(run(steps))

    with pytest.raises(Forgotten):
        search()
