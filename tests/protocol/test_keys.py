"""Actor keys in both of their written forms, and identifiers."""

import re
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.errors import PublicError
from trivet.limits import Limits
from trivet.protocol.ids import encode_id, is_id, new_actor_id, new_ray_id
from trivet.protocol.keys import Key, as_key, check_key, check_name, from_query, parse_key, serialise_key, to_query

LIMITS = Limits()


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ((), "/"),
        (("general",), "general"),
        (("a/b", "", "c\\d"), r"a\/b/\0/c\\d"),
        (("",), r"\0"),
        (("", ""), r"\0/\0"),
        (("\\0",), r"\\0"),
        (("/",), r"\/"),
        (("a\n", "ü"), "a\n/ü"),
    ],
)
def test_serialised_keys(key: Key, text: str) -> None:
    assert serialise_key(key) == text
    assert parse_key(text) == key


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("", ()),
        ("a/", ("a", "")),
        ("//", ("", "", "")),
        ("a\\", ("a\\",)),
        (r"a\0b/c", ("", "c")),
        (r"\x", ("x",)),
        ("\\0\\", ("\\",)),
    ],
)
def test_texts_that_no_key_serialises_to_are_read_as_rivetkit_does(text: str, key: Key) -> None:
    assert parse_key(text) == key


@given(key=st.lists(st.text(st.sampled_from("a/\\0,é"), max_size=5)).map(tuple))
def test_a_serialised_key_is_the_key(key: Key) -> None:
    assert parse_key(serialise_key(key)) == key


def test_in_a_query_commas_and_empty_components_are_lost() -> None:
    assert to_query(()) is None
    assert to_query(("a", "b")) == "a,b"
    assert from_query("a,b") == from_query(to_query(("a,b",))) == ("a", "b")
    assert from_query(None) == from_query("") == ()
    assert from_query(",") == ("", "")


def test_a_text_is_a_key_of_one_component() -> None:
    assert as_key("x") == ("x",)
    assert as_key(["a", "b"]) == ("a", "b")
    assert as_key(()) == ()


def test_keys_and_names_have_limits() -> None:
    check_name("n" * 64, LIMITS)
    check_key(("x" * 128,) * 7, LIMITS)
    check_key((), LIMITS)


@pytest.mark.parametrize(
    "key", [("x" * 129,), ("ü" * 65,), ("x" * 128,) * 8, ("a",) * 513, ("/" * 128,) * 4, ("\ud800",)]
)
def test_a_key_over_its_limits_is_an_invalid_request(key: Key) -> None:
    with pytest.raises(PublicError, match=r"actor\.invalid_request: .*key"):
        check_key(key, LIMITS)


@pytest.mark.parametrize("name", ["", "n" * 65])
def test_a_name_over_its_limits_is_an_invalid_request(name: str) -> None:
    with pytest.raises(PublicError, match=r"actor\.invalid_request: .*name"):
        check_name(name, LIMITS)


def test_ids_are_written_as_an_engine_writes_them() -> None:
    value = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")
    assert encode_id(value, 1) == "5jxlv5boumuljx2d2nvyat0o2edl00"


def test_new_ids_differ_and_are_ids() -> None:
    made = {new_actor_id() for _ in range(100)} | {new_ray_id() for _ in range(100)}
    assert len(made) == 200
    assert all(is_id(text) and re.fullmatch("[0-9a-z]{30}", text) for text in made)


@pytest.mark.parametrize("text", ["", "a" * 29, "a" * 31, "A" * 30, "a" * 29 + "\n", "a" * 30 + "\n"])
def test_other_texts_are_no_ids(text: str) -> None:
    assert not is_id(text)


@pytest.mark.parametrize("wrong", [5, None, b"ab", ["a", 5]])
def test_what_is_no_key_is_a_type_error(wrong: Any) -> None:
    with pytest.raises(TypeError, match="a key is a str or several, not"):
        as_key(wrong)
