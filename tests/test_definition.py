"""What actor classes are made of, and what is told of those that cannot work."""

from typing import Any, Generic, TypeVar

import attrs
import pytest

from trivet import Actor, Conn, DefinitionError, Event, Options, Registry, action
from trivet.conversion import same_name
from trivet.definition import type_arguments

T = TypeVar("T")


@attrs.define
class State:
    value: int = 0


@attrs.frozen
class Needy:
    value: int


class Base(Actor[State]):
    changed = Event(int)

    @action
    def set_value(self, value: int) -> None:
        self.state.value = value


class Derived(Base):
    removed = Event(str, name="gone")

    @action(name="calculator.add", concurrent=True, readonly=True, timeout=3)
    async def add(self, amount: float, times: int = 1) -> float:
        """Adds."""
        return self.state.value + amount * times

    @action
    def set_value(self, value: int) -> None:  # the subclass's own
        self.state.value = -value


def test_names_on_the_wire_are_camel_case_or_given() -> None:
    definition = Registry(Derived)["derived"]
    assert set(definition.actions) == {"setValue", "calculator.add"}
    assert set(definition.events) == {"changed", "gone"}
    added = definition.actions["calculator.add"]
    assert (added.concurrent, added.readonly, added.timeout) == (True, True, 3)
    assert not definition.actions["setValue"].concurrent


def test_a_registry_may_name_otherwise_and_an_actor_may_name_itself() -> None:
    class Renamed(Base):
        name = "someActor"

    registry = Registry(Derived, Renamed, rename=same_name)
    assert set(registry) == {"derived", "someActor"}
    assert "set_value" in registry["derived"].actions


def test_options_of_a_class_stand_over_those_of_its_registry() -> None:
    class Own(Base):
        options = Options(action_timeout=1)

    options = Registry(Own, options=Options(action_timeout=9, concurrent=True))["own"].options
    assert options.action_timeout == 1
    assert options.concurrent is True
    assert Registry(Own, options=Options(concurrent=True))["own"].actions["setValue"].concurrent


def test_actions_and_events_are_plain_methods_and_objects_in_their_class() -> None:
    assert Derived.add.__doc__ == "Adds."
    assert repr(Derived.add) == "<Action calculator.add>"
    assert repr(Base.changed) == "<Event changed>"
    assert Base.changed.types == (int,)
    assert Event[int | None]().types == (int | None,)
    assert Event().types == ()


def test_type_arguments_are_found_through_generic_bases() -> None:
    class Middle(Actor[T, str, int], Generic[T]):
        pass

    class Leaf(Middle[State]):
        pass

    class Bare(Actor):  # type: ignore[type-arg, unused-ignore]  # the defaults are what is tested
        pass

    assert type_arguments(Leaf) == (State, str, int)
    assert type_arguments(Bare) == (None, None, object)
    assert type_arguments(Derived) == (State, None, object)


def _clash_of_actions() -> type[Actor[Any, Any, Any]]:
    class Clash(Actor):
        @action
        def do_it(self) -> None: ...
        @action(name="doIt")
        def other(self) -> None: ...

    return Clash


def _clash_of_events() -> type[Actor[Any, Any, Any]]:
    class Clash(Actor):
        new_event = Event()
        newEvent = Event(int)  # noqa: N815 - the clash

    return Clash


def _unannotated() -> type[Actor[Any, Any, Any]]:
    class Unannotated(Actor):
        @action
        def act(self, value) -> None: ...  # type: ignore[no-untyped-def]  # pyright: ignore[reportMissingParameterType, reportUnknownParameterType]

    return Unannotated


def _needy_state() -> type[Actor[Any, Any, Any]]:
    class NeedyState(Actor[Needy]): ...

    return NeedyState


def _needy_conn_state() -> type[Actor[Any, Any, Any]]:
    class NeedyConnState(Actor[None, Needy]): ...

    return NeedyConnState


def _bad_type() -> type[Actor[Any, Any, Any]]:
    class BadType(Actor):
        event = Event(object, type(lambda: 0))

    return BadType


def _bad_name() -> type[Actor[Any, Any, Any]]:
    class BadName(Actor):
        name = "a/b"

    return BadName


def _hook_without_annotation() -> type[Actor[Any, Any, Any]]:
    class Unannotated(Actor[State]):
        def create_state(self, input) -> State:  # type: ignore[no-untyped-def]  # pyright: ignore[reportMissingParameterType, reportUnknownParameterType]
            return State()

    return Unannotated


def _hidden_context() -> type[Actor[Any, Any, Any]]:
    class Hidden(Actor):
        log = "mine"  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]

    return Hidden


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_clash_of_actions, r"do_it and other are both called 'doIt'.*@action\(name="),
        (_clash_of_events, r"new_event and newEvent are both called 'newEvent'.*name="),
        (_unannotated, r"Unannotated\.act: .*value"),
        (_needy_state, r"state, Needy, cannot be made without arguments; .*create_state"),
        (_needy_conn_state, r"connection state, Needy, .*create_conn_state"),
        (_bad_type, r"BadType\.event"),
        (_bad_name, r"'a/b' cannot be an actor's name"),
        (_hook_without_annotation, r"create_state: annotate"),
        (_hidden_context, r"Hidden\.log hides"),
    ],
)
def test_a_class_that_cannot_work_is_refused_with_what_to_do(make: Any, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        Registry(make())


def test_two_classes_of_one_name_are_refused() -> None:
    with pytest.raises(DefinitionError, match="both called 'derived'"):
        Registry(Derived, Derived)


def test_an_action_must_be_a_function() -> None:
    with pytest.raises(TypeError, match="takes a method"):
        action(3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


def test_a_connection_hook_may_be_declared_for_any_connection() -> None:
    class Any_(Actor):  # noqa: N801
        async def on_connect(self, conn: Conn) -> None: ...

    assert "on_connect" in Registry(Any_)["any_"].hooks
