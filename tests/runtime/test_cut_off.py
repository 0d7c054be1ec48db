"""What the end of a life cuts off, and what user code raises before an action begins: each is answered, by itself."""

from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar

import attrs
import pytest
import trio
import trio.testing

from tests.runtime.support import FORMAT, REQUEST, FakeTransport, connected, settled
from tests.store.support import stopped_writer
from trivet import Actor, Conn, Limits, Options, PublicError, Registry, action
from trivet.protocol.values import UNDEFINED
from trivet.raw import Request, Response, WebSocket
from trivet.runtime.host import open_host
from trivet.runtime.instance import Instance
from trivet.store import MemoryStore
from trivet.store.sqlite import open_sqlite_store


class Slow(Actor):
    options = Options(shutdown_grace=1.0)
    ran: ClassVar[int] = 0

    async def on_connect(self, conn: Conn[Any, Any]) -> None:
        await trio.sleep(30)

    @action
    def bump(self) -> None:
        Slow.ran += 1


async def answer_of(instance: Instance, name: str, answers: dict[int, object]) -> None:
    number = len(answers)
    answers[number] = None
    try:
        answers[number] = await instance.call(name, [], request=REQUEST)
    except PublicError as error:
        answers[number] = f"{error.group}.{error.code}"


@pytest.mark.parametrize("durable", [True, False])
async def test_who_was_not_let_in_before_a_stop_may_come_again(durable: bool, autojump_clock: trio.abc.Clock) -> None:
    Slow.ran = 0
    transport, answers = FakeTransport(), dict[int, object]()
    async with trio.open_nursery() as nursery:

        async def connect(instance: Instance) -> None:
            async with instance.open_session(transport, FORMAT, params=UNDEFINED, request=REQUEST):
                await transport.until(2)

        async with open_host(Registry(Slow), store=MemoryStore(durable=durable)) as host:
            instances = [(await host.get_or_create("default", "slow", (key,)))[0] for key in "ab"]
            nursery.start_soon(connect, instances[0])
            nursery.start_soon(answer_of, instances[1], "bump", answers)
            await settled()
            await host.stop()
        await settled()
    assert transport.lines[-1] == "close 1011 actor.stopping"
    assert answers == {0: "actor.stopping"}
    assert Slow.ran == 0
    assert not instances[0].conns


@attrs.define
class Number:
    n: int = 0


def spin(seconds: float) -> None:
    """Take time of the loop."""
    began = perf_counter()
    while perf_counter() < began + seconds:
        pass


class Spoiled(Actor[Number]):
    options = Options(durability="gated")

    @action
    async def wait(self) -> None:
        await Spoiled.go.wait()

    @action
    def spoil(self) -> None:
        self.state.n = "no number"  # type: ignore[assignment]  # what the test is about
        spin(0.003)  # a turn so long that there is a flush before the next one

    @action
    def hello(self) -> str:
        return "hello"

    go: ClassVar[trio.Event]


async def test_a_call_whose_turn_had_come_when_the_actor_could_not_be_saved_is_answered() -> None:
    Spoiled.go = trio.Event()
    answers = dict[int, object]()
    async with open_host(Registry(Spoiled), store=MemoryStore(durable=True)) as host:
        instance, _ = await host.get_or_create("default", "spoiled", ("k",))
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for name in ("wait", "spoil", "hello", "hello"):
                    nursery.start_soon(answer_of, instance, name, answers)
                    await settled()
                Spoiled.go.set()
    assert [answers[number] for number in (1, 2, 3)] == ["actor.save_failed"] * 3


def burn(_instance: object, _attribute: object, name: str) -> None:
    raise FAULTS[name]


FAULTS = {type(fault).__name__: fault for fault in (AssertionError("x"), KeyError("x"), ZeroDivisionError("x"))}


@attrs.define
class Fussy:
    fault: str = attrs.field(validator=burn)


class Strict(Actor[None, None, Fussy | None]):
    @action
    def at_once(self, value: Fussy) -> None: ...

    @action
    async def in_time(self, value: Fussy) -> None: ...

    @action(concurrent=True)
    async def beside(self, value: Fussy) -> None: ...


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ["atOnce", "inTime", "beside"])
async def test_a_validator_that_fails_is_that_calls_error_alone(
    name: str, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_host(Registry(Strict)) as host:
        instance, _ = await host.get_or_create("default", "strict", ("k",))
        async with connected(instance) as bystander, connected(instance) as peer:
            call = peer.act(name, {"fault": fault})
            await settled()
            assert peer.answer(call).code == "internal_error"
            assert bystander.closed_with is None
            assert peer.closed_with is None
    assert fault in caplog.text


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("way", ["connection", "call"])
async def test_a_validator_of_parameters_that_fails_refuses_that_connection_alone(fault: str, way: str) -> None:
    async with open_host(Registry(Strict)) as host:
        instance, _ = await host.get_or_create("default", "strict", ("k",))
        async with connected(instance) as bystander:
            if way == "call":
                with pytest.raises(PublicError, match="internal_error"):
                    await instance.call("atOnce", [], params={"fault": fault}, request=REQUEST)
            else:
                transport = FakeTransport()
                async with instance.open_session(transport, FORMAT, params={"fault": fault}, request=REQUEST):
                    await settled()
                assert transport.lines[-1].startswith("close 1011 ")
                assert "internal_error" in transport.lines[-1]
            assert bystander.closed_with is None


class Busy(Actor):
    @action(concurrent=True)
    async def beside(self) -> None:
        await trio.sleep_forever()

    async def on_request(self, request: Request) -> Response:
        return await trio.sleep_forever()

    async def on_websocket(self, websocket: WebSocket) -> None:
        await trio.sleep_forever()


@pytest.mark.parametrize("way", ["call", "fetch"])
async def test_what_arrives_as_everything_around_is_cancelled_is_answered(way: str) -> None:
    """Also between the end of the actor's tasks and that of the actor itself, where Trio runs others."""
    for _ in range(20):  # Trio's scheduler has no order
        answers: list[str] = []

        async def ask(instance: Instance, answers: list[str]) -> None:
            try:
                if way == "call":
                    await instance.call("beside", [], request=REQUEST)
                else:
                    await instance.fetch(REQUEST)
            except PublicError as error:
                answers.append(f"{error.group}.{error.code}")

        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as process:
                async with open_host(Registry(Busy)) as host:
                    instance, _ = await host.get_or_create("default", "busy", ("k",))
                    await settled()
                    process.cancel()
                    for _ in range(3):
                        nursery.start_soon(ask, instance, answers)
                        with trio.CancelScope(shield=True):
                            await trio.lowlevel.checkpoint()
                            nursery.start_soon(ask, instance, answers)
        assert len(answers) == 6
        assert set(answers) <= {"actor.stopping", "actor.shutdown_timeout"}


class Late(Actor):
    ran: ClassVar[list[str]]
    go_on: ClassVar[trio.Event]

    async def on_connect(self, conn: Conn) -> None:
        await self.go_on.wait()

    @action
    def in_turn(self) -> None:
        self.ran.append("in turn")

    @action(concurrent=True)
    async def beside(self) -> None:
        self.ran.append("beside")


@pytest.mark.parametrize("name", ["inTurn", "beside"])
async def test_a_call_that_is_cancelled_while_it_is_let_in_never_runs(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Late, "ran", [], raising=False)
    monkeypatch.setattr(Late, "go_on", trio.Event(), raising=False)
    async with open_host(Registry(Late)) as host:
        instance, _ = await host.get_or_create("default", "late", ("k",))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer_of, instance, name, dict[int, object]())
            await settled()
            nursery.cancel_scope.cancel()
        Late.go_on.set()
        await settled()
        assert Late.ran == []
        assert not instance.conns
        await instance.call(name, [], request=REQUEST)
        assert len(Late.ran) == 1


@attrs.define
class Count:
    value: int = 0


class Counting(Actor[Count]):
    options = Options(durability="none")

    @action
    def add(self) -> int:
        self.state.value += 1
        return self.state.value

    @action(readonly=True)
    def look(self) -> int:
        return self.state.value


async def test_a_last_commit_that_outlasts_the_grace_is_waited_for_by_the_next_life(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mock_clock: trio.testing.MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen: list[object] = []
    limits = Limits(shutdown_grace=1.0)
    async with (
        open_sqlite_store(tmp_path) as store,
        open_host(Registry(Counting), limits, store=store) as host,
        trio.open_nursery() as nursery,
    ):
        instance, _ = await host.get_or_create("default", "counting", ("k",))
        await instance.call("add", [], request=REQUEST)

        async def look() -> None:
            again, _ = await host.get_or_create("default", "counting", ("k",), soon=True)
            seen.append(await again.call("look", [], request=REQUEST))
            seen.append(again.generation)

        with stopped_writer(store, monkeypatch) as writer:
            nursery.start_soon(instance.sleep)
            await writer.begun.wait()
            mock_clock.jump(limits.shutdown_grace)
            await instance.ended.wait()
            nursery.start_soon(look)
            await settled()
            assert seen == []  # as long as nobody knows what there is
    assert seen == [1, 2]
    assert caplog.messages == ["counting[k] could not be saved at its end: the store takes longer than 1 s"]
