"""What actors store of their state."""

import dataclasses
import enum
import json
import math
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple, Self
from uuid import UUID

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivet.conversion import StateConverter, ValidationError, dump_values, load_values, wire_name
from trivet.errors import DecodeError, DefinitionError
from trivet.protocol.values import UNDEFINED, Undefined


class Color(enum.Enum):
    RED = "red"


class Place(NamedTuple):
    x: int
    y: int


@attrs.frozen
class Message:
    user_id: str
    sent_at: datetime
    body: bytes = b""


@attrs.define
class Apple:
    weight: int


@attrs.define
class Pear:
    weight: int


@attrs.define
class State:
    messages: list[Message] = attrs.field(factory=lambda: list[Message]())
    by_name: dict[str, int] = attrs.field(factory=lambda: dict[str, int]())
    tags: set[str] = attrs.field(factory=lambda: set[str]())


@attrs.define
class Counted:
    given: int = attrs.field(metadata=wire_name("GIVEN"))
    _hidden: int = 0
    computed: list[int] = attrs.field(init=False, factory=lambda: list[int]())


@dataclasses.dataclass
class Old:
    count: int
    gone: str = ""


@dataclasses.dataclass
class New:
    count: int
    added: int | None = None


def codec(type_: object) -> Any:
    return StateConverter().state_codec(type_)


def types_of(value: Any) -> list[object]:
    """Its own type, and those of its items where it is a list."""
    return [type(value), *map(type, value if isinstance(value, list) else ())]  # pyright: ignore[reportUnknownArgumentType] # any list


def test_state_is_json_with_pythons_names() -> None:
    state = State([Message("ann", datetime(2026, 1, 2, tzinfo=UTC), b"\x00\xff")], {"b": 1, "a": 2}, {"y", "x"})
    encoded = codec(State).encode(state)
    assert json.loads(encoded) == {
        "messages": [{"user_id": "ann", "sent_at": "2026-01-02T00:00:00+00:00", "body": "AP8="}],
        "by_name": {"b": 1, "a": 2},
        "tags": ["x", "y"],
    }
    assert codec(State).decode(encoded) == state
    assert b" " not in encoded


def test_equal_states_give_equal_bytes_however_they_came_about() -> None:
    words = [f"word {i}" for i in range(100)]
    forward, backward = State(tags=set(words)), State(tags=set())
    for word in reversed(words):
        backward.tags.add(word)
    assert codec(State).encode(forward) == codec(State).encode(backward)
    mixed = {(1, None), (1, "a"), (None, None)}
    assert codec(set[Any]).encode({1, "a", None}) == codec(set[Any]).encode({None, "a", 1})
    assert codec(set[tuple[int | None, str | None]]).encode(mixed)


def test_a_change_of_order_is_a_change() -> None:
    encode = codec(dict[str, int]).encode
    assert encode({"a": 1, "b": 2}) != encode({"b": 2, "a": 1})


@pytest.mark.parametrize(
    ("type_", "state"),
    [
        (None, None),
        (int, 2**200),
        (list[int], [1, 2]),
        (tuple[int, ...], (1,)),
        (tuple[int, str], (1, "a")),
        (frozenset[bytes], frozenset({b"a", b"b"})),
        (dict[int, Place], {1: Place(1, 2)}),
        (dict[UUID, Color], {UUID(int=1): Color.RED}),
        (date, date(2026, 1, 2)),
        (timedelta, timedelta(seconds=1.5)),
        (Decimal, Decimal("1.10")),
        (datetime, datetime(2026, 1, 2)),  # noqa: DTZ001 - storage keeps what it is given
        (str, "\ud800"),
        (str, "é☃"),
        (list[str | bytes], ["YQ==", b"a"]),
        (list[str | UUID | None], [str(UUID(int=0)), UUID(int=0), None]),
        (list[datetime | date], [datetime(2026, 1, 2, tzinfo=UTC), date(2026, 1, 2)]),
        (list[Apple | Pear], [Pear(1), Apple(1)]),
        (list[int | float], [1, 1.0]),
        (list[float | Decimal], [1.5, Decimal("1.5")]),
        (list[set[int] | list[int]], [[1], {1}]),
        (list[Literal["red"] | Color], ["red", Color.RED]),
        (list[int | Undefined], [1, UNDEFINED]),
        (list[Apple | dict[str, int]], [{"weight": 1}, Apple(1)]),
        (object, {"a": [1, b"x", {1, 2}, UNDEFINED, datetime(2026, 1, 2, tzinfo=UTC)], "b": {"$bytes": "no"}}),
        (object, {"$dict": {"$set": 1}}),
    ],
)
def test_every_state_comes_back_as_it_was(type_: object, state: Any) -> None:
    back = codec(type_).decode(codec(type_).encode(state))
    assert back == state
    assert types_of(back) == types_of(state)


def test_computed_and_private_fields_are_stored_too() -> None:
    state = Counted(1, 2)
    state.computed.append(3)
    assert json.loads(codec(Counted).encode(state)) == {"given": 1, "hidden": 2, "computed": [3]}
    assert codec(Counted).decode(codec(Counted).encode(state)) == state
    assert codec(Counted).decode(b'{"given":1}') == Counted(1)


def test_a_class_may_gain_and_lose_fields() -> None:
    assert codec(New).decode(codec(Old).encode(Old(1, "x"))) == New(1)


def test_a_type_may_become_a_union() -> None:
    assert codec(Apple | Pear).decode(codec(Apple).encode(Apple(1))) == Apple(1)


@pytest.mark.parametrize(
    ("type_", "state", "message"),
    [
        (State, State(by_name={"a": "1"}), "by_name.a: expected int, got str"),  # type: ignore[dict-item] # the mistake
        (list[int], [*range(1000), True], "[1000]: expected int, got bool"),
        (list[float], [math.inf], "[0]: inf can be neither sent nor stored"),
        (object, [math.nan], "[0]: nan cannot be stored"),
        (
            object,
            [Apple(1)],
            "[0]: a value of type Apple cannot be stored where any value is allowed; declare its type",
        ),
    ],
)
def test_nothing_is_stored_that_could_not_be_loaded(type_: object, state: object, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        codec(type_).encode(state)
    assert str(caught.value) == message


def test_an_int_that_json_cannot_hold_is_refused() -> None:
    with pytest.raises(ValidationError, match="an int in the state is too large"):
        codec(int).encode(10**5000)


def test_what_is_not_such_a_state_is_told_apart_from_what_is_no_json() -> None:
    with pytest.raises(ValidationError, match="count: missing"):
        codec(Old).decode(b"{}")
    with pytest.raises(DecodeError):
        codec(Old).decode(b"{")
    with pytest.raises(DecodeError):
        codec(Old).decode(b"\xff")


def test_a_type_that_cannot_be_stored_is_refused_at_preparation() -> None:
    with pytest.raises(DefinitionError, match="memoryview"):
        codec(list[memoryview])


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (b'{"a":[{"$bytes":1}]}', r"a\[0\]: expected base64, got int"),
        (b'{"a":{"$datetime":"now"}}', "a: expected datetime"),
        (b'{"a":{"$set":1}}', r"a: expected array in \$set, got int"),
        (b'{"a":{"$set":[{}]}}', "a: an object cannot be in a Set"),
        (b'{"a":{"$dict":1}}', r"a: expected object in \$dict, got int"),
    ],
)
def test_what_is_not_the_form_of_any_value_is_named_with_its_place(stored: bytes, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        codec(object).decode(stored)


def test_what_json_has_no_word_for_is_not_loaded() -> None:
    with pytest.raises(DecodeError, match="NaN"):
        codec(object).decode(b"NaN")


@pytest.mark.parametrize(
    "plain", [None, {"a": [1, 1.0, True, "x", None]}, {"$set": {"b": -0.0}}, [2**200], "\ud800", {"\udc00é": "é"}]
)
def test_a_migration_sees_what_is_stored_and_gives_it_back(plain: object) -> None:
    plainly = codec(int)  # whatever the type of the state is by now
    back = plainly.to_plain(plainly.from_plain(plain))
    assert repr(back) == repr(plain)


def test_a_migration_mends_state_for_its_new_type() -> None:
    stored = codec(Old).encode(Old(1, "x"))
    plain = codec(Apple).to_plain(stored)
    assert plain == {"count": 1, "gone": "x"}
    assert codec(Apple).decode(codec(Apple).from_plain({"weight": 1})) == Apple(1)


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"a": [0, math.nan]}, r"a\[1\]: nan is no JSON"),
        ({"a": {1: 2}}, "a: keys have to be str, got int"),
        ([(1, 2)], r"\[0\]: a value of type tuple is no JSON"),
        ([Color.RED], r"\[0\]: a value of type Color is no JSON"),
    ],
)
def test_a_migration_cannot_store_what_would_come_back_as_something_else(plain: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        codec(object).from_plain(plain)


def test_a_migration_that_makes_a_loop_is_told_so() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(ValidationError, match="nested too deeply"):
        codec(object).from_plain(loop)


ANYTHING: Final = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4)
    | st.sampled_from(["$set", "$dict", "$type"])
    | st.binary(max_size=4)
    | st.datetimes(timezones=st.just(UTC))
    | st.sets(st.integers() | st.text(max_size=2), max_size=3)
    | st.just(UNDEFINED),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.sampled_from(["$set", "$dict", "$bytes"]), inner, max_size=3)
    ),
    max_leaves=10,
)


@settings(deadline=None)
@given(ANYTHING)
def test_any_plain_value_can_be_state(state: object) -> None:
    assert codec(object).decode(codec(object).encode(state)) == state


@settings(deadline=None)
@given(st.lists(ANYTHING, max_size=3))
def test_arguments_come_back_as_they_were_given(values: list[Any]) -> None:
    back = load_values(dump_values(values))
    assert back == values
    assert types_of(back) == types_of(values)


def test_stored_arguments_can_be_read() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    assert json.loads(dump_values(["hi", 2**70, 1.0, b"\x00", moment, UNDEFINED])) == [
        "hi",
        2**70,
        1.0,
        {"$bytes": "AA=="},
        {"$datetime": "2026-01-02T03:04:05.000006+00:00"},
        {"$undefined": True},
    ]
    with pytest.raises(ValidationError, match="nan"):
        dump_values([math.nan])
    with pytest.raises(ValidationError):
        load_values(b"{}")


def test_a_mark_may_be_written_with_an_escape() -> None:
    """By whoever edits the file by hand; trivet does not."""
    codec = StateConverter().state_codec(dict[str, object])
    assert codec.decode(rb'{"a":{"\u0024set":[1]},"b":{"\u0024dict":{"$x":2}}}') == {"a": {1}, "b": {"$x": 2}}
    assert codec.decode(b'{"a":{"x":[{"y":1}]},"b":"$"}') == {"a": {"x": [{"y": 1}]}, "b": "$"}


def next_number() -> int:
    return 1


@attrs.define
class Defaults:
    number: int = 0
    numbers: list[int] = attrs.field(factory=list[int])
    names: dict[str, str] = attrs.field(factory=dict[str, str])


@dataclasses.dataclass
class DataDefaults:
    numbers: set[int] = dataclasses.field(default_factory=set[int])
    text: str = ""


@attrs.define
class Numbered:
    number: int = attrs.field(factory=next_number)


@attrs.define
class NumberedByItself:
    number: int = attrs.field(default=attrs.Factory(lambda self: id(self), takes_self=True))


@dataclasses.dataclass
class NumberedData:
    number: int = dataclasses.field(default_factory=next_number)


@attrs.define
class NumberedAfterwards:
    number: int = 0

    def __attrs_post_init__(self) -> None:
        self.number = next_number()


@attrs.define(init=False)
class NumberedByHand:
    number: int = 0

    def __init__(self, number: int = 0) -> None:
        self.number = next_number()


@attrs.define
class Inheriting(NumberedAfterwards):
    other: int = 0


def set_number(instance: "SetByAnother", _attribute: object, _value: int) -> None:
    object.__setattr__(instance, "number", next_number())


@attrs.frozen
class SetByAnother:
    number: int = 0
    other: int = attrs.field(default=0, validator=set_number)


@attrs.define
class SetAsItIsSet:
    number: int = 0

    def __setattr__(self, name: str, value: int) -> None:
        object.__setattr__(self, name, value or next_number())


class Counting(type):
    def __call__(cls, *args: object, **kwargs: object) -> object:
        made: Any = super().__call__(*args, **kwargs)
        made.number = next_number()
        return made


@dataclasses.dataclass
class MadeByItsClass(metaclass=Counting):
    number: int = 0


@attrs.define
class Constant:
    """Which may be another one in each process."""

    token: str = "".join(str(next_number()))


def or_next(value: int) -> int:
    return value or next_number()


@attrs.define
class Converting:
    number: int = attrs.field(default=0, converter=or_next)


class PlaceOfItsOwn(Place):
    def __new__(cls, x: int, y: int) -> Self:
        return super().__new__(cls, x, next_number())


class PlaceWithDefault(NamedTuple):
    x: int
    y: int = 5


class Rights(enum.Flag):
    READ = 1
    WRITE = 2

    @classmethod
    def _missing_(cls, value: object) -> "Rights":
        return cls(next_number())


@attrs.define
class Holder:
    inner: dict[str, list[Numbered | None]] = attrs.field(factory=dict[str, list[Numbered | None]])


@pytest.mark.parametrize(
    "type_", [object, dict[str, Any], list[int], Message, Defaults, DataDefaults, Color, Place, int | None]
)
def test_types_that_make_nothing_up(type_: object) -> None:
    assert StateConverter().state_codec(type_).repeatable


@pytest.mark.parametrize(
    "type_",
    [
        Numbered,
        NumberedByItself,
        NumberedData,
        NumberedAfterwards,
        NumberedByHand,
        Inheriting,
        SetByAnother,
        SetAsItIsSet,
        MadeByItsClass,
        Constant,
        Converting,
        PlaceOfItsOwn,
        PlaceWithDefault,
        Rights,
        Holder,
        list[Numbered],
    ],
)
def test_types_that_may_make_something_up(type_: object) -> None:
    assert not StateConverter().state_codec(type_).repeatable
