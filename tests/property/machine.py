"""The machine that searches for a way to break the delivery contract: clients at the runtime itself."""

import logging
import sys
from collections import Counter
from itertools import count
from typing import ClassVar, Final

import attrs
import trio
import trio.testing
from hypothesis import strategies as st

from tests.property.model import Entry, Mark, Model, Record, Violation
from tests.property.near import PLENTY, NearClient
from tests.property.room import DROPPABLE, EVENTS, LIMITS, REGISTRY, Book, Crash, Op, Room
from trivet.protocol.codec import ENCODINGS
from trivet.runtime.host import Host, open_host
from trivet.runtime.instance import Instance
from trivet.testing import TrioMachine, initialize, invariant, rule

numbers: Final = st.integers(0, (1 << 48) - 1)
"""All that a rule draws is one number, which `Digits` takes apart: a draw costs more than what a rule does with it."""

PAUSES: Final = (0, 1, 5, 20, 3000)
SUBSCRIBED: Final = ("alpha", "oldest", "newest", "cursor", "gentle", "slow")


class Digits:
    """Choices out of one number; 0 is the first of each."""

    def __init__(self, number: int) -> None:
        self._rest = number

    def below(self, end: int) -> int:
        self._rest, digit = divmod(self._rest, end)
        return digit

    def ops(self, clients: int, at_most: int, *, fails: bool = True) -> list[Op]:
        """What an actor is to do."""
        return [self._op(clients, fails) for _ in range(self.below(at_most + 1))]

    def _op(self, clients: int, fails: bool) -> Op:
        event = EVENTS[self.below(len(EVENTS))]
        match self.below(14):
            case 0 | 1 | 2:
                return ["all", event]
            case 3:
                return ["others", event]
            case 4:
                return ["where", event, self.below(2)]
            case 5 | 6:
                return ["one", self.below(clients), event]
            case 7:
                return ["flood", event, 2 + self.below(8)]
            case 8:
                return ["publish", 20]
            case 9:
                return ["publish to", self.below(clients), 20]
            case 10:
                return ["pause", PAUSES[self.below(len(PAUSES))]]
            case 11:
                return ["later", PAUSES[self.below(len(PAUSES) - 1)], event]
            case 12 if self.below(3) == 2:
                return ["kick", self.below(clients)]
            case 13 if fails:
                return ["fail"] if self.below(2) else ["crash"]
            case _:
                return ["pause", 1]


class Errors(logging.Handler):
    """What the runtime logs as an error is a failure of the example; it says there who was too slow."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[str] = []
        self.slow: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if "too slow" in str(record.msg) and isinstance(record.args, tuple):
            self.slow.add(str(record.args[0]))
        elif record.levelno >= logging.ERROR and not (record.exc_info and record.exc_info[0] is Crash):
            self.records.append(self.format(record))


@attrs.define
class Totals:
    """What happened in all examples that went well."""

    examples: int = 0
    steps: int = 0
    """Rules that ran."""
    occurred: Counter[str] = attrs.field(factory=Counter[str])

    def note(self, steps: int, book: Book, records: list[Record]) -> None:
        """One more example."""
        self.examples += 1
        self.steps += steps
        self.occurred.update(book.occurred)
        for one in (one for record in records for trace in record.traces for one in trace.arrived):
            if one.what == "dropped":
                self.occurred[f"dropped {one.name}"] += 1


class DeliveryMachine(TrioMachine):
    """One actor, or several in turn under one key, and a few clients, who do whatever clients may do."""

    totals = Totals()
    latest: ClassVar["DeliveryMachine | None"] = None
    """The example that ran last: after a failure, the shrunk one."""

    def __init__(self) -> None:
        super().__init__()
        self.book = Room.book = Book()
        self.host: Host
        self.instance: Instance
        self.clients: list[NearClient] = []
        self._calls = count()
        self._tasks = 0
        self._close = trio.Event()
        self._errors = Errors()
        self.steps = 0
        DeliveryMachine.latest = self
        logging.getLogger("trivet").addHandler(self._errors)

    @property
    def journal(self) -> list[Entry]:
        """What the actors did so far."""
        return self.book.journal

    @property
    def occurred(self) -> Counter[str]:
        """What happened so far."""
        return self.book.occurred

    async def open(self) -> None:
        await self.nursery.start(self._keep_host)
        await self._find()
        await trio.testing.wait_all_tasks_blocked()
        self._tasks = trio.lowlevel.current_statistics().tasks_living

    async def _keep_host(self, task_status: trio.TaskStatus[None]) -> None:
        async with open_host(REGISTRY, LIMITS) as self.host:
            task_status.started()
            await self._close.wait()

    async def _find(self) -> None:
        self.instance, _ = await self.host.get_or_create("default", "room", ("general",))

    async def aclose(self) -> None:
        for client in self.clients:
            await client.leave()
        self._close.set()
        await trio.sleep(60)
        await super().aclose()

    # -- rules --------------------------------------------------------------------------------------------------------

    @initialize(number=numbers)
    async def begin(self, number: int) -> None:
        digits = Digits(number)
        for _ in range(1 + digits.below(3)):
            await self._add(digits)

    def _ran(self, name: str) -> None:
        self.steps += 1
        self.occurred[f"rule: {name}"] += 1
        for client in self.clients:
            client.acknowledge()

    def _client(self, digits: Digits) -> NearClient:
        return self.clients[digits.below(len(self.clients))]

    async def _add(self, digits: Digits) -> None:
        await self._find()
        extended = digits.below(3) != 2
        record = Record(len(self.clients), plain=not extended)
        encoding = ENCODINGS[digits.below(len(ENCODINGS))]
        capacity = (PLENTY, 300, 60)[digits.below(3)]
        client = NearClient(self, record, encoding, extended, capacity)
        self.clients.append(client)
        ops = digits.ops(len(self.clients), 2) if digits.below(4) == 3 else []
        await client.open(self.instance, ops)
        for event in SUBSCRIBED:
            if digits.below(2):
                client.subscribe(event)

    @rule(number=numbers)
    async def connect(self, number: int) -> None:
        """Another client, which sends its first messages without waiting for Init; or one that comes back."""
        digits = Digits(number)
        client = self._client(digits)
        if len(self.clients) < 5 and digits.below(2):
            self._ran("connect")
            await self._add(digits)
        elif not client.gone:
            self._ran("come back")
            await self._come_back(client)

    async def _come_back(self, client: NearClient) -> None:
        if not await client.come_back() and not self._is_final(client):
            await self._find()
            await client.open(self.instance, [])

    def _is_final(self, client: NearClient) -> bool:
        return client.gone or any(
            isinstance(entry, Mark) and entry.what in ("kick", "rejected") and entry.conn == client.trace.conn
            for entry in self.journal
        )

    @rule(number=numbers)
    def subscribe(self, number: int) -> None:
        self._ran("subscribe")
        digits = Digits(number)
        client = self._client(digits)
        event = (*SUBSCRIBED, "forbidden")[digits.below(len(SUBSCRIBED) + 1)]
        self.occurred["refusal"] += event == "forbidden"
        client.subscribe(event)
        self._perhaps_say(client, event, digits)

    @rule(number=numbers)
    def unsubscribe(self, number: int) -> None:
        self._ran("unsubscribe")
        digits = Digits(number)
        client = self._client(digits)
        event = SUBSCRIBED[digits.below(len(SUBSCRIBED))]
        client.unsubscribe(event)
        self._perhaps_say(client, event, digits)

    def _perhaps_say(self, client: NearClient, event: str, digits: Digits) -> None:
        """A change of subscriptions is in force for what the next call emits."""
        if event in EVENTS and digits.below(2):
            client.call(next(self._calls), "act", [["all", event]])

    @rule(number=numbers)
    def act(self, number: int) -> None:
        self._ran("act")
        digits = Digits(number)
        self._act(self._client(digits), "act", digits)

    @rule(number=numbers)
    def act_async(self, number: int) -> None:
        self._ran("act async")
        digits = Digits(number)
        self._act(self._client(digits), "actAsync", digits)

    @rule(number=numbers)
    def act_beside(self, number: int) -> None:
        self._ran("act beside")
        digits = Digits(number)
        self._act(self._client(digits), "actBeside", digits)

    def _act(self, client: NearClient, action: str, digits: Digits) -> None:
        deadline = 0.01 if digits.below(8) == 7 else None
        client.call(next(self._calls), action, digits.ops(len(self.clients), 4), deadline)

    @rule(number=numbers)
    def send_several(self, number: int) -> None:
        """In one go: the actor sees none before the last is there."""
        self._ran("send several")
        digits = Digits(number)
        self._send_several(self._client(digits), digits)

    def _send_several(self, client: NearClient, digits: Digits) -> None:
        for _ in range(2 + digits.below(4)):
            match digits.below(5):
                case 0:
                    client.call(next(self._calls), "act", [["all", EVENTS[digits.below(len(EVENTS))]]])
                case 1:
                    client.subscribe(EVENTS[digits.below(len(EVENTS))])
                case 2:
                    client.call(next(self._calls), "actBeside", [["all", "alpha"], ["pause", 1], ["others", "oldest"]])
                case 3:
                    client.unsubscribe(EVENTS[digits.below(len(EVENTS))])
                case _:
                    client.call(next(self._calls), "actAsync", [["all", "alpha"], ["pause", 5], ["publish", 20]])

    @rule(number=numbers)
    def cancel(self, number: int) -> None:
        """A client does not want some result any more."""
        digits = Digits(number)
        waiting = [(client, sent) for client in self.clients if client.extended for sent in client.waiting]
        if not waiting:  # so there shall be something
            self._ran("act async")
            calls: list[list[Op]] = [[["pause", 3000]], [["all", "alpha"]]]
            client = self._client(digits)
            for ops in calls:
                client.call(next(self._calls), "actAsync", ops)
            return
        self._ran("cancel")
        client, sent = waiting[digits.below(len(waiting))]
        begun = {entry.call for entry in self.journal if isinstance(entry, Mark) and entry.what == "call"}
        self.occurred["cancel of a running call" if sent.call in begun else "cancel of a queued call"] += 1
        client.cancel(sent)

    @rule(number=numbers)
    def emit_in_background(self, number: int) -> None:
        self._ran("emit in background")
        self._emit(Digits(number).ops(len(self.clients), 4, fails=False))

    @rule(number=numbers)
    def flood(self, number: int) -> None:
        """More than a client that does not read can hold."""
        self._ran("flood")
        digits = Digits(number)
        self._emit([["flood", EVENTS[digits.below(len(EVENTS))], 4 + digits.below(12)], ["publish", 2000]])

    def _emit(self, ops: list[Op]) -> None:
        if not self.instance.stopping:
            self._room.do_in_background(ops)

    @property
    def _room(self) -> Room:
        room = self.instance.actor
        assert isinstance(room, Room)
        return room

    @rule(number=numbers)
    def hold(self, number: int) -> None:
        """A client stops reading, or goes on; now and then it is gone on without for long."""
        self._ran("hold")
        digits = Digits(number)
        client = self._client(digits)
        client.hold(not client.held)
        if client.held and digits.below(4) == 3:
            self._emit([["flood", "alpha", 12]])
            self.run(trio.sleep, LIMITS.outbox_soft_time + 1)

    @rule(number=numbers)
    async def break_(self, number: int) -> None:
        """A line breaks, or another client's comes back."""
        self._ran("break")
        digits = Digits(number)
        client = self._client(digits)
        if client.line is None and not client.gone:
            await self._come_back(client)
        else:
            await client.break_(digits.below(200))

    @rule(number=numbers)
    async def fall_behind(self, number: int) -> None:
        """A line breaks, and more is emitted than its client may have when it comes back."""
        self._ran("fall behind")
        digits = Digits(number)
        client = self._client(digits)
        event = ("alpha", *DROPPABLE)[digits.below(1 + len(DROPPABLE))]
        client.subscribe(event)
        await trio.testing.wait_all_tasks_blocked()
        await client.break_(digits.below(100))
        self._emit([["flood", event, 2 + digits.below(8)]])
        await trio.testing.wait_all_tasks_blocked()

    @rule(number=numbers)
    async def go(self, number: int) -> None:
        """A client closes, or is gone without a word; but one stays."""
        digits = Digits(number)
        clients = [client for client in self.clients if not client.gone]
        if len(clients) < 2:
            await self._add(digits)
            self._ran("connect")
            return
        client = clients[digits.below(len(clients))]
        self.occurred["end with calls waiting"] += bool(client.waiting)
        if digits.below(2):
            self._ran("close")
            client.close()
        else:
            self._ran("leave")
            await client.leave()

    @rule(number=numbers)
    def stop(self, number: int) -> None:
        """The actor is told to stop, with whatever it has to do; there will be another under its key."""
        digits = Digits(number)
        if digits.below(4) or self.instance.stopping:
            self._ran("let time pass")
            self.run(trio.sleep, (0.001, 0.02, 1, 6, 40)[digits.below(5)])
            return
        self._ran("stop")
        self.occurred["stop with work queued"] += self.instance.statistics().waiting_calls > 0
        self.journal.append(Mark("stop"))
        self._room.destroy()

    @rule(number=numbers)
    def let_all_happen(self, number: int) -> None:
        """After this nothing is on its way, and everything can be judged."""
        if Digits(number).below(4) == 3:
            self._ran("let all happen")
            self.judge()
        else:
            self._ran("settle")
            self.settle()

    # -- checks -------------------------------------------------------------------------------------------------------

    @invariant()
    def nothing_is_logged_as_an_error(self) -> None:
        if self.steps % 2:
            self.run(trio.lowlevel.checkpoint)  # what rules have begun goes on, or waits for the next one
        self._look_at_log()

    def _look_at_log(self) -> None:
        if self._errors.records:
            raise Violation("log", self._errors.records[0])

    def judge(self) -> None:
        """Let everything happen, and judge it."""
        self.run(self._let_all_happen)
        journal = self.journal
        for client in self.clients:
            for sent in [*client.record.sent, *(sent for trace in client.record.traces for sent in trace.first)]:
                sent.settled = min(sent.settled, len(journal))
        model = Model(journal, set(self.instance.conns), self._errors.slow)
        model.judge([client.record for client in self.clients])

    async def _let_all_happen(self) -> None:
        """Whoever can come back has, and nothing is under way."""
        for client in self.clients:
            client.hold(False)
        await trio.sleep(10)  # whoever is too slow is known to be
        await self._find()
        for client in self.clients:
            if not client.gone:
                await self._come_back(client)
        await trio.sleep(450)  # so long may a full inbox of slow calls take
        await self._find()
        if (tasks := trio.lowlevel.current_statistics().tasks_living) != self._tasks:
            raise Violation("tasks", f"there are {tasks} of them, and there were {self._tasks} before anybody came")

    def teardown(self) -> None:
        try:
            try:
                if self.clients and sys.exc_info()[0] is None:
                    self.judge()
            finally:
                super().teardown()
            self._look_at_log()
            self.occurred["too slow"] += len(self._errors.slow)
            self.totals.note(self.steps, self.book, [client.record for client in self.clients])
        finally:
            logging.getLogger("trivet").removeHandler(self._errors)
