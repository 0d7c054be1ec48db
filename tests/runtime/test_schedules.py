"""Schedules: durable, waking, once, in order, in virtual time."""

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
import trio

from tests.runtime.support import REQUEST, connected, settled
from trivet import (
    Actor,
    ActorError,
    Event,
    Limits,
    NoConnection,
    Options,
    PublicError,
    Registry,
    UserError,
    action,
    open_local,
)
from trivet.runtime.host import Host, open_host
from trivet.runtime.lifecycle import Phase
from trivet.store import MemoryStore, Store
from trivet.testing.store import FaultyStore

EPOCH = datetime(2030, 1, 1, tzinfo=UTC).timestamp()


@attrs.frozen
class Note:
    text: str
    number: int = 0


@attrs.define
class Log:
    lines: list[str] = attrs.field(factory=list[str])
    wakes: int = 0


class Diary(Actor[Log]):
    options = Options(sleep_after=10)
    written = Event(str)

    def __init__(self) -> None:
        self.go_on = trio.Event()

    def on_wake(self) -> None:
        self.state.wakes += 1

    @action
    def write(self, note: Note) -> None:
        with pytest.raises(NoConnection):
            self.conn
        line = f"{note.text}{note.number} at {trio.current_time():g}"
        self.state.lines.append(line)
        self.broadcast(self.written, line)

    @action
    def later(self, seconds: float, text: str) -> str:
        return self.schedule.after(seconds, Diary.write, Note(text, 1))

    @action
    def at(self, when: float, text: str) -> str:
        return self.schedule.at(datetime.fromtimestamp(when, UTC), "write", {"text": text})

    @action
    def tick(self, seconds: float, text: str) -> str:
        return self.schedule.every("tick", seconds, Diary.write, Note(text))

    @action
    def cron(self, expression: str) -> str:
        return self.schedule.cron("cron", expression, Diary.write, Note("cron"))

    @action
    def cancel(self, name: str) -> bool:
        return self.schedule.cancel(name)

    @action
    def planned(self) -> list[list[Any]]:
        return [[one.action, one.due - EPOCH, list(one.args)] for one in self.schedule.list()]

    @action
    def lines(self) -> list[str]:
        return self.state.lines

    @action
    def wakes(self) -> int:
        return self.state.wakes

    @action
    def fail_later(self, seconds: float) -> None:
        self.schedule.after(seconds, "fail")

    @action
    def fail(self) -> None:
        self.state.lines.append("failed")
        raise UserError("no")

    @action
    async def slow(self) -> None:
        self.state.lines.append(f"slow at {trio.current_time():g}")
        await trio.sleep(2.5)

    @action
    def slow_tick(self) -> None:
        self.schedule.every("slow", 1, Diary.slow)

    @action
    async def half(self) -> None:
        self.state.lines.append("begun")
        await self.go_on.wait()

    @action
    def half_later(self, seconds: float) -> None:
        self.schedule.after(seconds, Diary.half)

    @action(concurrent=True)
    async def beside(self) -> None:
        self.state.lines.append("beside")

    @action
    def beside_later(self) -> None:
        self.schedule.after(1, Diary.beside)

    @action(internal=True)
    def tidy(self, text: str = "") -> None:
        self.state.lines.append(f"tidied{text}")

    @action
    def tidy_later(self) -> None:
        self.schedule.after(timedelta(seconds=1), Diary.tidy)
        self.schedule.after(2.0, "tidy", "again")
        self.schedule.every("tidy", timedelta(minutes=1), Diary.tidy, "regularly")
        self.tidy("now")

    @action
    async def tidy_as_client(self) -> str:
        me = self.client().get_or_create(Diary, "other")
        with pytest.raises(ActorError) as caught:
            await me.call(Diary.tidy)
        return caught.value.code

    @action
    def now(self) -> float:
        return self.schedule.now()

    @action
    def wrong(self, what: str) -> None:
        if what == "name":
            self.schedule.after(1, "nothing")
        elif what == "snake":
            self.schedule.after(1, "fail_later")
        elif what == "method":
            self.schedule.after(1, self.fail)  # type: ignore[call-overload]  # what is refused
        elif what == "no action":
            self.schedule.after(1, print)  # type: ignore[call-overload]  # what is refused
        elif what == "text":
            self.schedule.after("1", Diary.fail)  # type: ignore[call-overload]  # what is refused
        elif what == "when":
            self.schedule.at("noon", Diary.fail)  # type: ignore[call-overload]  # what is refused
        elif what == "true":
            self.schedule.every("x", True, Diary.fail)
        elif what == "past":
            self.schedule.after(timedelta(days=-1), Diary.fail)
        elif what == "argument":
            self.schedule.after(1, "write", 7)
        elif what == "missing":
            self.schedule.after(1, "write")
        elif what == "many":
            self.schedule.after(1, "fail", 7)
        elif what == "seconds":
            self.schedule.after(-1, "fail")
        elif what == "cron":
            self.schedule.cron("x", "every day", "fail")
        elif what == "zone":
            self.schedule.cron("x", "TZ=Mars/Base 0 0 * * *", "fail")


class Ghost(Actor):
    name = "diary"


@asynccontextmanager
async def hosting(store: Store | None = None, limits: Limits | None = None, cls: Any = Diary) -> AsyncGenerator[Host]:
    def wall_clock() -> float:
        return EPOCH + trio.current_time()

    async with open_host(Registry(cls), limits, store=store, wall_clock=wall_clock) as host:
        yield host


async def call(host: Host, name: str, *args: Any) -> Any:
    instance, _ = await host.get_or_create("default", "diary", ("k",))
    return await instance.call(name, list(args), request=REQUEST)


async def test_an_action_runs_once_when_it_is_due(autojump_clock: trio.abc.Clock) -> None:
    async with hosting() as host:
        instance, _ = await host.get_or_create("default", "diary", ("k",))
        async with connected(instance) as peer:
            peer.subscribe("written")
            await peer.call("later", 5, "a")
            await peer.call("at", EPOCH + 3, "b")
            assert await peer.call("planned") == [
                ["write", 3, [{"text": "b"}]],
                ["write", 5, [{"text": "a", "number": 1}]],
            ]
            await trio.sleep(4.9)
            assert peer.events == [("written", ["b0 at 3"])]
            await trio.sleep(20)
            assert peer.events == [("written", ["b0 at 3"]), ("written", ["a1 at 5"])]
            assert await peer.call("planned") == []


async def test_a_schedule_wakes_an_actor_that_sleeps(autojump_clock: trio.abc.Clock) -> None:
    async with hosting() as host:
        await call(host, "later", 100, "a")
        instance, _ = await host.get_or_create("default", "diary", ("k",))
        await trio.sleep(50)
        assert instance.phase is Phase.GONE
        await trio.sleep(51)
        assert host.statistics().actors == 1
        assert await call(host, "lines") == ["a1 at 100"]
        assert await call(host, "wakes") == 2


async def test_schedules_survive_their_process_and_what_was_due_meanwhile_runs_once(
    autojump_clock: trio.abc.Clock,
) -> None:
    store = MemoryStore(durable=True)
    with trio.CancelScope() as process:
        async with hosting(store) as host:
            await call(host, "later", 10, "a")
            await call(host, "later", 300, "b")
            await call(host, "tick", 7, "t")
            process.cancel()
            await trio.lowlevel.checkpoint()
    await trio.sleep(100)
    async with hosting(store) as host:
        await trio.sleep(2)
        assert await call(host, "lines") == ["t0 at 100", "a1 at 100"]
        await trio.sleep(4)
        assert await call(host, "lines") == ["t0 at 100", "a1 at 100", "t0 at 105"]  # at 7 x 15, as ever
        assert await call(host, "cancel", "tick") is True
        await trio.sleep(300)
        assert (await call(host, "lines"))[3:] == ["b1 at 300"]


async def test_every_is_anchored_and_the_same_call_again_changes_nothing(autojump_clock: trio.abc.Clock) -> None:
    async with hosting() as host:
        assert await call(host, "tick", 4, "t") == "tick"
        await trio.sleep(3)
        await call(host, "tick", 4, "t")
        await trio.sleep(2)
        assert await call(host, "lines") == ["t0 at 4"]
        await call(host, "tick", 4, "other")  # another one of that name takes its place
        await trio.sleep(5)
        assert await call(host, "lines") == ["t0 at 4", "other0 at 9"]
        assert await call(host, "cancel", "tick") is True
        assert await call(host, "cancel", "tick") is False
        await trio.sleep(50)
        assert await call(host, "lines") == ["t0 at 4", "other0 at 9"]


async def test_a_time_at_which_the_last_run_goes_on_is_left_out(autojump_clock: trio.abc.Clock) -> None:
    async with hosting() as host:
        await call(host, "slowTick")
        await trio.sleep(8.7)
        assert await call(host, "lines") == ["slow at 1", "slow at 4", "slow at 7"]


async def test_cron(autojump_clock: trio.abc.Clock) -> None:
    async with hosting() as host:
        await call(host, "cron", "*/15 * * * *")
        await trio.sleep(3600 + 1)
        assert await call(host, "lines") == [f"cron0 at {n * 900}" for n in range(1, 5)]
        await call(host, "cron", "TZ=Europe/Berlin 0 3 * * *")
        planned = await call(host, "planned")
        assert planned == [["write", 2 * 3600, [{"text": "cron", "number": 0}]]]  # 3 o'clock there is 2 in UTC


async def test_an_action_that_raises_is_logged_and_not_repeated(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with hosting() as host:
        await call(host, "failLater", 1)
        await trio.sleep(5)
        assert await call(host, "lines") == ["failed"]
        assert "diary[k]: the scheduled fail failed" in caplog.text


async def test_a_concurrent_action_can_be_scheduled(autojump_clock: trio.abc.Clock) -> None:
    async with hosting() as host:
        await call(host, "besideLater")
        await trio.sleep(2)
        assert await call(host, "lines") == ["beside"]
        assert await call(host, "planned") == []


async def test_an_internal_action_is_for_schedules_alone(autojump_clock: trio.abc.Clock) -> None:
    store = MemoryStore(durable=True)
    async with hosting(store) as host:
        instance, _ = await host.get_or_create("default", "diary", ("k",))
        async with connected(instance) as peer:
            assert "action_not_found" in str(await peer.call("tidy"))
            with pytest.raises(PublicError, match=r"actor\.action_not_found"):
                await call(host, "tidy")
            assert await call(host, "tidyAsClient") == "action_not_found"
            await peer.call("tidyLater")
        assert await call(host, "planned") == [["tidy", 1, []], ["tidy", 2, ["again"]], ["tidy", 60, ["regularly"]]]
    await trio.sleep(3)
    async with hosting(store) as host:
        await trio.sleep(100)
        assert await call(host, "lines") == ["tidiednow", "tidied", "tidiedagain", "tidiedregularly"]


async def test_the_clock_of_schedules_can_be_asked(autojump_clock: trio.abc.Clock) -> None:
    async with hosting() as host:
        await trio.sleep(7)
        assert await call(host, "now") == EPOCH + 7


async def test_without_a_clock_schedules_go_by_virtual_time_where_time_is_virtual(
    autojump_clock: trio.abc.Clock,
) -> None:
    store = MemoryStore(durable=True)
    async with open_local(Registry(Diary), store=store) as client:
        diary = client.get_or_create(Diary, "k")
        await diary.call(Diary.later, 5, "a")
        await diary.call(Diary.later, 9, "b")
        await trio.sleep(6)
        assert await diary.call(Diary.lines) == ["a1 at 5"]
    async with open_local(Registry(Diary), store=store) as client:
        await trio.sleep(4)
        assert await client.get_or_create(Diary, "k").call(Diary.lines) == ["a1 at 5", "b1 at 9"]
    async with open_local(Registry(Diary), wall_clock=lambda: 1000.0) as client:
        assert await client.get_or_create(Diary, "k").call(Diary.now) == 1000


async def test_without_a_clock_schedules_go_by_the_machine() -> None:
    async with open_local(Registry(Diary)) as client:
        began = time.time()
        assert began <= await client.get_or_create(Diary, "k").call(Diary.now) <= time.time()


async def test_a_schedule_goes_in_the_commit_of_what_its_action_did(autojump_clock: trio.abc.Clock) -> None:
    store = FaultyStore(MemoryStore(durable=True))
    with trio.CancelScope() as process:
        async with hosting(store) as host:
            await call(host, "later", 5, "a")
            store.hold()
            await trio.sleep(6)  # it has run, and that could not be saved
            process.cancel()
            await trio.lowlevel.checkpoint()
    store.crash()
    async with hosting(store.reopened()) as host:
        await settled()
        assert await call(host, "lines") == ["a1 at 6"]
        assert await call(host, "planned") == []


async def test_an_action_that_was_cut_off_runs_again_in_the_next_life(autojump_clock: trio.abc.Clock) -> None:
    store = MemoryStore(durable=True)
    with trio.CancelScope() as process:
        async with hosting(store) as host:
            await call(host, "halfLater", 5)
            await trio.sleep(8)
            process.cancel()
            await trio.lowlevel.checkpoint()
    async with hosting(store) as host:
        await trio.sleep(1)
        assert await call(host, "lines") == ["begun", "begun"]  # what it had changed before it waited was saved
        assert await call(host, "planned") == []


async def test_the_schedule_of_an_action_that_is_no_more_is_dropped(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore(durable=True)
    async with hosting(store) as host:
        await call(host, "later", 5, "a")
    async with hosting(store, cls=Ghost) as host:
        await trio.sleep(10)
        assert "has no action write any more" in caplog.text
        assert await store.next_alarm() is None


async def test_what_cannot_be_scheduled_is_refused_at_once(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with hosting(limits=Limits(schedules=2)) as host:
        texts = {
            "name": "has no action 'nothing' that could be scheduled\n",
            "snake": "did you mean 'failLater'?",
            "method": "write Diary.fail instead of self.fail",
            "no action": "print is no action of Diary",
            "text": "'1' is not seconds or a timedelta",
            "when": "'noon' is not a datetime",
            "true": "True is not seconds or a timedelta",
            "past": "is no number of seconds from 0 up",
            "argument": "args[0]: expected",
            "missing": "args[0]: missing (note)",
            "many": "fail cannot take 1 arguments",
        }
        for what in ("seconds", "cron", "zone", *texts):
            with pytest.raises(PublicError, match="internal_error"):
                await call(host, "wrong", what)
        text = caplog.text
        for expected in texts.values():
            assert expected in text
        assert "has no action 'nothing'" in text
        assert "-1 is no number of seconds" in text
        assert "'every day' cannot be read" in text
        assert "there is no time zone 'Mars/Base'" in text
        for number in range(2):
            await call(host, "later", 100, str(number))
        with pytest.raises(PublicError, match=r"schedule\.max_schedules_exceeded"):
            await call(host, "later", 100, "too many")


async def test_a_step_of_the_wall_clock_is_noticed(autojump_clock: trio.abc.Clock) -> None:
    step = 0.0
    async with open_host(Registry(Diary), wall_clock=lambda: EPOCH + trio.current_time() + step) as host:
        await call(host, "later", 3600, "a")
        await trio.sleep(20)  # asleep
        step = 3600
        await trio.sleep(61)
        assert (await call(host, "lines"))[0].startswith("a1 at ")


async def test_what_is_due_counts_as_no_call_that_waits(autojump_clock: trio.abc.Clock) -> None:
    """However often: a bound that it wore down would refuse everybody in the end."""
    async with open_host(Registry(Ticking), Limits(inbox=4)) as host:
        instance, _ = await host.get_or_create("default", "ticking", ("k",))
        await instance.call("start", [], request=REQUEST)
        await trio.sleep(100.5)
        assert instance.statistics().waiting_calls == 0
        assert not instance.crowded
        assert await instance.call("ticks", [], request=REQUEST) == 100


@attrs.define
class Ticks:
    count: int = 0


class Ticking(Actor[Ticks]):
    @action
    def start(self) -> None:
        self.schedule.every("tick", 1, Ticking.tick)

    @action
    def tick(self) -> None:
        self.state.count += 1

    @action
    def ticks(self) -> int:
        return self.state.count
