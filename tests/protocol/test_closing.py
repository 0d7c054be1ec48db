"""Close reasons name errors, within the 123 bytes of a close frame."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.protocol.closing import MAX_REASON, CloseReason, fit_reason, format_reason, parse_reason


def test_reasons_name_group_code_and_ray() -> None:
    assert format_reason("actor", "stopping") == "actor.stopping"
    assert format_reason("actor", "not_found", "t1s8") == "actor.not_found#t1s8"


@pytest.mark.parametrize(
    ("reason", "parsed"),
    [
        ("actor.stopping", CloseReason("actor", "stopping")),
        ("guard.actor_runner_failed#t1s8", CloseReason("guard", "actor_runner_failed", "t1s8")),
        ("a.b.c#d#e", CloseReason("a", "b", "d")),
        ("a.b#", CloseReason("a", "b")),
        ("", None),
        ("Disposed", None),
        (".b", None),
        ("a.", None),
        ("a#b.c", None),
        ("Going away. Bye", None),
    ],
)
def test_reasons_are_read_as_rivetkits_client_does(reason: str, parsed: CloseReason | None) -> None:
    assert parse_reason(reason) == parsed


def test_a_ray_that_does_not_fit_is_left_out() -> None:
    assert format_reason("user", "x" * 100, "y" * 30) == "user." + "x" * 100
    assert len(format_reason("user", "x" * 200, "y")) == MAX_REASON


def test_a_reason_is_never_cut_inside_a_character() -> None:
    assert fit_reason("a" * 122 + "ü") == "a" * 122
    assert fit_reason("a" * 121 + "ü") == "a" * 121 + "ü"
    assert fit_reason("\ud800") == "?"


@given(text=st.text())
def test_every_reason_fits(text: str) -> None:
    assert len(fit_reason(text).encode()) <= MAX_REASON
    assert len(format_reason("user", text, text).encode()) <= MAX_REASON
    parse_reason(text)
