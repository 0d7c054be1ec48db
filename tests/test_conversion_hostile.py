"""Values that were made to cost more than they should, and those that only look like it."""

from typing import Literal, NotRequired, TypedDict
from uuid import UUID

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.conversion import MAX_ISSUES, Issue, ValidationError, WireConverter
from trivet.conversion.errors import MAX_PATH, MAX_TEXT
from trivet.protocol.values import Value

converter = WireConverter()
PRIME = 2**61 - 1


def structure(type_: object, value: Value) -> object:
    return converter.structurer(type_)(value)


def issues(type_: object, value: Value) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        structure(type_, value)
    return list(map(str, caught.value.issues))


@attrs.frozen
class Leaf:
    """Counts how often one is made."""

    made = 0
    number: int

    def __attrs_post_init__(self) -> None:
        type(self).made += 1


@attrs.frozen
class Strict:
    inner: "Strict | Loose | Leaf"
    rest: list[int]


@attrs.frozen
class Loose:
    inner: "Strict | Loose | Leaf"
    rest: list[str]


Node = Strict | Loose | Leaf


def nest(depth: int, leaf: Value, rest: Value) -> Value:
    for _ in range(depth):
        leaf = {"inner": leaf, "rest": rest}
    return leaf


@pytest.mark.parametrize("depth", [1, 10, 60])
def test_arms_that_only_their_depths_tell_apart_are_each_tried_once(depth: int) -> None:
    Leaf.made = 0
    found = structure(Node, nest(depth, {"number": 1}, ["x"]))
    assert isinstance(found, Loose)
    assert Leaf.made == 1


@pytest.mark.parametrize(("leaf", "rest"), [({"number": "x"}, ["x"]), ({"number": 1}, [None])])
def test_what_is_of_no_arm_is_seen_to_be_so_at_any_depth(leaf: Value, rest: Value) -> None:
    Leaf.made = 0
    assert issues(Node, nest(60, leaf, rest)) == ["expected Strict | Loose | Leaf, got object"]
    assert Leaf.made <= 2  # once to see that something is wrong, once to see what


def test_values_of_one_call_after_another_are_not_taken_for_each_other() -> None:
    convert = converter.structurer(Node)
    for number in range(20):
        found = convert(nest(2, {"number": number}, ["x"]))
        assert isinstance(found, Loose)
        assert isinstance(found.inner, Loose)
        assert found.inner.inner == Leaf(number)


@given(
    st.recursive(
        st.integers(0, 9).map(Leaf),
        lambda inner: st.builds(Strict, inner, st.just([1])) | st.builds(Loose, inner, st.just(["a"])),
    )
)
def test_whatever_goes_out_comes_back(node: Node) -> None:
    assert structure(Node, converter.unstructurer(Node)(node)) == node


@attrs.frozen
class Plus:
    kind: Literal["plus"]
    left: "Plus | Times | int"
    right: "Plus | Times | int"


@attrs.frozen
class Times:
    kind: Literal["times"]
    left: "Plus | Times | int"
    right: "Plus | Times | int"


def test_the_arm_that_a_tag_names_says_what_it_lacks() -> None:
    assert issues(Plus | Times | int, {"kind": "times", "left": 1}) == ["right: missing"]
    assert issues(Plus | Leaf, {"kind": "plus", "left": 1}) == ["right: missing"]
    assert issues(Plus | Times, {"left": 1}) == ["expected Plus | Times, got object"]
    deep: Value = {"kind": "times", "left": 1, "right": {"kind": "plus", "left": "x", "right": {"kind": "minus"}}}
    assert issues(Plus | Times | int, deep) == [
        "right.left: expected Plus | Times | int, got str",
        "right.right: expected Plus | Times | int, got object",
    ]


class Named(TypedDict):
    kind: Literal["named"]
    name: NotRequired[str]


class Numbered(TypedDict):
    kind: Literal["numbered"]
    number: int


def test_typed_dicts_are_told_apart_as_classes_are() -> None:
    assert structure(Named | Numbered, {"kind": "numbered", "number": 1}) == {"kind": "numbered", "number": 1}
    assert issues(Named | Numbered, {"kind": "numbered"}) == ["number: missing"]
    assert issues(Named | Numbered, {"kind": "named", "name": 1}) == ["name: expected str, got int"]


def test_tuples_are_told_apart_by_their_tags_and_lengths() -> None:
    type_ = tuple[Literal["a"], list[int]] | tuple[Literal["b"], list[int]] | tuple[int, int, int]
    assert structure(type_, ["b", [1]]) == ("b", [1])
    assert structure(type_, [1, 2, 3]) == (1, 2, 3)
    assert issues(type_, ["b", ["x"]]) == ["[1][0]: expected int, got str"]


def test_a_set_may_be_of_an_arm() -> None:
    assert structure(tuple[int, int] | set[int], {1}) == {1}
    assert structure(list[str] | set[int], [1]) == {1}


def test_plain_parts_tell_arms_apart() -> None:
    @attrs.frozen
    class ByName:
        to: str | None
        parts: list[int]

    @attrs.frozen
    class ByNumber:
        to: int
        parts: list[int]

    assert structure(ByName | ByNumber, {"to": 1, "parts": [1]}) == ByNumber(1, [1])
    assert issues(ByName | ByNumber, {"to": 1, "parts": ["x"]}) == ["parts[0]: expected int, got str"]
    assert issues(ByName | ByNumber, {"to": [], "parts": []}) == ["expected ByName | ByNumber, got object"]


# Refusals


def test_a_long_key_is_cut_where_an_issue_names_it() -> None:
    for key in ("x" * 70_000, "é " * 30_000, '"' * 50_000):
        (issue,) = issues(dict[str, int], {key: "no"})
        assert len(issue) < 110
        assert "..." in issue
    assert issues(dict[str, int], {"é": "no"}) == [r'["\u00e9"]: expected int, got str']


def test_a_long_path_keeps_its_ends() -> None:
    issue = Issue("", "wrong")
    for number in range(200):
        issue = issue.prefixed(f".step{number}")
    assert issue.path.startswith(".step199...")
    assert issue.path.endswith(".step1.step0")
    assert len(issue.path) <= MAX_PATH
    assert len(Issue("", "wrong").prefixed("x" * 1000).path) < 1010


def test_a_long_message_is_cut() -> None:
    assert Issue("", "x" * MAX_TEXT).message == "x" * MAX_TEXT
    assert Issue("", "x" * 10_000).message == "x" * (MAX_TEXT - 3) + "..."


def test_a_refusal_is_of_a_few_kilobytes_whatever_it_refuses() -> None:
    value: Value = {f"{number}" + "é" * 1000: {"é" * 9000: ["x"] * 30} for number in range(30)}
    assert len(repr(issues(dict[str, dict[str, list[int]]], value))) < MAX_ISSUES * (MAX_PATH + MAX_TEXT)


# Hashes


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (set[int], [number * PRIME for number in range(2000)]),
        (frozenset[UUID], [str(UUID(int=number * PRIME)) for number in range(2000)]),
        (set[tuple[int, ...]], [[number * PRIME] for number in range(2000)]),
        (dict[UUID, int], {str(UUID(int=number * PRIME)): 1 for number in range(2000)}),
    ],
)
def test_what_was_chosen_for_its_hash_is_refused(type_: object, value: Value) -> None:
    (issue,) = issues(type_, value)
    assert issue.endswith("have one hash")


def test_what_was_not_is_taken_however_much_it_is() -> None:
    assert structure(set[int], [2**64 + number for number in range(5000)]) == set(range(2**64, 2**64 + 5000))
    assert structure(set[int], [1] * 5000) == {1}
    assert structure(set[int], [-1, -2] * 5000) == {-1, -2}
    numbers = {str(number): number for number in range(5000)}
    assert structure(dict[int, int], dict(numbers)) == dict(enumerate(range(5000)))
    assert issues(dict[int, int], {**numbers, "x": 1}) == ["x: expected an integer as key, got str"]


def test_a_few_of_one_hash_are_taken() -> None:
    assert structure(set[int], [number * PRIME for number in range(900)]) == {number * PRIME for number in range(900)}
