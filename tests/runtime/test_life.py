"""The life of actors: hooks in order, creation and keys, destruction, stop, crashes, state."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import attrs
import pytest
import trio

from tests.runtime.support import REQUEST, actor_of, connected, settled
from trivet import Actor, Conn, Limits, PublicError, Registry, UserError, action
from trivet.runtime.host import Host, open_host


@attrs.frozen
class Input:
    start: int
    fail: str = ""


@attrs.define
class Count:
    value: int = 0
    derived: int = 0
    history: list[int] = attrs.field(factory=list[int])


class Counter(Actor[Count]):
    lives: ClassVar[list[list[str]]] = []

    def __init__(self) -> None:
        self.events: list[str] = []
        self.lives.append(self.events)
        self.running = trio.Event()
        self.changes: list[int] = []

    def on_migrate(self, is_new: bool) -> None:
        self.events.append(f"migrate {is_new}")

    async def create_state(self, input: Input = Input(1)) -> Count:
        if input.fail == "state":
            raise UserError("no such start", code="bad_start")
        return Count(input.start)

    async def on_create(self, input: Input | None = None) -> None:
        self.events.append(f"create {self.state.value} {input is not None}")

    def on_wake(self) -> None:
        self.events.append("wake")

    async def run(self) -> None:
        self.events.append("run")
        self.running.set()
        await trio.sleep_forever()

    async def on_destroy(self) -> None:
        self.events.append(f"destroy with {len(self.conns)}")

    def on_disconnect(self, conn: Conn[None]) -> None:
        self.events.append(f"disconnect {conn.kind}")

    def on_state_change(self) -> None:
        self.changes.append(self.state.value)
        if self.state.value == 666:
            self.state.derived = 1
        if self.state.value == 667:
            self.state.history.append(1)

    @action
    def add(self, n: int) -> int:
        for _ in range(n):
            self.state.value += 1
        return self.state.value

    @action
    def set(self, value: int) -> int:
        self.state.value = value
        return self.state.value

    @action
    def get(self) -> int:
        return self.state.value

    @action
    async def set_and_fail(self, value: int) -> None:
        self.state.value = value
        raise UserError("after the change")

    @action
    def replace(self, value: int) -> None:
        self.state = Count(value)

    @action
    def end(self) -> str:
        self.destroy()
        return "ending"

    @action
    def background(self) -> None:
        self.start_soon(self._fail)

    async def _fail(self) -> None:
        raise RuntimeError("in the background")

    @action
    async def hang(self) -> None:
        await trio.sleep_forever()

    @action
    def where(self) -> list[str]:
        return [self.name, self.namespace, *self.key, str(len(self.actor_id))]


class Stateless(Actor):
    @action
    def touch(self) -> str:
        try:
            return str(self.state)
        except PublicError as error:
            return f"{error.group}.{error.code}"


class Crashing(Actor):
    def __init__(self) -> None:
        raise RuntimeError("cannot be made")


class BadRun(Actor):
    async def run(self) -> None:
        raise RuntimeError("run failed")

    @action
    def ping(self) -> str:
        return "pong"


@asynccontextmanager
async def hosting(limits: Limits | None = None) -> AsyncGenerator[Host]:
    Counter.lives.clear()
    async with open_host(Registry(Counter, Stateless, Crashing, BadRun), limits) as host:
        yield host


async def counter(host: Host, *key: str, **kwargs: Any) -> Any:
    return (await host.get_or_create("default", "counter", key, **kwargs))[0]


async def test_a_first_life_runs_its_hooks_in_order() -> None:
    async with hosting() as host:
        instance = await counter(host, "a", input={"start": 5})
        await actor_of(instance, Counter).running.wait()
        assert actor_of(instance, Counter).events == ["migrate True", "create 5 True", "wake", "run"]
        assert await instance.call("where", [], request=REQUEST) == ["counter", "default", "a", "30"]


async def test_an_absent_input_leaves_the_default_and_a_wrong_one_is_refused() -> None:
    async with hosting() as host:
        instance = await counter(host)
        assert await instance.call("get", [], request=REQUEST) == 1
        with pytest.raises(PublicError, match=r"validation_error: input\.start: expected int, got str"):
            await counter(host, "b", input={"start": "5"})
        with pytest.raises(PublicError, match="bad_start"):
            await counter(host, "b", input={"start": 1, "fail": "state"})
        assert len(host.instances()) == 1
        assert await (await counter(host, "b")).call("get", [], request=REQUEST) == 1


async def test_an_actor_that_cannot_be_made_is_an_internal_error(caplog: pytest.LogCaptureFixture) -> None:
    async with hosting() as host:
        with pytest.raises(PublicError, match=r"rivetkit\.internal_error"):
            await host.get_or_create("default", "crashing", ())
        assert "cannot be made" in caplog.text
        assert host.statistics().actors == 0


async def test_one_actor_for_each_namespace_name_and_key_however_many_ask_at_once() -> None:
    async with hosting() as host:
        found: list[Any] = []

        async def ask() -> None:
            found.append(await host.get_or_create("default", "counter", ("a",)))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask)
        assert len({instance.actor_id for instance, _ in found}) == 1
        assert sum(created for _, created in found) == 1
        other, _ = await host.get_or_create("elsewhere", "counter", ("a",))
        assert other.actor_id != found[0][0].actor_id
        assert host.instances("elsewhere") == [other]
        assert (await host.by_id(other.actor_id)) is other
        assert (await host.get("elsewhere", "counter", ("a",))) is other


async def test_what_does_not_exist_or_exists_already_is_answered() -> None:
    async with hosting() as host:
        with pytest.raises(PublicError, match=r"actor\.not_found"):
            await host.get("default", "counter", ("a",))
        with pytest.raises(PublicError, match=r"actor\.not_found"):
            await host.by_id("nope")
        with pytest.raises(PublicError, match=r"actor\.not_registered"):
            await host.get_or_create("default", "nope", ())
        with pytest.raises(PublicError):
            await host.get_or_create("default", "counter", ("x" * 200,))
        instance = await host.create("default", "counter", ("a",))
        with pytest.raises(PublicError, match=r"actor\.duplicate_key") as info:
            await host.create("default", "counter", ("a",))
        assert info.value.metadata == {"existing_actor_id": instance.actor_id, "key": "a"}


async def test_destroying_runs_the_hook_closes_connections_and_frees_the_key() -> None:
    async with hosting() as host:
        instance = await counter(host, "a")
        async with connected(instance) as peer:
            assert await peer.call("end") == "ending"
            await instance.ended.wait()
            await settled()
            assert peer.closed_with == "1000 actor.stopped"
        assert actor_of(instance, Counter).events[-2:] == ["destroy with 1", "disconnect events"]
        with pytest.raises(PublicError, match=r"actor\.not_found"):
            await host.by_id(instance.actor_id)
        again = await counter(host, "a")
        assert again.actor_id != instance.actor_id
        assert len(Counter.lives) == 2


async def test_what_arrives_while_an_actor_ends_is_told_so() -> None:
    async with hosting() as host:
        instance = await counter(host, "a")
        async with connected(instance) as peer:
            ending = peer.act("end")
            late = peer.act("get")
            await instance.ended.wait()
            await settled()
            assert peer.answer(ending) == "ending"
            assert peer.answer(late) == 1 or peer.answer(late).code == "stopping"
        with pytest.raises(PublicError, match=r"actor\.not_found"):
            await instance.call("get", [], request=REQUEST)


async def test_a_stop_tells_connections_and_cancels_what_outlasts_the_grace(autojump_clock: trio.abc.Clock) -> None:
    async with hosting(Limits(shutdown_grace=3)) as host:
        instance = await counter(host, "a")
        async with connected(instance) as peer, connected(instance) as other:
            hanging = peer.act("hang")
            await settled()
            began = trio.current_time()
            await host.stop()
            # Half of so short a grace is for telling them.
            assert trio.current_time() - began == pytest.approx(1.5)
            await settled()
            assert peer.answer(hanging).code == "shutdown_timeout"
            assert peer.closed_with is not None
            assert other.closed_with is not None
        with pytest.raises(PublicError, match=r"actor\.stopping"):
            await host.get_or_create("default", "counter", ("b",))


async def test_a_stop_of_an_idle_host_says_going_away() -> None:
    async with hosting() as host:
        async with connected(await counter(host, "a")) as peer:
            await host.stop()
            await settled()
            assert peer.closed_with == "1001 ws.going_away"


async def test_run_and_background_work_that_raise_are_logged_and_the_actor_lives(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with hosting() as host:
        bad, _ = await host.get_or_create("default", "badRun", ())
        await settled()
        assert await bad.call("ping", [], request=REQUEST) == "pong"
        assert "badRun[]: run failed" in caplog.text
        assert "RuntimeError: run failed" in caplog.text
        instance = await counter(host)
        await instance.call("background", [], request=REQUEST)
        await settled()
        assert "in the background" in caplog.text
        assert await instance.call("get", [], request=REQUEST) == 1


async def test_state_changes_are_told_once_a_turn_and_reads_never() -> None:
    async with hosting() as host:
        instance = await counter(host)
        changes = actor_of(instance, Counter).changes
        async with connected(instance) as peer:
            assert await peer.call("add", 100) == 101
            assert changes == [101]
            await peer.call("get")
            assert changes == [101]
            answer = await peer.call("setAndFail", 7)
            assert answer.code == "user_error"
            assert changes == [101, 7]
            await peer.call("replace", 8)
            assert await instance.call("get", [], request=REQUEST) == 8
            assert changes == [101, 7, 8]


@pytest.mark.parametrize("value", [666, 667])
async def test_state_is_read_only_while_its_change_is_told(value: int, caplog: pytest.LogCaptureFixture) -> None:
    async with hosting() as host:
        instance = await counter(host)
        assert await instance.call("set", [value], request=REQUEST) == value
        assert instance.read_state() == Count(value)


async def test_an_actor_without_state_says_so() -> None:
    async with hosting() as host:
        instance, _ = await host.get_or_create("default", "stateless", ())
        assert await instance.call("touch", [], request=REQUEST) == "actor.state_not_enabled"


async def test_an_error_in_the_body_of_open_host_comes_out_alone() -> None:
    with pytest.raises(KeyError):  # noqa: PT012 - the raise is the body's
        async with hosting() as host:
            await counter(host)
            raise KeyError("mine")
