"""The machine that searches for a way to break the delivery contract."""

import logging
import sys
from itertools import count
from typing import Final

import attrs
import trio
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, consumes, initialize, invariant, multiple, precondition, rule

from tests.property.model import Entry, Model, Trace, Violation
from tests.property.trio_machine import TrioMachine, seeds
from tests.property.world import Call, Client, Message, Op, Room
from trivet import Limits, Registry
from trivet.protocol.codec import ENCODINGS, Encoding
from trivet.runtime.host import Host, open_host
from trivet.runtime.instance import Instance

REGISTRY: Final = Registry(Room)

events = st.sampled_from(["alpha", "beta", "slow"])
labels = st.integers(0, 3)
pauses = st.integers(0, 20)
op: st.SearchStrategy[Op] = (
    st.tuples(st.just("all"), events)
    | st.tuples(st.just("others"), events)
    | st.tuples(st.just("where"), events, st.integers(0, 1))
    | st.tuples(st.just("one"), labels)
    | st.tuples(st.just("pause"), pauses)
    | st.tuples(st.just("later"), pauses, events)
    | st.tuples(st.just("kick"), labels)
)
ops = st.lists(op, max_size=4)
ops_of_client: st.SearchStrategy[list[Op]] = st.lists(op | st.tuples(st.just("fail")), max_size=4)
calls: st.SearchStrategy[Call] = st.sampled_from(["act", "actAsync", "actBeside"])
calls_of_client: st.SearchStrategy[Message] = st.tuples(calls, ops_of_client)
messages = calls_of_client | st.tuples(events, st.booleans())


@attrs.frozen
class Newcomer:
    """How a client connects."""

    encoding: Encoding
    capacity: int
    delay: float
    ops: list[Op]
    """What on_connect does."""
    interests: list[str]
    """Subscribed to without waiting for Init."""


newcomers = st.builds(
    Newcomer,
    encoding=st.sampled_from(ENCODINGS),
    capacity=st.sampled_from([1 << 20, 64, 16]),
    delay=st.sampled_from([0, 0.001]),
    ops=st.just([]) | ops_of_client,
    interests=st.lists(events, unique=True),
)


class _Errors(logging.Handler):
    """What the runtime logs as an error is a failure of the example."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(self.format(record))


class DeliveryMachine(TrioMachine):
    """One actor and up to a few clients, who send before they have read, leave, and read slowly or not at all."""

    clients = Bundle[Client]("clients")

    def __init__(self) -> None:
        super().__init__()
        self._instance: Instance
        self._room: Room
        self._host: Host
        self._clients: list[Client] = []
        self._calls = count()
        self._close = trio.Event()
        self._errors = _Errors()
        logging.getLogger("trivet").addHandler(self._errors)

    async def open(self) -> None:
        await self.nursery.start(self._keep_host)
        self._instance, _ = await self._host.get_or_create("default", "room", ("general",))
        room = self._instance.actor
        assert isinstance(room, Room)
        self._room = room
        room.occurred = self.occurred

    async def _keep_host(self, task_status: trio.TaskStatus[None]) -> None:
        async with open_host(REGISTRY, Limits()) as self._host:
            task_status.started()
            await self._close.wait()

    async def aclose(self) -> None:
        for client in self._clients:
            client.leave()
        self._close.set()
        await trio.sleep(60)

    # -- rules --------------------------------------------------------------------------------------------------------

    @initialize(target=clients, seed=seeds, newcomers=st.lists(newcomers, min_size=1, max_size=4))
    def begin(self, seed: int, newcomers: list[Newcomer]) -> MultipleResults[Client]:
        self.start(seed)
        return multiple(*[self.add(newcomer) for newcomer in newcomers])

    @precondition(lambda self: len(self._clients) < 6)
    @rule(target=clients, newcomer=newcomers)
    def connect(self, newcomer: Newcomer) -> Client:
        """A client that sends its first messages without waiting for Init."""
        self._count("connect")
        return self.add(newcomer)

    @rule(client=clients, event=events | events | events | st.just("forbidden"))
    def subscribe(self, client: Client, event: str) -> None:
        self.send("subscribe", client, (event, True))

    @rule(client=clients, event=events)
    def unsubscribe(self, client: Client, event: str) -> None:
        self.occurred["unsubscribe behind a call"] += client.waits
        self.send("unsubscribe", client, (event, False))

    @rule(client=clients, action=calls, ops=ops_of_client)
    def call_action(self, client: Client, action: Call, ops: list[Op]) -> None:
        self.send("call", client, (action, ops))

    @rule(client=clients, messages=st.lists(messages, min_size=2, max_size=6))
    def send_several(self, client: Client, messages: list[Message]) -> None:
        """In one go: the actor sees none before the last is there."""
        self.send("send several", client, *messages)

    @rule(ops=ops)
    def emit_in_background(self, ops: list[Op]) -> None:
        self._count("emit in background")
        self.call(self._room.do_in_background, ops)

    @rule(client=clients, held=st.booleans())
    def hold(self, client: Client, held: bool) -> None:
        """A client stops reading, or goes on."""
        self._count("hold")
        self.call(client.hold, held)

    @rule(client=consumes(clients))
    def close(self, client: Client) -> None:
        self._count("close")
        self.occurred["close with calls waiting"] += client.waits and not client.ended
        self.call(client.close)

    @rule(client=consumes(clients))
    def leave(self, client: Client) -> None:
        self._count("leave")
        self.occurred["leave with calls waiting"] += client.waits and not client.ended
        self.call(client.leave)

    @rule(milliseconds=pauses)
    def let_time_pass(self, milliseconds: int) -> None:
        self._count("let time pass")
        self.run(trio.sleep, milliseconds / 1000)

    @rule()
    def let_all_happen(self) -> None:
        """After this nothing is on its way, and everything can be judged."""
        self._count("let all happen")
        self._judge()

    # -- checks -------------------------------------------------------------------------------------------------------

    @invariant()
    def nothing_is_logged_as_an_error(self) -> None:
        if self._errors.records:
            raise Violation("log", self._errors.records[0])

    def teardown(self) -> None:
        try:
            try:
                if self._clients and sys.exc_info()[0] is None:
                    self._judge()
            finally:
                super().teardown()
            self.nothing_is_logged_as_an_error()
        finally:
            logging.getLogger("trivet").removeHandler(self._errors)

    @property
    def journal(self) -> list[Entry]:
        """What the actor did so far."""
        return self._room.journal

    def _judge(self) -> None:
        for client in self._clients:
            self.call(client.hold, False)
        self.run(trio.sleep, 30)
        self.settle()
        journal = self.journal
        for client in self._clients:
            client.trace.settle(len(journal))
        Model(journal).judge([client.trace for client in self._clients])

    def add(self, newcomer: Newcomer) -> Client:
        trace = Trace(len(self._clients))
        client = Client(
            trace,
            self._room,
            self._calls,
            encoding=newcomer.encoding,
            capacity=newcomer.capacity,
            delay=newcomer.delay,
        )
        self._clients.append(client)
        self.run(self.nursery.start, client.live, self._instance, newcomer.ops)
        self.call(client.send, *[(event, True) for event in newcomer.interests])
        return client

    def send(self, name: str, client: Client, *messages: Message) -> None:
        self._count(name)
        self.call(client.send, *messages)

    def _count(self, name: str) -> None:
        self.occurred[f"rule: {name}"] += 1
