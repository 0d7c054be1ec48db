"""Input, metadata, the hook for state changes, and attributes that live as long as the instance."""

import random
import time
from typing import Any, TypedDict

import attrs

from trivet import UNDEFINED, Actor, PublicError, action

from .support import Json, ValueState


@attrs.define
class InputState:
    initial_input: Json = UNDEFINED
    on_create_input: Json = UNDEFINED


class InputActor(Actor[InputState]):
    def create_state(self, value: Json = UNDEFINED) -> InputState:
        return InputState(initial_input=value)

    def on_create(self, value: Json = UNDEFINED) -> None:
        self.state.on_create_input = value

    @action
    def get_inputs(self) -> InputState:
        return self.state


class Metadata(TypedDict):
    name: str
    tags: dict[str, str]
    region: str | None


@attrs.define
class MetadataState:
    last_metadata: Metadata | None = None
    actor_name: str = ""
    stored_tags: dict[str, str] = attrs.field(factory=dict[str, str])
    stored_region: str | None = None


class MetadataActor(Actor[MetadataState]):
    def on_wake(self) -> None:
        self.state.actor_name = self.name

    @action
    def setup_test_tags(self, tags: dict[str, str]) -> dict[str, str]:
        self.state.stored_tags = tags
        return tags

    @action
    def setup_test_region(self, region: str) -> str:
        self.state.stored_region = region
        return region

    @action
    def get_metadata(self) -> Metadata:
        metadata = Metadata(name=self.name, tags=self.state.stored_tags, region=self.state.stored_region)
        self.state.last_metadata = metadata
        return metadata

    @action
    def get_actor_name(self) -> str:
        return self.name

    @action
    def get_tag(self, key: str) -> str | None:
        return self.state.stored_tags.get(key)

    @action
    def get_tags(self) -> dict[str, str]:
        return self.state.stored_tags

    @action
    def get_region(self) -> str | None:
        return self.state.stored_region

    @action
    def get_stored_actor_name(self) -> str:
        return self.state.actor_name

    @action
    def get_last_metadata(self) -> Metadata | None:
        return self.state.last_metadata


@attrs.define
class BlobState:
    value: int = 0
    blob: list[int] = attrs.field(factory=list[int])


class OnStateChangeActor(Actor[BlobState]):
    change_count = 0

    def on_state_change(self) -> None:
        self.change_count += 1

    @action
    def set_value(self, value: int) -> int:
        self.state.value = value
        return self.state.value

    @action
    def increment_multiple(self, times: int) -> int:
        for _ in range(times):
            self.state.value += 1
        return self.state.value

    @action
    def get_value(self) -> int:
        return self.state.value

    @action
    def get_doubled(self) -> int:
        return self.state.value * 2

    @action
    def get_change_count(self) -> int:
        return self.change_count

    @action
    def reset_change_count(self) -> None:
        self.change_count = 0

    @action
    def state_identity_stable(self) -> bool:
        first = self.state
        return first is self.state

    @action
    def seed_large(self, count: int) -> int:
        self.state.blob = list(range(count))
        return count

    @action
    def churn(self, iterations: int) -> float:
        start = time.perf_counter()
        for _ in range(iterations):
            self.state.value += 1
        return (time.perf_counter() - start) * 1000


@attrs.define
class DerivedState:
    value: int = 0
    derived_value: int = 0


@attrs.frozen
class Recursion:
    value: int
    derived_value: int
    call_count: int


class StateChangeRecursionActor(Actor[DerivedState]):
    call_count = 0
    derived_value = 0

    def on_state_change(self) -> None:
        self.derived_value = self.state.value * 2
        self.call_count += 1

    @action
    def set_value(self, value: int) -> int:
        self.state.value = value
        return value

    @action
    def get_derived_value(self) -> int:
        return self.derived_value

    @action
    def get_on_state_change_call_count(self) -> int:
        return self.call_count

    @action
    def get_all(self) -> Recursion:
        return Recursion(self.state.value, self.derived_value, self.call_count)


@attrs.frozen
class Reentrance:
    value: int
    derived_value: int
    call_count: int
    error_group: str
    error_code: str


class StateChangeReentrantMutationActor(Actor[DerivedState]):
    call_count = 0
    error_group = ""
    error_code = ""

    def on_state_change(self) -> None:
        self.call_count += 1
        try:
            self.state.derived_value = self.state.value * 2
        except PublicError as error:
            self.error_group = error.group
            self.error_code = error.code

    @action
    def set_value(self, value: int) -> int:
        self.state.value = value
        return value

    @action
    def get_result(self) -> Reentrance:
        return Reentrance(
            value=self.state.value,
            derived_value=self.state.derived_value,
            call_count=self.call_count,
            error_group=self.error_group,
            error_code=self.error_code,
        )


class Attempt(TypedDict):
    success: bool
    error: str


class StatelessActor(Actor):
    @action
    def ping(self) -> str:
        return "pong"

    @action
    def echo(self, message: str) -> str:
        return message

    @action
    def get_actor_id(self) -> str:
        return self.actor_id

    @action
    def try_get_state(self) -> Attempt:
        try:
            self.state  # reading is what raises
        except PublicError as error:
            return Attempt(success=False, error=error.message)
        return Attempt(success=True, error="")

    @action
    def try_get_db(self) -> Attempt:
        return Attempt(success=hasattr(self, "db"), error="there is no database")


@attrs.define
class Hello:
    hello: str = "world"


class StaticVarActor(Actor[ValueState, Hello]):
    def on_wake(self) -> None:
        self.vars = {"counter": 42, "name": "test-actor"}

    @action
    def get_vars(self) -> dict[str, Any]:
        return self.vars

    @action
    def get_name(self) -> Any:
        return self.vars["name"]


@attrs.define
class Nested:
    value: str = "original"
    array: list[int] = attrs.field(factory=lambda: [1, 2, 3])
    obj: dict[str, str] = attrs.field(factory=lambda: {"key": "value"})


@attrs.define
class NestedVars:
    counter: int = 42
    nested: Nested = attrs.field(factory=Nested)


class NestedVarActor(Actor[ValueState, Hello]):
    def on_wake(self) -> None:
        self.vars = NestedVars()

    @action
    def get_vars(self) -> NestedVars:
        return self.vars

    @action
    def modify_nested(self) -> NestedVars:
        self.vars.nested.value = "modified"
        self.vars.nested.array.append(4)
        self.vars.nested.obj["key"] = "new-value"
        return self.vars


@attrs.frozen
class DynamicVars:
    random: float
    computed: str


class DynamicVarActor(Actor[ValueState, Hello]):
    def on_wake(self) -> None:
        self.vars = DynamicVars(random.random(), f"Actor-{random.randrange(1000)}")

    @action
    def get_vars(self) -> DynamicVars:
        return self.vars


@attrs.frozen
class UniqueVars:
    id: int


class UniqueVarActor(Actor[ValueState, Hello]):
    def on_wake(self) -> None:
        self.vars = UniqueVars(random.randrange(1_000_000_000))

    @action
    def get_vars(self) -> UniqueVars:
        return self.vars


@attrs.frozen
class DriverContextVars:
    has_driver_ctx: bool


class DriverCtxActor(Actor[ValueState, Hello]):
    def on_wake(self) -> None:
        # What the suite calls a driver context is the process that hosts the actor; an actor here has none to see.
        self.vars = DriverContextVars(has_driver_ctx=False)

    @action
    def get_vars(self) -> DriverContextVars:
        return self.vars


ACTORS = (
    InputActor,
    MetadataActor,
    OnStateChangeActor,
    StateChangeRecursionActor,
    StateChangeReentrantMutationActor,
    StatelessActor,
    StaticVarActor,
    NestedVarActor,
    DynamicVarActor,
    UniqueVarActor,
    DriverCtxActor,
)
