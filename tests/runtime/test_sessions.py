"""Resumable sessions: what a client that comes back finds, and what is left of one that does not."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.runtime.support import FORMAT, REQUEST, FakeTransport, Peer, actor_of, settled
from trivet import Actor, Conn, Event, Limits, Registry, action
from trivet.protocol import extension
from trivet.protocol.messages import ActionRequest, ActionResponse, Error, SubscriptionRequest, ToClient
from trivet.protocol.messages import Event as EventMessage
from trivet.protocol.values import UNDEFINED
from trivet.runtime.host import Host, open_host
from trivet.runtime.instance import Instance
from trivet.runtime.session import Session


class Room(Actor):
    tick = Event(int)
    secret = Event(int)

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.left = 0
        self.gate = trio.Event()

    def on_disconnect(self, conn: Conn) -> None:
        self.left += conn.kind == "events"

    @secret.can_subscribe
    async def nobody(self, conn: Conn) -> bool:
        return False

    @action
    def emit(self, n: int) -> int:
        self.broadcast(self.tick, n)
        return n

    @action
    async def wait(self, name: str) -> str:
        self.ran.append(f"start {name}")
        try:
            await self.gate.wait()
        except trio.Cancelled:
            self.ran.append(f"cancelled {name}")
            raise
        self.ran.append(f"end {name}")
        return name

    @action(abandoned="cancel")
    async def wait_for_client(self, name: str) -> str:
        return await self.wait(name)

    @action
    def note(self, name: str) -> str:
        self.ran.append(name)
        return name

    @action
    def kick_all(self) -> None:
        for conn in self.conns.values():
            conn.disconnect("out")


class Returning:
    """A client that speaks the extension, loses its transport and comes back."""

    def __init__(self, host: Host, instance: Instance) -> None:
        self.host = host
        self.transport = FakeTransport()
        self.session: Session = instance.open_session(
            self.transport, FORMAT, params=UNDEFINED, request=REQUEST, extended=True
        )
        self.seen: list[str] = []  # counted messages, over all transports
        self._ids = 0

    async def open(self) -> None:
        await self.session.__aenter__()
        await settled()

    def act(self, name: str, *args: Any) -> int:
        self._ids += 1
        self.session.receive(ActionRequest(self._ids, name, list(args)))
        return self._ids

    def take(self) -> list[str]:
        """Read what has arrived on this transport, and remember what counts."""
        lines = self.transport.lines
        counted = [
            line
            for line in lines
            if not line.startswith("close ")
            and '"tag":"Init"' not in line
            and not (line.startswith("+") and not extension.decode_to_client(line[1:]).counted)
        ]
        self.transport.received.clear()
        self.seen += counted
        return lines

    async def lose(self, *, unread: bool = False) -> None:
        """The transport breaks; with `unread`, what had been sent to it never arrived."""
        if unread:
            self.transport.received.clear()
        else:
            self.take()
        await self.session.leave(self.transport)

    async def back(self) -> bool:
        self.transport = FakeTransport()
        session = self.host.sessions.get(self.session.token)
        went_on = session is not None and session.resume(self.transport, FORMAT, len(self.seen))
        await settled()
        return went_on

    @property
    def events(self) -> list[int]:
        numbers: list[int] = []
        for message in self._messages():
            if isinstance(message, EventMessage):
                assert isinstance(message.args[0], int)
                numbers.append(message.args[0])
        return numbers

    def _messages(self) -> list[ToClient]:
        return [FORMAT.codec.decode_to_client(line) for line in self.seen if not line.startswith("+")]

    def outputs(self) -> dict[int, Any]:
        found: dict[int, Any] = {}
        for message in self._messages():
            if isinstance(message, ActionResponse):
                found[message.id] = message.output
            elif isinstance(message, Error):
                found[message.action_id or 0] = message.code
        return found


@asynccontextmanager
async def room(limits: Limits | None = None) -> AsyncGenerator[tuple[Instance, Returning]]:
    async with open_host(Registry(Room), limits) as host:
        instance, _ = await host.get_or_create("default", "room", ())
        client = Returning(host, instance)
        await client.open()
        yield instance, client
        actor_of(instance, Room).gate.set()


async def test_a_new_session_is_told_its_token_after_init() -> None:
    async with room() as (_, client):
        init, opened = client.take()
        assert '"tag":"Init"' in init
        assert extension.decode_to_client(opened[1:]) == extension.SessionOpened(client.session.token, 30)
        assert len(client.session.token) >= 32


async def test_a_client_that_returns_gets_everything_once_and_in_order() -> None:
    async with room() as (instance, client):
        client.session.receive(SubscriptionRequest("tick", True))
        client.act("emit", 1)
        await settled()
        await client.lose()
        assert client.events == [1]
        assert not client.session.conn.attached
        assert list(instance.conns) == [client.session.conn.id]
        for n in (2, 3):
            await instance.call("emit", [n], request=REQUEST)
        assert await client.back()
        assert client.session.statistics().queued_messages == 0
        resumed = client.take()[0]
        assert extension.decode_to_client(resumed[1:]) == extension.Resumed(2)
        assert client.events == [1, 2, 3]
        assert client.outputs() == {1: 1}
        assert actor_of(instance, Room).left == 0


async def test_what_was_sent_and_never_arrived_is_sent_again() -> None:
    async with room() as (instance, client):
        client.take()
        client.session.receive(SubscriptionRequest("tick", True))
        first = client.act("emit", 1)
        await settled()
        await client.lose(unread=True)
        assert client.events == []
        assert await client.back()
        client.take()
        assert client.events == [1]
        assert client.outputs() == {first: 1}
        client.act("emit", 2)
        await settled()
        client.take()
        assert client.events == [1, 2]
        assert instance.statistics().emitted_events == 2


async def test_calls_in_flight_go_on_and_their_answers_wait() -> None:
    async with room() as (instance, client):
        call = client.act("wait", "a")
        await settled()
        await client.lose()
        actor_of(instance, Room).gate.set()
        await settled()
        assert await client.back()
        client.take()
        assert client.outputs() == {call: "a"}


async def test_after_the_window_the_session_is_over_and_on_disconnect_runs_once(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with room(Limits(resume_window=30)) as (instance, client):
        await client.lose()
        await trio.sleep(29)
        assert actor_of(instance, Room).left == 0
        await trio.sleep(2)
        assert actor_of(instance, Room).left == 1
        assert not await client.back()
        assert len(instance.conns) == 0
        assert client.host.sessions == {}
        await trio.sleep(60)
        assert actor_of(instance, Room).left == 1


async def test_a_session_that_overflows_while_its_client_is_away_is_over() -> None:
    async with room(Limits(outbox_hard_messages=10)) as (instance, client):
        client.session.receive(SubscriptionRequest("tick", True))
        await settled()
        await client.lose()
        for n in range(12):
            await instance.call("emit", [n], request=REQUEST)
        await settled()
        assert not await client.back()
        assert len(instance.conns) == 0


async def test_a_kick_while_the_client_is_away_is_told_when_it_returns() -> None:
    async with room() as (instance, client):
        await client.lose()
        await instance.call("kickAll", [], request=REQUEST)
        assert client.session.farewell == (1000, "out")
        assert client.host.sessions[client.session.token] is client.session
        assert not await client.back()


async def test_a_clean_close_ends_the_session_at_once() -> None:
    async with room() as (instance, client):
        client.session.receive_extension(extension.Bye())
        await settled()
        assert client.transport.lines[-1] == "close 1000 "
        assert client.host.sessions == {}
        await client.session.leave(client.transport)
        await settled()
        assert actor_of(instance, Room).left == 1


async def test_a_new_transport_replaces_one_that_is_still_there() -> None:
    async with room() as (instance, client):
        client.take()
        old = client.transport
        assert await client.back()
        assert old.aborted
        await client.session.leave(old)
        assert client.session.conn.attached
        client.act("emit", 1)
        await settled()
        client.take()
        assert client.outputs() == {1: 1}
        assert len(instance.conns) == 1


@pytest.mark.parametrize("received", [1, 99])
async def test_a_claim_to_messages_that_were_not_sent_is_refused(received: int) -> None:
    async with room() as (_, client):
        client.take()
        assert not client.session.resume(FakeTransport(), FORMAT, received)
        assert client.session.conn.attached
        await client.lose()
        assert not client.session.resume(FakeTransport(), FORMAT, received)
        assert client.session.away


async def test_messages_are_acknowledged_after_some_and_after_a_while(autojump_clock: trio.abc.Clock) -> None:
    async with room() as (_, client):
        client.take()
        for n in range(65):
            client.act("emit", n)
        acks = [line for line in client.take() if line.startswith('+["ack"')]
        assert acks == ['+["ack",64]'] or acks == []
        await trio.sleep(1.1)
        acks += [line for line in client.take() if line.startswith('+["ack"')]
        assert acks == ['+["ack",64]', '+["ack",65]']


async def test_what_is_acknowledged_is_kept_no_longer() -> None:
    async with room() as (_, client):
        for n in range(3):
            client.act("emit", n)
        await settled()
        assert client.session.statistics().unacknowledged == 3
        client.session.receive_extension(extension.Ack(2))
        assert client.session.statistics().unacknowledged == 1
        client.session.receive_extension(extension.Ack(9))
        await settled()
        assert client.transport.lines[-1] == "close 1011 actor.invalid_request"


async def test_a_subscription_is_answered_and_a_refused_one_leaves_the_connection() -> None:
    async with room() as (_, client):
        client.take()
        client.session.receive_extension(extension.Subscribe(1, "tick"))
        client.session.receive_extension(extension.Subscribe(2, "secret"))
        client.session.receive_extension(extension.Subscribe(3, "tick"))
        call = client.act("emit", 5)
        await settled()
        client.take()
        answers = [extension.decode_to_client(line[1:]) for line in client.seen if line.startswith("+")]
        assert answers == [
            extension.Subscribed(1),
            extension.Refused(2, "auth", "forbidden", "Forbidden"),
            extension.Subscribed(3),
        ]
        assert client.events == [5]
        assert client.outputs() == {call: 5}


async def test_a_sync_is_answered_after_everything_emitted_before_it() -> None:
    async with room() as (instance, client):
        client.session.receive(SubscriptionRequest("tick", True))
        await settled()
        client.take()
        await instance.call("emit", [1], request=REQUEST)
        client.session.receive_extension(extension.Sync(7))
        await settled()
        lines = client.take()
        assert lines[-1] == '+["synced",7]'
        assert client.events == [1]


async def test_a_cancelled_call_that_waits_never_runs_and_one_that_runs_is_cancelled() -> None:
    async with room() as (instance, client):
        running = client.act("wait", "a")
        waiting = client.act("note", "b")
        behind = client.act("note", "c")
        await settled()
        client.session.receive_extension(extension.Cancel(waiting))
        client.session.receive_extension(extension.Cancel(running))
        client.session.receive_extension(extension.Cancel(12345))
        await settled()
        client.take()
        assert client.outputs() == {running: "aborted", waiting: "aborted", behind: "c"}
        assert actor_of(instance, Room).ran == ["start a", "cancelled a", "c"]
        assert client.session.statistics().unanswered_calls == 0


async def test_a_deadline_travels_with_its_call(autojump_clock: trio.abc.Clock) -> None:
    async with room() as (_, client):
        client.session.receive_extension(extension.Timeout(1, 3))
        began = trio.current_time()
        call = client.act("wait", "a")
        await trio.sleep(4)
        client.take()
        assert client.outputs() == {call: "action_timed_out"}
        assert trio.current_time() - began == pytest.approx(4)


async def test_what_a_call_does_when_its_client_is_gone_for_good_is_its_own_policy(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with room() as (instance, client):
        client.act("waitForClient", "a")
        client.act("waitForClient", "b")
        client.act("note", "c")
        await settled()
        await client.lose()
        await trio.sleep(29)
        assert actor_of(instance, Room).ran == ["start a"]
        await trio.sleep(2)
        assert actor_of(instance, Room).ran == ["start a", "cancelled a", "c"]


async def test_a_plain_peer_sees_no_difference() -> None:
    async with open_host(Registry(Room)) as host:
        instance, _ = await host.get_or_create("default", "room", ())
        transport = FakeTransport()
        async with instance.open_session(transport, FORMAT, params=UNDEFINED, request=REQUEST) as session:
            peer = Peer(session, transport)
            assert await peer.call("emit", 1) == 1
            assert not any(line.startswith("+") for line in transport.lines)
        assert host.sessions == {}
        assert len(instance.conns) == 0
