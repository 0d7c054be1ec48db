"""`on_before_action_response`: what a client gets in place of an action's own result."""

from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from trivet import Actor, ActorError, Limits, Registry, UserError, action, open_local


@attrs.frozen
class Sum:
    total_amount: int


class Till(Actor):
    def __init__(self) -> None:
        self.seen: list[tuple[str, list[Any], object]] = []

    async def on_before_action_response(self, name: str, args: list[Any], output: Any) -> Any:
        self.seen.append((name, args, output))
        if name == "addUp":
            await trio.lowlevel.checkpoint()
            return Sum(output.total_amount * 100)
        if name == "refuse":
            raise UserError("not this one", code="refused")
        if name == "hang":
            await trio.sleep_forever()
        return output

    @action
    def add_up(self, one: int, other: int = 2) -> Sum:
        return Sum(one + other)

    @action
    def same(self) -> Sum:
        return Sum(1)

    @action
    def refuse(self) -> None: ...

    @action
    def hang(self) -> None: ...

    @action
    def fail(self) -> None:
        raise UserError("failed", code="failed")

    @action
    def calls(self) -> list[str]:
        return [name for name, _, _ in self.seen]

    @action
    def arguments(self) -> list[object]:
        return [args for _, args, _ in self.seen]


async def test_it_gets_the_names_arguments_and_result_and_gives_another() -> None:
    async with open_local(Registry(Till)) as client:
        till = client.get_or_create(Till, "t")
        assert await till.call(Till.add_up, 1) == Sum(300)
        assert await till.call("addUp", 1, 4) == {"totalAmount": 500}
        assert await till.call(Till.same) == Sum(1)
        async with till.connect() as connection:
            assert await connection.call(Till.add_up, 2) == Sum(400)
        assert await till.call(Till.calls) == ["addUp", "addUp", "same", "addUp"]
        assert (await till.call(Till.arguments))[:2] == [[1, 2], [1, 4]]


async def test_what_it_raises_is_the_answer_and_an_action_that_failed_does_not_reach_it() -> None:
    async with open_local(Registry(Till)) as client:
        till = client.get_or_create(Till, "t")
        with pytest.raises(ActorError, match="not this one") as refused:
            await till.call(Till.refuse)
        assert (refused.value.group, refused.value.code) == ("user", "refused")
        with pytest.raises(ActorError, match="failed"):
            await till.call(Till.fail)
        assert await till.call(Till.calls) == ["refuse"]


async def test_it_has_the_time_of_an_action(autojump_clock: MockClock) -> None:
    async with open_local(Registry(Till), limits=Limits(action_timeout=3)) as client:
        with pytest.raises(ActorError) as timed_out:
            await client.get_or_create(Till, "t").call(Till.hang)
        assert timed_out.value.code == "action_timed_out"
        assert trio.current_time() < 10
