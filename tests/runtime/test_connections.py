"""Connections: admission, hooks, subscriptions, kicks, what each of them may see."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

from tests.runtime.support import REQUEST, Peer, actor_of, connected, settled
from trivet import Actor, Conn, Event, Limits, NoConnection, Options, PublicError, Registry, UserError, action
from trivet.protocol.messages import Error, Init
from trivet.protocol.values import Value
from trivet.runtime.host import open_host
from trivet.runtime.instance import Instance


@attrs.frozen
class Params:
    name: str
    slow: float = 0
    fail: str = ""


@attrs.define
class Member:
    name: str
    said: int = 0


class Club(Actor[None, Member, Params]):
    welcome = Event(str)
    joined = Event(str)
    said = Event(str)
    secret = Event(str)
    broken = Event()
    started = Event()
    moved = Event(str, int)

    def __init__(self) -> None:
        self.history: list[str] = []
        self.allow = trio.Event()

    async def on_before_connect(self, params: Params) -> None:
        self.history.append(f"before {params.name} ({len(self.conns)})")
        await trio.sleep(params.slow)
        if params.fail == "before":
            raise UserError("no", code="refused", metadata={"why": "before"})
        if params.fail == "crash":
            raise RuntimeError("the password is hunter2")

    def create_conn_state(self, params: Params) -> Member:
        return Member(params.name)

    async def on_connect(self, conn: Conn[Member, Params]) -> None:
        assert self.conn is conn
        assert conn.id in self.conns
        self.history.append(f"connect {conn.state.name}")
        if conn.params.fail == "connect":
            raise UserError("no", code="refused")
        conn.send(self.welcome, conn.state.name)
        self.broadcast(self.joined, conn.state.name, exclude=conn)

    def on_disconnect(self, conn: Conn[Member, Params]) -> None:
        assert self.conn is conn
        assert conn.id not in self.conns
        self.history.append(f"disconnect {conn.state.name}")

    @secret.can_subscribe
    async def only_after_allow(self, conn: Conn[Member, Params]) -> bool:
        if conn.state.name == "stranger":
            return False
        await self.allow.wait()
        return True

    @broken.can_subscribe
    def not_a_bool(self, conn: Conn[Member, Params]) -> Any:
        return "yes"

    @action
    def say(self, text: str) -> str:
        self.conn.state.said += 1
        self.broadcast(self.said, f"{self.conn.state.name}: {text}")
        return text

    @action
    def emit_secret(self) -> None:
        self.broadcast(self.secret, "psst")

    @action
    def tell(self, name: str, text: str) -> bool:
        conn = self.conns.find(lambda conn: conn.state.name == name)
        return conn is not None and conn.send(self.said, text)

    @action
    def others(self, text: str) -> int:
        return self.broadcast(self.said, text, exclude=self.conn).recipients

    @action
    def but(self, names: list[str], text: str) -> int:
        ids = [conn.id for conn in self.conns.values() if conn.state.name in names]
        return self.broadcast(self.said, text, exclude=ids).recipients

    @action
    def only(self, name: str, text: str) -> int:
        return self.broadcast(self.said, text, where=lambda conn: conn.state.name == name).recipients

    @action
    def start(self) -> None:
        self.broadcast(self.started)

    @action
    def move(self, who: str, x: int) -> None:
        self.broadcast(self.moved, who, x)

    @action
    def wrong(self) -> None:
        self.broadcast("said", 7)

    @action
    def kick(self, name: str) -> None:
        for conn in self.conns.values():
            if conn.state.name == name:
                conn.send(self.said, "bye")
                conn.disconnect("kicked")

    @action
    def whoami(self) -> str:
        return f"{self.conn.kind} {self.conn.state.name} {self.request.method}"

    @action
    def kinds(self) -> list[str]:
        return sorted(conn.kind for conn in self.conns.values())


@asynccontextmanager
async def club(options: Options | None = None, limits: Limits | None = None) -> AsyncGenerator[Instance]:
    async with open_host(Registry(Club, options=options), limits) as host:
        yield (await host.get_or_create("default", "club", ()))[0]


def member(name: str, **more: Value) -> Value:
    return {"name": name, **more}


def said(peer: Peer) -> list[Any]:
    return [args[0] for name, args in peer.events if name == "said"]


async def test_admission_runs_in_order_and_init_follows_what_on_connect_sent() -> None:
    async with club() as instance:
        async with connected(instance, member("ann")) as ann:
            assert actor_of(instance, Club).history == ["before ann (0)", "connect ann"]
            assert ann.events == [("welcome", ["ann"])]
            assert isinstance(ann.messages[1], Init)
            assert ann.messages[1] == Init(instance.actor_id, ann.session.conn.id)
        await settled()
        assert actor_of(instance, Club).history[-1] == "disconnect ann"
        assert len(instance.conns) == 0


async def test_a_slow_admission_hook_delays_nobody_else(autojump_clock: trio.abc.Clock) -> None:
    async with club() as instance, connected(instance, member("slow", slow=4), admitted=False) as slow:
        async with connected(instance, member("ann")) as ann:
            assert await ann.call("say", "hi") == "hi"
            assert slow.messages == []
        await slow.transport.until(2)
        assert isinstance(slow.messages[-1], Init)


@pytest.mark.parametrize(
    ("fail", "group", "code", "metadata"),
    [("before", "user", "refused", {"why": "before"}), ("crash", "rivetkit", "internal_error", None)],
)
async def test_a_refused_connection_is_told_why_and_closed(fail: str, group: str, code: str, metadata: Value) -> None:
    async with club() as instance, connected(instance, member("ann", fail=fail), admitted=False) as ann:
        await ann.transport.until(2)
        (error,) = ann.messages
        assert isinstance(error, Error)
        assert (error.group, error.code, error.action_id) == (group, code, None)
        assert (error.metadata or None) == metadata
        assert "hunter2" not in error.message
        assert ann.closed_with == f"1011 {group}.{code}"
        assert ann.transport.finished
        assert len(instance.conns) == 0


async def test_a_connection_refused_by_on_connect_gets_no_on_disconnect() -> None:
    async with club() as instance:
        async with connected(instance, member("ann", fail="connect"), admitted=False) as ann:
            await ann.transport.until(2)
            assert ann.closed_with == "1011 user.refused"
        await settled()
        assert actor_of(instance, Club).history == ["before ann (0)", "connect ann"]


async def test_a_hook_over_its_time_refuses_the_connection(autojump_clock: trio.abc.Clock) -> None:
    async with club() as instance, connected(instance, member("ann", slow=99), admitted=False) as ann:
        began = trio.current_time()
        await ann.transport.until(2)
        assert ann.closed_with == "1011 actor.callback_timed_out"
        assert trio.current_time() - began == pytest.approx(5)


async def test_params_that_do_not_fit_are_refused_with_their_issues() -> None:
    async with club() as instance, connected(instance, {"name": 7}, admitted=False) as ann:
        await ann.transport.until(2)
        (error,) = ann.messages
        assert isinstance(error, Error)
        assert (error.group, error.code) == ("actor", "validation_error")
        assert error.metadata == {"issues": [{"path": "params.name", "message": "expected str, got int"}]}


async def test_a_client_that_leaves_during_admission_is_never_seen(autojump_clock: trio.abc.Clock) -> None:
    async with club() as instance:
        async with connected(instance, member("ann", slow=1), admitted=False):
            await settled()
        await trio.sleep(2)
        assert actor_of(instance, Club).history == ["before ann (0)"]


async def test_broadcast_reaches_subscribers_the_sender_included_before_the_response() -> None:
    async with club() as instance, connected(instance, member("ann")) as ann, connected(instance, member("bob")) as bob:
        ann.subscribe("said")
        action_id = ann.act("say", "hi")
        await settled()
        assert said(ann) == ["ann: hi"]
        assert said(bob) == []
        assert ann.answer(action_id) == "hi"
        assert isinstance(ann.messages[-2], type(ann.messages[0]))  # the event, then the response


async def test_who_gets_an_event_can_be_chosen() -> None:
    async with club() as instance, connected(instance, member("ann")) as ann, connected(instance, member("bob")) as bob:
        for peer in (ann, bob):
            peer.subscribe("said")
        assert await ann.call("others", "1") == 1
        assert await ann.call("only", "ann", "2") == 1
        assert await ann.call("but", ["ann", "bob"], "3") == 0
        assert await ann.call("but", ["bob"], "4") == 1
        assert said(ann) == ["2", "4"]
        assert said(bob) == ["1"]


async def test_send_reaches_one_connection_subscribed_or_not() -> None:
    async with club() as instance, connected(instance, member("ann")) as ann, connected(instance, member("bob")) as bob:
        assert await ann.call("tell", "bob", "hello") is True
        assert await ann.call("tell", "eve", "hello") is False
        assert said(bob) == ["hello"]
        assert said(ann) == []


async def test_events_have_no_one_or_several_arguments() -> None:
    async with club() as instance, connected(instance, member("ann")) as ann:
        for name in ("started", "moved"):
            ann.subscribe(name)
        await ann.call("start")
        await ann.call("move", "ann", 3)
        assert ann.events[1:] == [("started", []), ("moved", ["ann", 3])]


async def test_an_event_of_the_wrong_type_raises_in_the_emitter_and_reaches_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with club() as instance, connected(instance, member("ann")) as ann:
        ann.subscribe("said")
        answer = await ann.call("wrong")
        assert (answer.group, answer.code) == ("rivetkit", "internal_error")
        assert said(ann) == []
        assert "said[0]: expected str, got int" in caplog.text


async def test_after_unsubscribing_nothing_arrives_and_both_are_idempotent() -> None:
    async with club() as instance, connected(instance, member("ann")) as ann:
        ann.subscribe("said")
        ann.subscribe("said")
        await ann.call("say", "1")
        ann.unsubscribe("said")
        ann.unsubscribe("said")
        await ann.call("say", "2")
        assert said(ann) == ["ann: 1"]
        assert ann.session.statistics().subscriptions == 0


async def test_a_subscription_is_in_force_before_later_messages_also_while_its_hook_decides() -> None:
    async with club() as instance, connected(instance, member("ann")) as ann, connected(instance, member("bob")) as bob:
        ann.subscribe("secret")
        action_id = ann.act("emitSecret")
        await settled()
        with pytest.raises(LookupError):
            ann.answer(action_id)
        assert await bob.call("say", "meanwhile") == "meanwhile"
        actor_of(instance, Club).allow.set()
        await settled()
        assert ("secret", ["psst"]) in ann.events
        assert ann.answer(action_id) is not None


@pytest.mark.parametrize(
    ("name", "event", "reason"), [("stranger", "secret", "auth.forbidden"), ("ann", "broken", "auth.forbidden")]
)
async def test_a_refused_subscription_ends_that_connection_alone(name: str, event: str, reason: str) -> None:
    async with club() as instance, connected(instance, member(name)) as peer, connected(instance, member("bob")) as bob:
        peer.subscribe(event)
        await settled()
        assert peer.closed_with == "1011 auth.forbidden"
        assert await bob.call("say", "still here") == "still here"


async def test_undeclared_events_may_be_subscribed_to_unless_strict() -> None:
    async with club() as instance, connected(instance, member("ann")) as ann:
        ann.subscribe("anything")
        await ann.call("say", "x")
        assert ann.closed_with is None
    async with club(Options(strict=True)) as instance, connected(instance, member("ann")) as ann:
        ann.subscribe("anything")
        await settled()
        assert ann.closed_with == "1011 actor.event_not_found"


async def test_subscriptions_have_a_bound() -> None:
    async with club(limits=Limits(subscriptions=2)) as instance, connected(instance, member("ann")) as ann:
        for name in ("a", "b", "a", "c"):
            ann.subscribe(name)
        await settled()
        assert ann.closed_with == "1011 connection.too_many_subscriptions"


async def test_a_kick_delivers_what_was_sent_before_then_closes_and_drops_waiting_calls() -> None:
    async with club() as instance, connected(instance, member("ann")) as ann, connected(instance, member("bob")) as bob:
        ann.act("kick", "bob")
        await settled()
        bob.act("say", "too late")
        await settled()
        assert said(bob) == ["bye"]
        assert bob.closed_with == "1000 kicked"
        assert bob.transport.finished
        assert list(instance.conns) == [ann.session.conn.id]
        assert actor_of(instance, Club).history.count("disconnect bob") == 1
    await settled()
    assert actor_of(instance, Club).history.count("disconnect bob") == 1


async def test_a_stateless_call_has_a_connection_with_all_hooks_for_its_time() -> None:
    async with club() as instance:
        assert await instance.call("whoami", [], params=member("ann"), request=REQUEST) == "call ann GET"
        assert await instance.call("kinds", [], params=member("ann"), request=REQUEST) == ["call"]
        assert actor_of(instance, Club).history[:3] == ["before ann (0)", "connect ann", "disconnect ann"]
        with pytest.raises(PublicError, match=r"user\.refused"):
            await instance.call("whoami", [], params=member("ann", fail="before"), request=REQUEST)
        with pytest.raises(PublicError, match=r"params\.name: missing"):
            await instance.call("whoami", [], params={}, request=REQUEST)


async def test_the_connection_is_known_only_to_what_it_caused() -> None:
    async with club() as instance:
        with pytest.raises(NoConnection):
            instance.actor.conn
        assert instance.actor.conn_or_none is None


async def test_an_action_that_does_not_exist_and_arguments_that_do_not_fit_are_answered() -> None:
    async with club() as instance, connected(instance, member("ann")) as ann:
        missing = await ann.call("nope")
        assert (missing.group, missing.code, missing.message) == (
            "actor",
            "action_not_found",
            "Action `nope` was not found.",
        )
        wrong = await ann.call("say", 7)
        assert (wrong.group, wrong.code) == ("actor", "validation_error")
        assert wrong.metadata == {"issues": [{"path": "args[0]", "message": "expected str, got int"}]}
        assert wrong.actor is not None
        assert wrong.actor.actor_id == instance.actor_id
        absent = await ann.call("say")
        assert absent.metadata["issues"][0]["path"] == "args[0]"
