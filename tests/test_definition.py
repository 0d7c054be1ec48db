"""What actor classes are made of, and what is told of those that cannot work."""

from typing import Any, Generic, TypeVar

import attrs
import pytest

from trivet import UNDEFINED, Actor, Conn, DefinitionError, Event, Limits, Options, PublicError, Registry, action
from trivet.conversion import same_name
from trivet.definition import type_arguments
from trivet.registry import check_registry

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


# -- what an author could have meant otherwise ------------------------------------------------------------------------


def _make(**members: Any) -> type[Actor[Any, Any, Any]]:
    made: type[Actor[Any, Any, Any]] = type("A", (Actor,), members)
    return made


async def _one(self: Any, x: object) -> None: ...
def _none(self: Any) -> None: ...
def _two(self: Any, x: object, y: object) -> None: ...
def _no_self() -> None: ...


def _as_any(value: Any) -> Any:
    """What a checker would refuse, as a user without one writes it."""
    return value


_any_action: Any = action


class _Needs:
    def __init__(self, x: int) -> None: ...


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"on_connect": _none}, r"A\.on_connect is a hook; declare it as def on_connect\(self, conn\)"),
        ({"run": _one}, r"def run\(self\)"),
        ({"create_state": _none}, r"def create_state\(self, input\)"),
        ({"on_request": _two}, r"def on_request\(self, request\)"),
        ({"on_wake": 3}, r"def on_wake\(self\)"),
        ({"on_wake": _no_self}, r"def on_wake\(self\)"),
        ({"on_conect": _one}, r"A\.on_conect is not a hook; did you mean on_connect\?"),
        ({"onConnect": _one}, r"did you mean on_connect\?"),
        ({"onStateChange": _none}, r"did you mean on_state_change\?"),
        ({"on_connection": _one}, r"did you mean on_connect\?"),
        ({"create_states": _one}, r"did you mean create_state\?"),
        ({"on_disconnected": _one}, r"did you mean on_disconnect\?"),
        ({"create_vars": _one}, r"create_vars is not a hook of trivet.*plain attributes"),
        ({"on_connect": action(_one)}, r"on_connect is a hook, and clients cannot call hooks"),
        ({"act": _any_action(_no_self)}, r"A\.act: an action is a method; give it self"),
        ({"ev": Event(int, can_subscribe=_as_any(_none))}, r"A\.ev: its can_subscribe takes \(self, conn\)"),
        ({"__init__": _Needs.__init__}, r"A\.__init__ has required parameters"),
        ({"ev": Event}, r"A\.ev is the class Event and no event; call it"),
        ({"ev": Event[int]}, r"A\.ev is the class Event"),
        ({"options": {"strict": True}}, r"A\.options is .*; write options = trivet\.Options"),
    ],
)  # fmt: skip
def test_what_would_never_run_as_meant_is_refused(members: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        Registry(_make(**members))


def test_hooks_may_be_async_static_or_take_more_than_they_get() -> None:
    def more(self: Any, conn: object, extra: int = 0, *rest: object) -> None: ...

    def helper(self: Any) -> None: ...

    cls = _make(on_connect=more, on_disconnect=_one, on_wake=staticmethod(_no_self), _on_conect=helper, on_move=helper)
    assert {"on_connect", "on_disconnect", "on_wake"} == Registry(cls)["a"].hooks


def test_a_type_that_cannot_be_stored_says_what_it_is_the_type_of() -> None:
    class Stored:
        pass

    class A(Actor[Stored]): ...

    class B(Actor[None, None, Stored]): ...

    with pytest.raises(DefinitionError, match=r"^A: its state: "):
        Registry(A)
    with pytest.raises(DefinitionError, match=r"^B: its params: "):
        Registry(B)


def test_an_event_takes_types() -> None:
    with pytest.raises(DefinitionError, match=r"give a type, such as dict\[str, int\]"):
        Event(_as_any({"a": int}))


def test_a_registry_takes_classes() -> None:
    wrong: list[Any] = [Derived(), [Derived], State, "derived"]
    for given in wrong:
        with pytest.raises(DefinitionError, match=r"is not an Actor class; pass classes: Registry\(A, B\)"):
            Registry(given)


def test_whoever_wants_a_registry_says_so() -> None:
    with pytest.raises(TypeError, match=r"serve takes a Registry, got the class Base; write serve\(Registry\(Base\)\)"):
        check_registry(Base, "serve")
    with pytest.raises(
        TypeError, match=r"open_local takes a Registry, got \[.*\]; write open_local\(Registry\(\.\.\.\)\)"
    ):
        check_registry([Base], "open_local")


def test_options_and_limits_that_make_no_sense_are_refused() -> None:
    for wrong in (-1.0, 0, float("nan")):
        with pytest.raises(ValueError, match="action_timeout"):
            Options(action_timeout=wrong)
    for wrong in (-1.0, float("nan")):
        with pytest.raises(ValueError, match=r"Limits\.ping_timeout"):
            Limits(ping_timeout=wrong)
    assert Limits(shutdown_grace=0).shutdown_grace == 0


def test_an_instance_made_by_hand_says_that_it_does_not_live() -> None:
    with pytest.raises(RuntimeError, match="instances are made by trivet"):
        Base().conns
    with pytest.raises(RuntimeError, match="reached through a client"):
        Base().broadcast("changed", 1)


def test_absent_params_are_a_mistake_where_the_class_needs_them() -> None:
    class Needing(Actor[None, None, Needy]): ...

    class Content(Actor[None, None, State]): ...

    with pytest.raises(PublicError, match="params") as raised:
        Registry(Needing)["needing"].params(UNDEFINED)
    assert raised.value.code == "validation_error"
    assert Registry(Content)["content"].params(UNDEFINED) == State()


class Scoped:
    """What no one can store."""


class Presence(Actor[State, Needy, list[int]]):
    def create_conn_state(self, params: list[int]) -> Needy:
        return Needy(sum(params))


class Live(Actor[State, Scoped, int]):
    pass


def test_connections_are_stored_where_their_states_can_be() -> None:
    presence, live, plain = (
        Registry(cls)[name] for cls, name in ((Presence, "presence"), (Live, "live"), (Base, "base"))
    )
    assert presence.conn_state_codec is not None
    assert presence.params_codec is not None
    assert presence.conn_state_codec.decode(presence.conn_state_codec.encode(Needy(1))) == Needy(1)
    assert presence.params_codec.encode([1, 2]) == b"[1,2]"
    assert live.conn_state_codec is None
    assert plain.conn_state_codec is not None
    assert plain.conn_state_codec.encode(None) == b"null"
    assert plain.params_codec is not None
    assert plain.params_codec.encode({"token": "x"}) == b'{"token":"x"}'


def test_an_internal_action_is_no_clients() -> None:
    class Hidden(Base):
        @action(internal=True)
        def tick(self) -> None:
            raise NotImplementedError

    definition = Registry(Hidden)["hidden"]
    assert set(definition.actions) == {"setValue"}
    assert set(definition.internal_actions) == {"tick"}
    assert definition.action("tick") is definition.by_action[Hidden.tick]

    class Clashing(Hidden):
        @action(name="tick")
        def tock(self) -> None:
            raise NotImplementedError

    with pytest.raises(DefinitionError, match="both called 'tick'"):
        Registry(Clashing)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"durability": "always"}, ValueError, "durability='always': use one of 'gated', 'interval', 'none', or None"),
        ({"durability": True}, ValueError, "durability=True: use one of"),
        ({"sleep_after": "30"}, TypeError, "sleep_after='30': use a number of seconds, or None"),
        ({"sleep_after": True}, TypeError, "sleep_after=True: use a number of seconds, or None"),
        ({"sleep_after": 0}, ValueError, "sleep_after=0: use a number above 0, or None"),
        ({"state_version": 1.5}, TypeError, "state_version=1.5: use an int, or None"),
        ({"sleep_with_connections": 30}, TypeError, "sleep_with_connections=30: use True, False or None"),
    ],
)
def test_options_say_what_they_take(options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Options(**options)
