"""The signatures of actions, seen from both sides."""

from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest

from trivet.conversion import CallSignature, ValidationError, WireConverter
from trivet.errors import DefinitionError
from trivet.protocol.values import UNDEFINED, Undefined, Value


@attrs.frozen
class User:
    user_name: str
    age: int = 0


class Room:
    def send(self, user: User, text: str, role: str = "player", *, internal: bool = False) -> User:
        raise NotImplementedError

    async def nothing(self) -> None: ...

    def maybe(self, number: int | None) -> int | None:
        raise NotImplementedError

    def both(self, number: int | Undefined, other: "Value" = None) -> "Value":
        raise NotImplementedError

    def many(self, first: str, *rest: User) -> list[User]:
        raise NotImplementedError

    def later(self) -> Awaitable[int]:
        raise NotImplementedError


converter = WireConverter()


def signature(fn: Callable[..., object]) -> CallSignature:
    return CallSignature(fn, converter)


send = signature(Room.send)
ANN = User("ann", 7)
ANN_PLAIN: Value = {"userName": "ann", "age": 7}


def issues(call: Callable[[], object]) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        call()
    return [str(issue) for issue in caught.value.issues]


def test_arguments_are_structured_in_their_places() -> None:
    assert send.bind([ANN_PLAIN, "hi", "admin"]) == ([ANN, "hi", "admin"], 0)


def test_an_absent_or_undefined_argument_takes_the_default() -> None:
    assert send.bind([ANN_PLAIN, "hi"]).args == [ANN, "hi", "player"]
    assert send.bind([ANN_PLAIN, "hi", UNDEFINED]).args == [ANN, "hi", "player"]


def test_null_is_no_absent_argument() -> None:
    assert issues(lambda: send.bind([ANN_PLAIN, "hi", None])) == ["args[2]: expected str, got None"]


def test_missing_and_wrong_arguments_are_all_named() -> None:
    assert issues(lambda: send.bind([{"userName": "ann", "age": "7"}])) == [
        "args[0].age: expected int, got str",
        "args[1]: missing (text)",
    ]
    assert issues(lambda: send.bind([UNDEFINED, "hi"])) == ["args[0]: missing (user)"]


def test_extra_arguments_are_counted_and_left_out() -> None:
    assert send.bind([ANN_PLAIN, "hi", "admin", 1, 2]) == ([ANN, "hi", "admin"], 2)
    assert signature(Room.nothing).bind([1]) == ([], 1)


def test_a_rest_takes_all_that_come() -> None:
    many = signature(Room.many)
    assert many.bind(["a"]) == (["a"], 0)
    assert many.bind(["a", ANN_PLAIN, {"userName": "bob"}]) == (["a", ANN, User("bob")], 0)
    assert issues(lambda: many.bind(["a", ANN_PLAIN, 5])) == ["args[2]: expected User (object), got int"]
    assert many.dump_args(("a", ANN, ANN), {}) == ["a", ANN_PLAIN, ANN_PLAIN]


def test_optional_is_not_the_same_as_absent() -> None:
    maybe = signature(Room.maybe)
    assert maybe.bind([None]).args == [None]
    assert maybe.bind([UNDEFINED]).args == [None]
    assert issues(lambda: maybe.bind([])) == ["args[0]: missing (number)"]


def test_a_parameter_that_names_undefined_gets_it() -> None:
    both = signature(Room.both)
    assert both.bind([]).args == [UNDEFINED, None]
    assert both.bind([1, {"a": [1]}]).args == [1, {"a": [1]}]


def test_a_call_is_written_as_its_python_signature_says() -> None:
    assert send.dump_args((ANN, "hi"), {}) == [ANN_PLAIN, "hi"]
    assert send.dump_args((ANN,), {"text": "hi"}) == [ANN_PLAIN, "hi"]
    assert send.dump_args((), {"text": "hi", "role": "x", "user": ANN}) == [ANN_PLAIN, "hi", "x"]


def test_skipped_defaults_are_undefined_in_the_middle_and_left_out_at_the_end() -> None:
    def move(x: int = 0, y: int = 0, z: int = 0) -> None: ...

    function = CallSignature(move, converter, skip_first=False)
    assert function.dump_args((), {}) == []
    assert function.dump_args((), {"y": 5}) == [UNDEFINED, 5]
    assert function.dump_args((1, UNDEFINED, UNDEFINED), {}) == [1]
    assert function.bind([UNDEFINED, 5]).args == [0, 5, 0]


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        ((ANN,), {}),
        ((ANN, "hi", "x", "y"), {}),
        ((ANN, "hi"), {"text": "again"}),
        ((ANN, "hi"), {"unknown": 1}),
        ((ANN, "hi"), {"internal": True}),
    ],
)
def test_a_call_that_python_would_refuse_is_a_type_error(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"Room\.send\(\)"):
        send.dump_args(args, kwargs)


def test_a_callers_wrong_values_are_named() -> None:
    wrong: Any = "7"
    assert issues(lambda: send.dump_args((User("ann", wrong), 5), {})) == [
        "args[0].age: expected int, got str",
        "args[1]: expected str, got int",
    ]


def test_results_travel_by_the_return_annotation() -> None:
    assert send.dump_result(ANN) == ANN_PLAIN
    assert send.load_result(ANN_PLAIN) == ANN
    assert issues(lambda: send.dump_result("ann")) == ["expected User, got str"]
    assert issues(lambda: send.load_result({"userName": 1})) == ["userName: expected str, got int"]


def test_no_result_is_undefined_and_none_among_others_is_null() -> None:
    nothing = signature(Room.nothing)
    assert nothing.dump_result(None) is UNDEFINED
    assert nothing.load_result(UNDEFINED) is None
    assert nothing.load_result("something") is None
    assert issues(lambda: nothing.dump_result(1)) == ["expected None, got int"]
    assert signature(Room.maybe).dump_result(None) is None
    assert signature(Room.maybe).load_result(UNDEFINED) is None


def test_what_an_awaitable_gives_is_the_result() -> None:
    assert signature(Room.later).load_result(5) == 5


def test_without_a_return_annotation_any_plain_value_is_a_result() -> None:
    def loose(self: object):  # type: ignore[no-untyped-def] # the missing annotation is the point
        raise NotImplementedError

    assert signature(loose).dump_result([ANN]) == [ANN_PLAIN]


def test_functions_that_cannot_be_called_from_afar_are_refused() -> None:
    def bare(self: object, x) -> None: ...  # type: ignore[no-untyped-def] # the missing annotation is the point
    def keywords(self: object, **kwargs: int) -> None: ...
    def keyword_only(self: object, *, x: int) -> None: ...
    def odd(self: object, x: memoryview) -> None: ...
    def lost(self: object, x: "Nowhere") -> None: ...  # type: ignore[name-defined] # noqa: F821
    def odd_result(self: object) -> memoryview: ...  # type: ignore[empty-body]

    cases: dict[Callable[..., object], str] = {
        bare: r"the parameter 'x' of bare\(\) has no annotation; add one",
        keywords: r"'kwargs' of keywords\(\): arguments travel by position",
        keyword_only: r"'x' of keyword_only\(\): arguments travel by position; give it a default",
        odd: r"the parameter 'x' of odd\(\): memoryview cannot travel",
        lost: r"lost\(\): an annotation names 'Nowhere'.*top level of a module",
        odd_result: r"the result of odd_result\(\): memoryview cannot travel",
    }
    for function, message in cases.items():
        with pytest.raises(DefinitionError, match=message):
            signature(function)
