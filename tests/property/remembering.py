"""One actor on a store with faults, clients that note all that they see, and what must be so in the end.

Everything happens in virtual time. What an example does is a list of steps; `play` goes through them, over as many
processes as there are crashes, and `verify` compares what was seen with what is remembered.
"""

from collections import Counter
from typing import Any, ClassVar, Final, TypeAlias

import attrs
import trio
import trio.testing

from tests.runtime.support import FORMAT, REQUEST, FakeTransport, Peer, settled
from trivet import Actor, Conn, Event, Options, PublicError, Registry, UserError, action
from trivet.protocol.messages import ActionResponse, Error, Init, ToClient
from trivet.protocol.messages import Event as EventMessage
from trivet.protocol.values import Value
from trivet.runtime.host import Host, open_host
from trivet.runtime.instance import Instance
from trivet.store import Changes, MemoryStore, StoreError
from trivet.testing.store import FaultyStore

EPOCH: Final = 1_893_456_000.0
AT_ONCE: Final = ("write", "fail")
"""Actions that wait for nothing: answered with `save_failed` they have had no effect."""
ACTIONS: Final = (*AT_ONCE, "writeSlowly", "writeBeside", "tell", "plan", "planSlowly", "noteLater", "look")
Step: TypeAlias = tuple[Any, ...]


@attrs.define
class Log:
    lines: list[str] = attrs.field(factory=list[str])
    came: list[str] = attrs.field(factory=list[str])
    left: list[str] = attrs.field(factory=list[str])
    notes: list[str] = attrs.field(factory=list[str])


class Diary(Actor[Log, dict[str, int]]):
    """Each line is told to all, with its number. Of notes nobody is told; they are seen by those who look."""

    options = Options(durability="gated", sleep_after=1, sleep_with_connections=True)
    written = Event(int, str)
    told = Event(str)
    pause: ClassVar[float] = 0.05

    def create_conn_state(self, params: object) -> dict[str, int]:
        return {}

    def on_connect(self, conn: Conn[dict[str, int]]) -> None:
        if conn.kind == "events":
            self.state.came.append(conn.id)

    def on_disconnect(self, conn: Conn[dict[str, int]]) -> None:
        if conn.kind == "events":
            self.state.left.append(conn.id)

    @action
    def write(self, text: str) -> int:
        number = len(self.state.lines)
        self.state.lines.append(text)
        self.broadcast(self.written, number, text)
        return number

    @action
    def fail(self, text: str) -> None:
        raise UserError(str(self.write(text)), code="failed")

    @action
    async def write_slowly(self, text: str) -> int:
        self.write(f"{text}.1")
        await trio.sleep(self.pause)
        return self.write(f"{text}.2")

    @action(concurrent=True)
    async def write_beside(self, text: str) -> int:
        await trio.sleep(self.pause)
        return self.write(text)

    @action
    def tell(self, text: str) -> int:
        number = self.write(text)
        if self.conn.kind == "events":
            self.conn.send(self.told, text)
        return number

    @action
    def plan(self, text: str) -> int:
        self.schedule.after(0.7, Diary.write, text)
        return -1

    @action
    def plan_slowly(self, text: str) -> int:
        self.schedule.after(1.5, Diary.write_slowly, text)
        return -1

    @action
    def note_later(self, text: str) -> None:
        self.start_soon(self._note, text)

    async def _note(self, text: str) -> None:
        notes = self.state.notes
        await trio.sleep(self.pause)
        notes.append(text)

    @action(readonly=True)
    def look(self, _: str) -> list[tuple[int, str]]:
        last = [lines[-1:] for lines in (self.state.lines, self.state.notes)]
        numbers = len(self.state.lines) - 1, len(self.state.notes) - 1
        return [(number, text) for number, texts in zip(numbers, last, strict=True) for text in texts or [""]]

    @action
    def nap(self) -> None:
        self.sleep()

    @action
    def memory(self) -> list[list[str]]:
        return [self.state.lines, self.state.came, self.state.left, self.state.notes]


REGISTRY: Final = Registry(Diary)


@attrs.frozen
class Answer:
    """Of a call: a number, or an error."""

    action: str
    text: str
    output: Value
    code: str | None


@attrs.define
class Seen:
    """What one connection saw until it ended, or its process did."""

    messages: list[ToClient]
    calls: dict[int, tuple[str, str]]
    lives: bool
    """Whether it was open to the end, in a process that ended in peace."""


class Store(FaultyStore):
    """Notes what it has kept without saying so."""

    def __init__(self, inner: MemoryStore, unsaid: list[bytes]) -> None:
        super().__init__(inner)
        self._unsaid = unsaid

    async def commit(self, actor_id: str, generation: int, changes: Changes) -> None:
        before = self.changes
        try:
            await super().commit(actor_id, generation, changes)
        except (StoreError, trio.Cancelled):
            if self.changes > before and changes.state is not None:
                self._unsaid.append(changes.state)
            raise


class _Client:
    """One connection, in a task of its own."""

    def __init__(self) -> None:
        self.peer: Peer | None = None
        self.calls: dict[int, tuple[str, str]] = {}
        self.leaves = trio.Event()
        self.seen: Seen | None = None

    async def run(self, host: Host) -> None:
        try:
            instance = await _actor(host)
        except (PublicError, StoreError):
            return
        transport = FakeTransport()
        async with instance.open_session(transport, FORMAT, params={}, request=REQUEST) as session:
            self.peer = Peer(session, transport)
            self.peer.subscribe("written")
            await self.leaves.wait()
            self.note(lives=False)

    def act(self, name: str, text: str) -> None:
        if self.peer is not None and not self.leaves.is_set():
            self.calls[self.peer.act(name, text)] = (name, text)

    def note(self, *, lives: bool) -> None:
        """From now on nobody looks."""
        if self.peer is not None and self.seen is None:
            lives = lives and self.peer.closed_with is None
            self.seen = Seen(self.peer.messages, self.calls, lives)


@attrs.define
class History:
    """What an example has seen, and what the actor remembers in the end."""

    connections: list[Seen] = attrs.field(factory=list[Seen])
    answers: list[Answer] = attrs.field(factory=list[Answer])
    """Of stateless calls."""
    unanswered: list[str] = attrs.field(factory=list[str])
    """Stateless calls that had no answer when all was over, in a process that did not crash."""
    unsaid: list[bytes] = attrs.field(factory=list[bytes])
    lines: list[str] = attrs.field(factory=list[str])
    came: list[str] = attrs.field(factory=list[str])
    left: list[str] = attrs.field(factory=list[str])
    notes: list[str] = attrs.field(factory=list[str])


async def _actor(host: Host, *, soon: bool = False) -> Instance:
    return (await host.get_or_create("default", "diary", ("k",), soon=soon))[0]


def _wall_clock() -> float:
    return EPOCH + trio.current_time()


class _Process:
    """One process, from start to crash or end."""

    def __init__(self, host: Host, store: Store, nursery: trio.Nursery, history: History) -> None:
        self._host, self._store, self._nursery, self._history = host, store, nursery, history
        self._clients: list[_Client] = []
        self._waiting: dict[str, None] = {}

    async def step(self, step: Step, text: str) -> None:
        store = self._store
        match step:
            case ("connect",):
                client = _Client()
                self._clients.append(client)
                self._nursery.start_soon(client.run, self._host)
            case ("leave", int(number)) if self._clients:
                self._clients[number % len(self._clients)].leaves.set()
            case ("act", int(number), str(name)) if self._clients:
                self._clients[number % len(self._clients)].act(name, text)
            case ("peep", int(number)) if self._clients:
                client = self._clients[number % len(self._clients)]
                client.act("noteLater", text)
                await settled()
                client.act("look", text)
                await trio.sleep(1.2 * Diary.pause)
                client.act("look", text)
                await settled()
            case ("call", str(name)):
                self._waiting[text] = None
                self._nursery.start_soon(self._call, name, text)
            case ("nap",):
                self._nursery.start_soon(self._call, "nap")
            case ("wait", float(seconds)):
                await trio.sleep(seconds)
            case ("settle",):
                await settled()
            case ("delay", float(seconds)):
                store.delay = seconds
            case ("hold",):
                store.hold()
            case ("release",):
                store.release()
            case ("fail", int(count), bool(after)):
                store.fail(count, after=after)
            case _:
                pass

    async def _call(self, name: str, *args: str) -> None:
        output: Value = None
        code: str | None = None
        try:
            output = await (await _actor(self._host, soon=True)).call(name, list(args), request=REQUEST)
        except PublicError as error:
            output, code = str(error.message), error.code
        except StoreError:
            code = "internal_error"
        for text in args:
            self._history.answers.append(Answer(name, text, output, code))
            del self._waiting[text]

    async def quiet(self) -> None:
        """No more faults, and time for everything."""
        self._store.delay = 0
        self._store.fail(0)
        self._store.release()
        await trio.sleep(10)
        self._history.unanswered += self._waiting
        self.note(lives=True)

    def note(self, *, lives: bool) -> None:
        """What was seen until now counts."""
        for client in self._clients:
            client.note(lives=lives)
            if client.seen is not None:
                self._history.connections.append(client.seen)


async def play(steps: list[Step], history: History) -> None:
    """All steps, then the end: a restart, and what the actor then remembers."""
    inner = MemoryStore(durable=True)
    processes: list[list[tuple[str, Step]]] = [[]]
    for number, step in enumerate(steps):
        if step == ("crash",):
            processes.append([])
        else:
            processes[-1].append((f"t{number}", step))
    with trio.fail_after(10_000):
        for number, part in enumerate(processes, 1):
            store = Store(inner, history.unsaid)
            with trio.CancelScope() as scope:
                async with (
                    open_host(REGISTRY, store=store, wall_clock=_wall_clock) as host,
                    trio.open_nursery() as nursery,
                ):
                    process = _Process(host, store, nursery, history)
                    for text, step in part:
                        await process.step(step, text)
                    if number == len(processes):
                        await process.quiet()
                        nursery.cancel_scope.cancel()
                    else:
                        process.note(lives=False)
                        store.crash()
                        scope.cancel()
        async with open_host(REGISTRY, store=inner, wall_clock=_wall_clock) as host:
            await trio.sleep(30)
            found: Any = await (await _actor(host)).call("memory", [], request=REQUEST)
            history.lines, history.came, history.left, history.notes = found


def run(steps: list[Step]) -> History:
    """`play` in virtual time."""
    history = History()
    trio.run(play, steps, history, clock=trio.testing.MockClock(autojump_threshold=0))
    return history


class Forgotten(AssertionError):
    """A rule is broken. The first argument names it."""


def check(holds: bool, rule: str, detail: object) -> None:
    if not holds:
        raise Forgotten(rule, detail)


def verify(history: History) -> None:
    """Raises Forgotten."""
    lines = dict(enumerate(history.lines))
    counts = Counter(history.lines)
    answers = list(history.answers)
    for seen in history.connections:
        answers += _verify_connection(seen, lines, history)
    for answer in answers:
        _verify_answer(answer, lines, counts, history)
    check(not history.unanswered, "answers", history.unanswered)
    for text, count in counts.items():
        check(count == 1 or text.endswith(".1"), "once", (text, count))
    came, left = Counter(history.came), Counter(history.left)
    check(came == left and all(count == 1 for count in came.values()), "on_disconnect", (came, left))


def _verify_connection(seen: Seen, lines: dict[int, str], history: History) -> list[Answer]:
    answers: list[Answer] = []
    last: int | None = None
    for message in seen.messages:
        match message:
            case Init(connection_id=conn_id):
                check(conn_id in history.came, "seen", f"the connection {conn_id}")
            case EventMessage(name="written", args=[int(number), str(text)]):
                check(lines.get(number) == text, "seen", f"the event {number} {text}")
                check(last is None or number == last + 1, "order", f"{number} after {last}")
                last = number
            case EventMessage(name="told", args=[str(text)]):
                check(text in lines.values(), "seen", f"a message {text}")
                check(last is not None and lines.get(last) == text, "order", f"the message {text} after {last}")
            case ActionResponse(id=id_, output=output):
                name, text = seen.calls.pop(id_)
                answers.append(Answer(name, text, output, None))
                check(not isinstance(output, int) or last is None or output <= last, "cause", (name, text))
            case Error(action_id=int(id_), code=code, message=told):
                name, text = seen.calls.pop(id_)
                answers.append(Answer(name, text, told, code))
            case _:
                pass
    check(not (seen.lives and seen.calls), "answers", seen.calls)
    return answers


def _verify_answer(answer: Answer, lines: dict[int, str], counts: Counter[str], history: History) -> None:
    text = answer.text
    match answer:
        case Answer(action="plan", code=None):
            check(counts[text] == 1, "schedules", answer)
        case Answer(action="planSlowly", code=None):
            check(counts[f"{text}.1"] >= 1 and counts[f"{text}.2"] == 1, "schedules", answer)
        case Answer(action="look", code=None, output=[[int(line), str(written)], [int(note), str(noted)]]):
            check(line < 0 or lines.get(line) == written, "seen", answer)
            check(note < 0 or history.notes[note : note + 1] == [noted], "seen", answer)
        case Answer(action="writeSlowly", code=None, output=int(number)):
            check(lines.get(number) == f"{text}.2", "seen", answer)
        case Answer(code="failed", output=str(number)):
            check(lines.get(int(number)) == text, "seen", answer)
        case Answer(code=None, output=int(number)):
            check(lines.get(number) == text, "seen", answer)
        case Answer(action=name, code="save_failed") if name in AT_ONCE:
            unsaid = any(f'"{text}"'.encode() in state for state in history.unsaid)
            check(unsaid or text not in counts, "undone", answer)
        case _:
            pass
