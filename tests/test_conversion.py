"""Users' types to plain values and back."""

import dataclasses
import enum
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from types import MappingProxyType
from typing import (
    Annotated,
    Any,
    Final,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Required,
    TypedDict,
    TypeVar,
    cast,
)
from uuid import UUID

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import TypeAliasType

from trivet.conversion import MAX_ISSUES, Issue, ValidationError, WireConverter, camel_case, same_name, wire_name
from trivet.errors import DefinitionError, TrivetError
from trivet.protocol.values import MAX_SAFE_INTEGER, UNDEFINED, Undefined, Value

T = TypeVar("T")
UserId = NewType("UserId", str)
BIG: Final = 2**70


@attrs.frozen
class Message:
    id: str
    user_id: str
    text: str
    timestamp: float


@attrs.define
class Node:
    value: int
    children: list["Node"] = attrs.field(factory=lambda: list[Node]())


@dataclasses.dataclass
class Point:
    x_axis: float
    y_axis: float = 0.0


@dataclasses.dataclass(frozen=True)
class Named:
    identifier: str = dataclasses.field(metadata=wire_name("ID"))
    seen_at: datetime | None = None


@attrs.define
class Private:
    _secret_word: str
    computed: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.computed = len(self._secret_word)


@attrs.define
class Box(Generic[T]):
    content: T
    more: list[T] = attrs.field(factory=lambda: list[Any]())


@attrs.define
class IntBox(Box[int]):
    label: str = ""


class Options(TypedDict):
    max_count: int
    user_name: NotRequired[str]


class Pair(NamedTuple):
    first: int
    second: str = "two"


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Access(enum.Flag):
    READ = 1
    WRITE = 2


@attrs.define
class Circle:
    radius: float
    kind: Literal["circle"] = "circle"


@attrs.define
class Square:
    side: float
    kind: Literal["square"] = "square"


@attrs.define
class Short:
    x: int


@attrs.define
class Long:
    x: int
    y: int


@attrs.define
class LongNamed(Long):
    z: int = 0


@attrs.define
class AwkwardNames:
    cl: int
    converter: int
    attrs: int
    typevar_map: int
    instance: int
    res: int
    o: int = 7


@attrs.define
class Positive:
    number: int = attrs.field(validator=attrs.validators.gt(0))


@attrs.define
class Buggy:
    number: int

    def __attrs_post_init__(self) -> None:
        raise RuntimeError("a mistake in the class")


@attrs.define
class Absent:
    there: int
    maybe: int | Undefined
    optional: int | None = None


Tree = TypeAliasType("Tree", "int | list[Tree]")
Listed = TypeAliasType("Listed", list[T], type_params=(T,))

converter = WireConverter()


def structure(type_: object, value: Value) -> Any:
    return converter.structurer(type_)(value)


def unstructure(type_: object, value: object) -> Value:
    return converter.unstructurer(type_)(value)


def issues(convert: Callable[[], object]) -> list[tuple[str, str]]:
    with pytest.raises(ValidationError) as caught:
        convert()
    return [(issue.path, issue.message) for issue in caught.value.issues]


def definition_error(type_: object) -> str:
    with pytest.raises(DefinitionError) as caught:
        converter.structurer(type_)
    with pytest.raises(DefinitionError):
        converter.unstructurer(type_)
    return str(caught.value)


# Names


@pytest.mark.parametrize(
    ("python", "wire"),
    [
        ("send_message", "sendMessage"),
        ("text", "text"),
        ("alreadyCamel", "alreadyCamel"),
        ("_private_name", "_privateName"),
        ("class_", "class_"),
        ("line_2", "line2"),
        ("x2_y", "x2Y"),
        ("a__b", "aB"),
        ("_", "_"),
    ],
)
def test_names_become_camel_case(python: str, wire: str) -> None:
    assert camel_case(python) == wire


def test_fields_travel_in_camel_case_at_any_depth() -> None:
    message = Message("1", "ann", "hi", 0.5)
    plain = {"id": "1", "userId": "ann", "text": "hi", "timestamp": 0.5}
    type_ = dict[str, list[tuple[Message, Point]]]
    value = {"the_key": [(message, Point(1.0, 2.0))]}
    wire: Any = {"the_key": [[plain, {"xAxis": 1.0, "yAxis": 2.0}]]}
    assert unstructure(type_, value) == wire
    assert structure(type_, wire) == value


def test_one_field_may_have_a_name_of_its_own() -> None:
    assert unstructure(Named, Named("a")) == {"ID": "a", "seenAt": None}
    assert structure(Named, {"ID": "a"}) == Named("a")


def test_a_registry_may_rename_otherwise() -> None:
    plain = WireConverter(rename=same_name)
    assert plain.unstructurer(Message)(Message("1", "ann", "hi", 0.5)) == {
        "id": "1",
        "user_id": "ann",
        "text": "hi",
        "timestamp": 0.5,
    }


def test_two_fields_of_one_name_are_refused_at_preparation() -> None:
    @attrs.define
    class Clash:
        user_name: str
        userName: str  # noqa: N815 - the clash is the point

    message = definition_error(Clash)
    assert "'user_name' and 'userName' are both 'userName'" in message
    assert "wire_name" in message


def test_a_private_field_travels_by_its_argument_and_a_computed_one_only_goes_out() -> None:
    assert unstructure(Private, Private("abc")) == {"secretWord": "abc", "computed": 3}
    assert structure(Private, {"secretWord": "abc", "computed": 99}) == Private("abc")
    assert structure(Private, {"secretWord": "abc"}).computed == 3


def test_field_names_that_code_generators_use_are_harmless() -> None:
    value = AwkwardNames(1, 2, 3, 4, 5, 6)
    wire = {"cl": 1, "converter": 2, "attrs": 3, "typevarMap": 4, "instance": 5, "res": 6, "o": 7}
    assert unstructure(AwkwardNames, value) == wire
    assert structure(AwkwardNames, wire) == value
    assert issues(lambda: structure(AwkwardNames, {**wire, "cl": "x"})) == [(".cl", "expected int, got str")]


def test_typed_dicts_keep_their_keys_and_ignore_others() -> None:
    assert structure(Options, {"max_count": 1, "other": 2}) == {"max_count": 1}
    assert structure(Options, {"max_count": 1, "user_name": "a"}) == {"max_count": 1, "user_name": "a"}
    assert unstructure(Options, {"max_count": 1}) == {"max_count": 1}
    assert issues(lambda: structure(Options, {"user_name": 1})) == [
        (".max_count", "missing"),
        (".user_name", "expected str, got int"),
    ]


# Each type, both ways


ROUND_TRIPS: Final[list[tuple[object, Any, Any]]] = [
    (str, "a", "a"),
    (int, BIG, BIG),
    (float, 1.5, 1.5),
    (bool, True, True),
    (bytes, b"\x00", b"\x00"),
    (None, None, None),
    (Undefined, UNDEFINED, UNDEFINED),
    (datetime, datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)),
    (date, date(2026, 1, 2), "2026-01-02"),
    (timedelta, timedelta(milliseconds=1500), 1.5),
    (Decimal, Decimal("1.50"), "1.50"),
    (UUID, UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (Color, Color.RED, "red"),
    (Level, Level.HIGH, 2),
    (Access, Access.READ | Access.WRITE, 3),
    (Literal["a", 1, Color.RED] | None, Color.RED, "red"),
    (list[int], [1, 2], [1, 2]),
    (Sequence[int], [1, 2], [1, 2]),
    (tuple[int, ...], (1, 2), [1, 2]),
    (tuple[int, str], (1, "a"), [1, "a"]),
    (tuple[()], (), []),
    (Pair, Pair(1, "b"), [1, "b"]),
    (set[int], {1, 2}, {1, 2}),
    (frozenset[UUID], frozenset({UUID(int=0)}), {str(UUID(int=0))}),
    (set[tuple[int, str]], {(1, "a")}, {(1, "a")}),
    (dict[str, float], {"a": 1.0}, {"a": 1.0}),
    (dict[int, str], {7: "a", -1: "b"}, {"7": "a", "-1": "b"}),
    (dict[UUID, int], {UUID(int=0): 1}, {str(UUID(int=0)): 1}),
    (dict[Color, int], {Color.RED: 1}, {"red": 1}),
    (Mapping[str, object], {"a": [1, None]}, {"a": [1, None]}),
    (dict, {"a": 1}, {"a": 1}),
    (UserId, UserId("a"), "a"),
    (Annotated[int, "anything"], 1, 1),
    (int | None, None, None),
    (Box[int], Box(1, [2]), {"content": 1, "more": [2]}),
    (Box[list[Pair]], Box([Pair(1)]), {"content": [[1, "two"]], "more": []}),
    (IntBox, IntBox(1, [2], "a"), {"content": 1, "more": [2], "label": "a"}),
    (Tree, [1, [2, []]], [1, [2, []]]),
    (Listed[int], [1], [1]),
    (
        Node,
        Node(1, [Node(2), Node(3, [Node(4)])]),
        {
            "value": 1,
            "children": [
                {"value": 2, "children": []},
                {"value": 3, "children": [{"value": 4, "children": []}]},
            ],
        },
    ),
    (object, {"a": [1, b"", {2}, UNDEFINED]}, {"a": [1, b"", {2}, UNDEFINED]}),
    (Value, {"a": [1, None]}, {"a": [1, None]}),
    (list[Value], [1, "a"], [1, "a"]),
    (Any, 1.5, 1.5),
]


@pytest.mark.parametrize(("type_", "value", "wire"), ROUND_TRIPS)
def test_values_of_every_type_go_out_and_come_back(type_: object, value: object, wire: Value) -> None:
    plain = unstructure(type_, value)
    assert plain == wire
    assert type(plain) is type(wire)
    back = structure(type_, plain)
    assert back == value
    assert type(back) is type(value)


def test_what_javascript_writes_otherwise_comes_in_too() -> None:
    assert structure(datetime, "2026-01-02T03:04:05.678Z") == datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
    assert structure(set[int], [1, 1, 2]) == {1, 2}
    assert structure(Pair, [1]) == Pair(1, "two")
    assert structure(int | None, UNDEFINED) is None
    assert structure(list[int | None], [1, UNDEFINED]) == [1, None]
    assert structure(Level, 2.0) is Level.HIGH


def test_undefined_fields_are_absent_fields() -> None:
    assert structure(Point, {"xAxis": 1.0, "yAxis": UNDEFINED}) == Point(1.0)
    assert structure(Absent, {"there": 1, "optional": UNDEFINED}) == Absent(1, UNDEFINED, None)
    assert unstructure(Absent, Absent(1, UNDEFINED)) == {"there": 1, "optional": None}
    assert structure(dict[str, int], {"a": UNDEFINED, "b": 1}) == {"b": 1}
    assert issues(lambda: structure(Point, {"xAxis": UNDEFINED})) == [(".xAxis", "missing")]


def test_what_goes_out_shares_nothing_with_the_value() -> None:
    value = {"a": [1, 2]}
    for type_ in (dict[str, list[int]], object, dict[str, object]):
        plain: Any = unstructure(type_, value)
        plain["a"].append(3)
        plain["b"] = 1
    assert value == {"a": [1, 2]}


# Strictness


NOT_OF_THE_TYPE: Final[list[tuple[object, Any]]] = [
    (int, "7"),
    (int, True),
    (int, None),
    (int, 1.5),
    (int, float(2**53)),
    (int, math.inf),
    (float, "1"),
    (float, True),
    (float, math.nan),
    (float, math.inf),
    (float, BIG),
    (bool, 1),
    (bool, "true"),
    (bool, None),
    (str, None),
    (str, 5),
    (str, b"a"),
    (str, UNDEFINED),
    (bytes, "a"),
    (bytes, [1]),
    (None, 0),
    (None, "None"),
    (datetime, 0),
    (datetime, "yesterday"),
    (datetime, "2026-01-02T03:04:05"),
    (date, "2026-02-30"),
    (date, datetime(2026, 1, 2, tzinfo=UTC)),
    (timedelta, "1"),
    (timedelta, 1e300),
    (timedelta, True),
    (Decimal, 1.5),
    (Decimal, "NaN"),
    (UUID, "x"),
    (UUID, "{00000000-0000-0000-0000-000000000001}"),
    (Color, "green"),
    (Color, "RED"),
    (Level, True),
    (Level, 3),
    (Access, 64),
    (Literal[1], True),
    (Literal["a"], "b"),
    (Literal["a"], ["a"]),
    (list[int], (1, "2")),
    (list[int], "12"),
    (list[int], {1}),
    (list[int], {"0": 1}),
    (tuple[int, str], [1]),
    (tuple[int, str], [1, "a", 2]),
    (Pair, []),
    (set[int], [[]]),
    (dict[str, int], [["a", 1]]),
    (dict[int, int], {"01": 1}),
    (dict[int, int], {"a": 1}),
    (Message, "message"),
    (Message, ["1", "ann", "hi", 0.5]),
    (Box[int], {"content": "1"}),
    (IntBox, {"content": "1"}),
    (int | None, "1"),
    (object, math.nan),
    (object, Message("1", "2", "3", 4.0)),
]


@pytest.mark.parametrize(("type_", "wire"), NOT_OF_THE_TYPE)
def test_nothing_else_is_taken_for_a_value_of_the_type(type_: object, wire: Any) -> None:
    with pytest.raises(ValidationError):
        structure(type_, wire)


def test_numbers_are_one_type_in_javascript() -> None:
    assert structure(int, float(MAX_SAFE_INTEGER)) == MAX_SAFE_INTEGER
    assert type(structure(int, 5.0)) is int
    assert type(structure(float, 5)) is float
    assert structure(list[int], [1, 2.0]) == [1, 2]
    assert structure(list[float], [1.5, 2]) == [1.5, 2.0]


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (str, 5),
        (int, "7"),
        (int, True),
        (float, math.nan),
        (float, -math.inf),
        (float, 10**400),
        (list[float], [1.0, math.nan]),
        (bool, 1),
        (None, 0),
        (datetime, datetime(2026, 1, 2)),  # noqa: DTZ001 - without a time zone, on purpose
        (date, datetime(2026, 1, 2, tzinfo=UTC)),
        (Decimal, Decimal("Infinity")),
        (UUID, "00000000-0000-0000-0000-000000000001"),
        (Color, "red"),
        (Literal["a"], "b"),
        (list[int], (1,)),
        (list[int], [True]),
        (tuple[int, int], (1,)),
        (tuple[int, int], [1, 2]),
        (set[int], [1]),
        (dict[str, int], {1: 1}),
        (dict[str, int], {"a": "1"}),
        (Options, {}),
        (Message, Point(1.0)),
        (Message, {"id": "1"}),
        (Circle | Square, Point(1.0)),
        (object, math.nan),
        (object, {1: 2}),
        (object, object()),
        (object, [lambda: None]),
    ],
)
def test_an_emitted_value_has_to_be_of_its_type(type_: object, value: object) -> None:
    with pytest.raises(ValidationError):
        unstructure(type_, value)


def test_subclasses_of_plain_types_become_plain() -> None:
    plain = unstructure(dict[str, int], {Color.RED.value: Level.LOW})
    assert plain == {"red": 1}
    assert isinstance(plain, dict)
    assert type(plain["red"]) is int


# Errors


def test_every_mistake_of_a_value_is_found_with_its_path() -> None:
    wire: Value = {"a": [{"id": 1, "text": "t", "timestamp": None}, 7], "odd key": 3}
    assert issues(lambda: structure(dict[str, list[Message]], wire)) == [
        (".a[0].id", "expected str, got int"),
        (".a[0].userId", "missing"),
        (".a[0].timestamp", "expected float, got None"),
        (".a[1]", "expected Message (object), got int"),
        ('["odd key"]', "expected array, got int"),
    ]


def test_mistakes_in_what_goes_out_have_paths_too() -> None:
    wrong: Any = "x"
    value = {"a": [Node(1, [Node(wrong), wrong])]}
    expected = [
        (".a[0].children[0].value", "expected int, got str"),
        (".a[0].children[1]", "expected Node, got str"),
    ]
    assert issues(lambda: unstructure(dict[str, list[Node]], value)) == expected
    assert issues(lambda: unstructure(object, {"a": [Node(wrong)]})) == [(".a[0].value", "expected int, got str")]
    assert issues(lambda: unstructure(object, {"a": [1, object()]})) == [
        (".a[1]", "a value of type object cannot travel")
    ]


def test_an_error_lists_no_more_than_its_share() -> None:
    assert len(issues(lambda: structure(list[int], ["x"] * 1000))) == MAX_ISSUES
    assert len(issues(lambda: structure(dict[str, int], {str(i): "x" for i in range(1000)}))) == MAX_ISSUES


def test_an_error_reads_well_and_travels() -> None:
    error = ValidationError([Issue(".user.age", "expected int, got str"), Issue("", "missing")]).prefixed("args[0]")
    assert str(error) == "args[0].user.age: expected int, got str; args[0]: missing"
    assert error.as_metadata() == [
        {"path": "args[0].user.age", "message": "expected int, got str"},
        {"path": "args[0]", "message": "missing"},
    ]
    assert isinstance(error, TrivetError)
    assert isinstance(error, ValueError)
    assert str(ValidationError([Issue(".a", "missing"), Issue("", "no")])) == "a: missing; no"


def test_what_a_validator_says_is_an_issue_of_the_value() -> None:
    [(path, message)] = issues(lambda: structure(list[Positive], [{"number": 1}, {"number": 0}]))
    assert path == "[1]"
    assert "'number' must be > 0" in message


def test_a_mistake_in_the_class_itself_is_no_mistake_of_the_value() -> None:
    with pytest.raises(RuntimeError, match="a mistake in the class"):
        structure(Buggy, {"number": 1})
    with pytest.raises(RuntimeError, match="a mistake in the class"):
        structure(dict[str, list[Buggy | Node]], {"a": [{"number": 1}]})


def test_endless_nesting_is_an_issue() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert issues(lambda: structure(object, deep)) == [("", "nested too deeply")]
    loop: list[Any] = []
    loop.append(loop)
    assert issues(lambda: unstructure(object, loop)) == [("", "nested too deeply")]


# Unions


def test_a_plain_value_takes_the_arm_of_its_type() -> None:
    type_ = str | int | float | bool | None
    values: list[Value] = ["1", 1, 1.0, True, None]
    for value in values:
        assert type(structure(type_, value)) is type(value)
        assert type(unstructure(type_, value)) is type(value)


def test_classes_are_told_apart_by_a_tag() -> None:
    type_ = list[Circle | Square]
    value = [Square(1.0), Circle(2.0)]
    assert structure(type_, unstructure(type_, value)) == value
    assert issues(lambda: structure(type_, [{"kind": "square", "side": "x"}])) == [
        ("[0].side", "expected float, got str"),
    ]
    assert issues(lambda: structure(type_, [{"kind": "oval"}])) == [("[0]", "expected Circle | Square, got object")]


def test_classes_are_told_apart_by_their_fields() -> None:
    assert structure(Short | Long, {"x": 1, "y": 2}) == Long(1, 2)
    assert structure(Short | Long, {"x": 1}) == Short(1)
    assert structure(Long | Short, {"x": 1}) == Short(1)
    assert structure(Short | dict[str, int], {"z": 1}) == {"z": 1}


def test_arms_are_tried_in_order_where_nothing_else_tells() -> None:
    assert structure(UUID | date, "2026-01-02") == date(2026, 1, 2)
    assert structure(list[int] | list[str], ["a"]) == ["a"]
    assert structure(int | float, 1.5) == 1.5
    assert structure(int | str, 5.0) == 5
    assert issues(lambda: structure(int | str, [])) == [("", "expected int | str, got array")]


def test_the_arm_that_was_meant_explains_what_is_wrong() -> None:
    assert issues(lambda: structure(Message | None, {"id": 1, "userId": "a", "text": "", "timestamp": 1})) == [
        (".id", "expected str, got int")
    ]


# Classes at run time


def test_an_instance_of_a_subclass_travels_as_the_declared_class() -> None:
    assert unstructure(Long, LongNamed(1, 2, 3)) == {"x": 1, "y": 2}
    assert unstructure(object, LongNamed(1, 2, 3)) == {"x": 1, "y": 2, "z": 3}


def test_undeclared_values_travel_by_what_they_are() -> None:
    value = {"a": [Message("1", "ann", "hi", 0.5), Color.RED, UUID(int=0), Pair(1)], "b": {date(2026, 1, 2)}}
    assert unstructure(object, value) == {
        "a": [
            {"id": "1", "userId": "ann", "text": "hi", "timestamp": 0.5},
            "red",
            str(UUID(int=0)),
            [1, "two"],
        ],
        "b": {"2026-01-02"},
    }


# Preparation


def test_types_that_cannot_travel_are_named_with_advice() -> None:
    @attrs.define
    class Holder:
        lock: list[memoryview]

    message = definition_error(dict[str, Holder])
    assert "Holder.lock: memoryview cannot travel" in message
    assert "use attrs classes" in message


@pytest.mark.parametrize(
    "type_",
    [
        complex,
        Callable[[], int],
        type[int],
        dict[float, int],
        dict[Level, int],
        set[list[int]],
        set[Message],
        list["Nowhere"],  # type: ignore[name-defined]  # noqa: F821 - the missing name is the point
        "Message",
        Literal["a"] | memoryview,
    ],
)
def test_other_types_are_refused(type_: object) -> None:
    assert "cannot travel" in definition_error(type_)


def test_a_name_that_cannot_be_found_is_explained() -> None:
    @attrs.define
    class Lost:
        other: "Elsewhere"  # type: ignore[name-defined]  # noqa: F821 - the missing name is the point

    message = definition_error(Lost)
    assert "'Elsewhere'" in message
    assert "top level of a module" in message
    # A second attempt does not find the remains of the first.
    assert "'Elsewhere'" in definition_error(Lost)


def test_a_local_class_may_name_itself() -> None:
    @attrs.define
    class Local:
        parent: "Local | None" = None

    assert structure(Local, {"parent": {"parent": None}}) == Local(Local())


def test_a_field_without_annotation_is_refused() -> None:
    bare = attrs.make_class("Bare", ["x"])
    assert "Bare.x has no annotation" in definition_error(bare)


def test_an_init_only_argument_without_default_is_refused() -> None:
    @dataclasses.dataclass
    class Seeded:
        seed: dataclasses.InitVar[int]

    assert "Seeded.seed" in definition_error(Seeded)


# Generated classes

PLAIN: Final[Mapping[Any, st.SearchStrategy[Any]]] = {
    str: st.text(max_size=5),
    int: st.integers(-(2**60), 2**60),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    bytes: st.binary(max_size=5),
    None: st.none(),
    datetime: st.datetimes(timezones=st.just(UTC)),
    date: st.dates(),
    Decimal: st.decimals(allow_nan=False, allow_infinity=False),
    UUID: st.uuids(),
    Color: st.sampled_from(Color),
    Level: st.sampled_from(Level),
    Pair: st.builds(Pair, st.integers(), st.text(max_size=3)),
}
NAMES: Final = st.from_regex(r"[a-z]{1,3}(_[a-z]{1,3}){0,2}", fullmatch=True).filter(
    lambda name: name not in {"as", "if", "in", "is", "or", "and", "for", "not", "try", "def", "del"}
)


@st.composite
def typed_values(draw: st.DrawFn, depth: int = 2) -> tuple[Any, st.SearchStrategy[Any]]:
    """A type, and a strategy for its values."""
    kind = draw(st.sampled_from(["plain", "list", "tuple", "dict", "optional", "class"] if depth else ["plain"]))
    if kind == "plain":
        type_ = draw(st.sampled_from(list(PLAIN)))
        return type_, PLAIN[type_]
    if kind == "class":
        return draw(classes(depth=depth - 1))
    type_, values = draw(typed_values(depth=depth - 1))
    list_, tuple_, dict_ = (cast("Any", generic) for generic in (list, tuple, dict))
    match kind:
        case "list":
            return list_[type_], st.lists(values, max_size=3)
        case "tuple":
            return tuple_[type_, int], st.tuples(values, st.integers())
        case "dict":
            return dict_[str, type_], st.dictionaries(st.text(max_size=3), values, max_size=3)
        case _:
            return (type_ if type_ is None else type_ | None), st.none() | values


@st.composite
def classes(draw: st.DrawFn, depth: int = 2) -> tuple[Any, st.SearchStrategy[Any]]:
    """An attrs class or dataclass with drawn fields, some of them with defaults."""
    names = draw(st.lists(NAMES, unique_by=camel_case, max_size=4))
    parts = {name: draw(typed_values(depth=depth)) for name in names}
    optional = set(names[draw(st.integers(0, len(names))) :])
    defaults = {name: draw(parts[name][1]) for name in optional}
    annotations = {name: part[0] for name, part in parts.items()}
    if draw(st.booleans()):
        fields: dict[str, Any] = {
            name: attrs.field(factory=partial(defaults.get, name)) if name in optional else attrs.field()
            for name in names
        }
        cls: Any = attrs.define(type("Drawn", (), {"__annotations__": annotations, **fields}))
    else:
        cls = dataclasses.make_dataclass(
            "Drawn",
            [
                (name, type_, dataclasses.field(default_factory=partial(defaults.get, name)))
                if name in optional
                else (name, type_, dataclasses.field())
                for name, type_ in annotations.items()
            ],
        )
    return cls, st.builds(cls, **{name: part[1] for name, part in parts.items()})


@settings(max_examples=60, deadline=None)  # each example compiles functions
@given(st.data())
def test_instances_of_any_class_come_back_as_they_went(data: st.DataObject) -> None:
    cls, instances = data.draw(classes())
    value = data.draw(instances)
    drawn = WireConverter()
    plain = drawn.unstructurer(cls)(value)
    assert set(plain) == {camel_case(field) for field in cls.__annotations__}  # type: ignore[arg-type]
    assert drawn.structurer(cls)(plain) == value
    assert drawn.unstructurer(object)(value) == plain


JUNK: Final = st.recursive(
    st.one_of(*PLAIN.values(), st.just(UNDEFINED)).filter(
        lambda value: not isinstance(value, Decimal | UUID | enum.Enum)
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES.map(camel_case), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)  # each example compiles functions
@given(st.data())
def test_no_value_does_worse_than_fail_its_type(data: st.DataObject) -> None:
    cls, _ = data.draw(classes())
    wire = data.draw(JUNK)
    drawn = WireConverter()
    try:
        value = drawn.structurer(cls)(wire)
    except ValidationError as error:
        issues_found = error.issues
    else:
        assert isinstance(value, cls)
        assert drawn.structurer(cls)(drawn.unstructurer(cls)(value)) == value
        return
    assert 1 <= len(issues_found) <= MAX_ISSUES


# Annotations of less common forms


class Textual(TypedDict):
    needed: "int"
    may: "NotRequired[Annotated[int, 'x']]"


class Loose(TypedDict, total=False):
    may: int
    needed: Required[str]


Number = TypeVar("Number", int, str)
Bounded = TypeVar("Bounded", bound=Point)


@attrs.define
class Limited(Generic[Number, Bounded]):
    number: Number
    point: Bounded


@attrs.define
class OfAliases:
    first: Listed[int]
    second: Listed[int]
    tree: Tree


@dataclasses.dataclass(kw_only=True)
class Mixed:
    late: int = 5
    early: str
    note: Final[str] = "x"
    label: str = dataclasses.field(init=False, default="fixed")


def test_typed_dicts_may_say_per_key_what_is_needed() -> None:
    assert structure(Textual, {"needed": 1}) == {"needed": 1}
    assert issues(lambda: structure(Textual, {"may": 1})) == [(".needed", "missing")]
    assert structure(Loose, {"needed": "a"}) == {"needed": "a"}
    assert issues(lambda: structure(Loose, {"may": 1})) == [(".needed", "missing")]


def test_open_type_variables_stand_for_their_bounds() -> None:
    wire: Value = {"number": "a", "point": {"xAxis": 1.0, "yAxis": 0.0}}
    assert structure(Limited, wire) == Limited("a", Point(1.0))
    assert issues(lambda: structure(Limited, {"number": 1.5, "point": {}})) == [
        (".number", "expected int | str, got float"),
        (".point.xAxis", "missing"),
    ]


def test_an_alias_may_be_used_again() -> None:
    value = OfAliases([1], [2], [3, [4]])
    assert structure(OfAliases, unstructure(OfAliases, value)) == value


def test_dataclasses_keep_their_ways() -> None:
    assert structure(Mixed, {"early": "a", "label": "other"}) == Mixed(early="a")
    assert unstructure(Mixed, Mixed(early="a")) == {"late": 5, "early": "a", "note": "x", "label": "fixed"}


def test_a_dict_keeps_undefined_where_its_type_says_so() -> None:
    assert structure(dict[str, int | Undefined], {"a": UNDEFINED, "b": 1}) == {"a": UNDEFINED, "b": 1}
    assert issues(lambda: structure(dict[str, int | Undefined], {"a": "x"})) == [
        (".a", "expected int | undefined, got str")
    ]


def test_object_among_the_arms_takes_everything() -> None:
    assert structure(int | object, "a") == "a"


def test_other_mappings_and_arrays_are_as_good_as_dicts_and_lists() -> None:
    wire = MappingProxyType({"xAxis": 1.0, "yAxis": 2.0})
    assert structure(Point, wire) == Point(1.0, 2.0)
    assert structure(list[int], (1, 2)) == [1, 2]


def test_an_enum_of_other_objects_is_refused() -> None:
    class Odd(enum.Enum):
        PAIR = (1, 2)

    assert "Odd.PAIR" in definition_error(Odd)


def test_a_computed_field_that_was_never_set_is_missing() -> None:
    value = Private("abc")
    del value.computed
    assert issues(lambda: unstructure(Private, value)) == [(".computed", "missing")]


def test_wire_names_have_to_be_strings() -> None:
    @attrs.define
    class Numbered:
        x: int = attrs.field(metadata={"wire": 5})

    assert "the wire name has to be a string" in definition_error(Numbered)
