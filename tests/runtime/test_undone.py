"""What a commit that failed undoes, and what it does not; actors that begin, and actors that are about to end."""

import attrs
import pytest
import trio

from tests.runtime.support import REQUEST, actor_of, connected, settled
from trivet import Actor, Conn, Limits, Options, Registry, UserError, action
from trivet.protocol import extension
from trivet.runtime.host import Host, open_host
from trivet.runtime.instance import Instance
from trivet.runtime.lifecycle import Phase
from trivet.store import MemoryStore
from trivet.testing.store import FaultyStore

EPOCH = 1_893_456_000.0


@attrs.define
class Log:
    lines: list[str] = attrs.field(factory=list[str])


class Diary(Actor[Log]):
    options = Options(durability="gated", sleep_with_connections=True)

    def __init__(self) -> None:
        self.go_on = trio.Event()

    def on_connect(self, conn: Conn) -> None:
        if conn.kind == "events":
            self.state.lines.append(f"came {conn.id}")

    def on_disconnect(self, conn: Conn) -> None:
        if conn.kind == "events":
            self.state.lines.append(f"left {conn.id}")

    @action
    def write(self, text: str) -> None:
        self.state.lines.append(text)

    @action
    def write_and_raise(self) -> None:
        self.state.lines.append("raised")
        raise UserError("no")

    @action
    async def wait(self) -> None:
        await self.go_on.wait()

    @action(concurrent=True)
    async def write_beside(self, text: str) -> int:
        await trio.lowlevel.checkpoint()
        self.state.lines.append(text)
        return len(self.state.lines)

    @action
    def later(self, seconds: float, text: str) -> None:
        self.schedule.after(seconds, Diary.write, text)

    @action
    def lines(self) -> list[str]:
        return self.state.lines


class Slow(Actor[Log]):
    """Takes its time to come to be, and asks another meanwhile."""

    options = Options(durability="gated")

    async def on_create(self, input: object) -> None:
        self.schedule.after(100, Slow.noop)
        await self.client().get_or_create(Diary, "other").call(Diary.write, "created")
        await trio.sleep(3)
        self.state.lines.append("made")

    @action
    def noop(self) -> None: ...

    @action
    def lines(self) -> list[str]:
        return self.state.lines


REGISTRY = Registry(Diary, Slow)


def faulty() -> FaultyStore:
    return FaultyStore(MemoryStore(durable=True), delay=0.01)


async def actor(host: Host, name: str = "diary", key: str = "k") -> Instance:
    return (await host.get_or_create("default", name, (key,)))[0]


async def lines(host: Host, name: str = "diary", key: str = "k") -> list[str]:
    found = await (await actor(host, name, key)).call("lines", [], request=REQUEST)
    assert isinstance(found, list)
    return [str(line) for line in found]


def wall_clock() -> float:
    return EPOCH + trio.current_time()


async def test_an_actor_may_wait_while_it_is_created(autojump_clock: trio.abc.Clock) -> None:
    async with open_host(REGISTRY, store=faulty()) as host:
        assert await lines(host, "slow") == ["made"]
        assert await lines(host, key="other") == ["created"]


async def test_an_error_that_tells_what_could_not_be_saved_is_another_one(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    store = faulty()
    async with open_host(REGISTRY, store=store) as host:
        async with connected(await actor(host)) as peer:
            store.fail()
            call = peer.act("writeAndRaise")
            await trio.sleep(1)
            assert peer.answer(call).code == "save_failed"
        assert "raised" not in await lines(host)


async def test_a_concurrent_call_waits_for_its_commit(autojump_clock: trio.abc.Clock) -> None:
    store = faulty()
    async with open_host(REGISTRY, store=store) as host:
        instance = await actor(host)
        assert await instance.call("writeBeside", ["x"], request=REQUEST) == 1
        assert store.changes == 2


async def test_a_connection_that_was_undone_has_not_left(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    store = faulty()
    async with open_host(REGISTRY, store=store) as host:
        instance = await actor(host)
        async with connected(instance) as old:
            conn_id = next(iter(instance.conns))
            store.fail()
            async with connected(instance, admitted=False) as new:
                await trio.sleep(1)
                assert new.messages == []
                assert new.closed_with == old.closed_with == "1012 actor.restarting"
        assert await lines(host) == [f"came {conn_id}", f"left {conn_id}"]


async def test_a_connection_that_leaves_unheard_leaves_once(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Its client was gone, but its calls had not been taken, when the life ended."""
    store = faulty()
    async with open_host(REGISTRY, store=store) as host:
        instance = await actor(host)
        async with connected(instance) as peer, connected(instance) as other:
            conn_id = peer.session.conn.id
            wait = peer.act("wait")
            peer.act("writeBeside", "late")
            await settled()
            assert actor_of(instance, Diary).go_on.is_set() is False
            peer.session.end(1000, "")
            store.fail()
            other.act("writeBeside", "undone")
            await trio.sleep(1)
            with pytest.raises(LookupError):
                peer.answer(wait)
        remembered = await lines(host)
        assert remembered.count(f"came {conn_id}") == remembered.count(f"left {conn_id}") == 1
        assert "undone" not in remembered


async def test_what_is_due_is_done_after_a_commit_that_failed(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    store = faulty()
    async with open_host(REGISTRY, store=store, wall_clock=wall_clock) as host:
        await (await actor(host)).call("later", [5.0, "due"], request=REQUEST)
        store.fail()
        async with connected(await actor(host), admitted=False):
            await trio.sleep(1)
        assert host.statistics().actors == 0
        await trio.sleep(5)
        assert host.statistics().actors == 1
        assert await lines(host) == ["due"]


async def test_what_is_said_during_the_last_commit_of_a_life_is_said_after_it(autojump_clock: trio.abc.Clock) -> None:
    store = faulty()
    async with open_host(REGISTRY, store=store) as host:
        instance = await actor(host)
        async with connected(instance) as peer:
            peer.act("write", "last")
            await trio.sleep(1)
            lines = len(peer.transport.lines)
            store.hold()
            peer.act("write", "really")
            instance.request_sleep()
            await trio.sleep(1)
            assert instance.stopping
            peer.session.receive_extension(extension.Sync(1))
            await trio.sleep(1)
            assert len(peer.transport.lines) == lines
            store.release()
            await trio.sleep(1)
            assert len(peer.transport.lines) == lines + 2
            assert peer.closed_with is None


async def test_a_clock_that_moves_by_itself_moves_on_when_an_actor_falls_asleep(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Whatever the rounding of its times: a difference may be too small to be added to them."""
    async with open_host(REGISTRY, Limits(sleep_after=0.1), store=faulty()) as host:
        for number in range(100):
            instance = await actor(host)
            await instance.call("lines", [], request=REQUEST)
            await trio.sleep(0.07 + number / 1000)
            await instance.call("lines", [], request=REQUEST)
            await trio.sleep(1)
            assert instance.phase is Phase.GONE


async def test_an_actor_falls_asleep_after_the_last_that_waited_for_a_commit(autojump_clock: trio.abc.Clock) -> None:
    async with open_host(REGISTRY, Limits(sleep_after=2), store=faulty()) as host:
        instance = await actor(host)
        async with connected(instance) as peer:
            await peer.call("write", "x")
            peer.session.end(1000, "")
            await trio.sleep(3)
            assert instance.phase is Phase.GONE
            assert peer.closed_with == "1000 "
