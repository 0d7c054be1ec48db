"""What clients must see: the delivery contract as a function of what actors did and what clients sent.

Actors keep a journal. The index of an entry is its moment, and the emits among them are the one order of events. A
client keeps a record of what it sent and of what arrived, in a trace for each session. Nothing else is known here: in
particular not when the runtime put a subscription in force, which happens in some window of moments. A trace is right
when one moment in each window explains all that arrived and all that did not.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Final, Literal, TypeAlias

import attrs

NEVER: Final = 1 << 30

What: TypeAlias = Literal[
    "connect", "admitted", "rejected", "call", "return", "kick", "disconnect", "disconnected", "stop", "stopped"
]
ENTERS: Final = ("connect", "call", "disconnect")
LEAVES: Final = ("admitted", "rejected", "return", "disconnected")

# How a call ended in the actor, and the errors that tell its client so; None: it never began.
ERRORS: Final = {
    "user_error": ("told",),
    "internal_error": ("crashed",),
    "action_timed_out": ("cancelled", "told", "crashed"),
    "aborted": ("cancelled", "told", "crashed", None),
    "stopping": ("cancelled", None),
    "shutdown_timeout": ("cancelled", "told", "crashed"),
    "overloaded": (None,),
    # What no actor says: the client itself gave up.
    "lost": ("ok", "told", "crashed", "cancelled", None),
    "given up": ("ok", "told", "crashed", "cancelled", None),
    "not sent": (None,),
}
OWN: Final = ("lost", "given up", "not sent")


class Violation(AssertionError):
    """The contract does not hold; `rule` says which part of it."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(f"{rule}: {message}")
        self.rule = rule


@attrs.define(eq=False)
class Emit:
    """One event. A `targeted` one needs no subscription; `droppable` says its overflow policy lets it give way."""

    id: int
    event: str
    to: frozenset[str]
    """The connections in the actor's sight that it was meant for, before their subscriptions are looked at."""
    conns: frozenset[str]
    """The connections in the actor's sight."""
    targeted: bool = False
    droppable: bool = False
    recipients: int = 0
    """What the actor was told."""


@attrs.frozen
class Mark:
    """A call began or returned; a hook of a connection did; a connection was kicked; the actor was told to
    stop; it has done so with all its work done.
    """

    what: What
    conn: str = ""
    call: int = -1
    serial: bool = True
    how: str = "ok"


@attrs.frozen
class Arrival:
    """`number`: the id of an event, the count of dropped ones, a call, a close code. `name`: an event, an error."""

    what: Literal["init", "event", "dropped", "answer", "error", "close"]
    number: int = 0
    name: str = ""


Entry: TypeAlias = Emit | Mark


@attrs.define(eq=False)
class Sent:
    """A call, or a subscription to `event` or its end."""

    moment: int
    call: int = -1
    event: str = ""
    wanted: bool = False
    refused: bool = False
    cancelled: bool = False
    hidden_after: int | None = None
    """Where the client itself stops to look at events: the id of the last one that it had seen then, or -1."""
    settled: int = NEVER
    """A moment at which everything that could have happened had happened."""


@attrs.define(eq=False)
class Trace:
    """One session as its client knows it: from its admission to its end, on however many transports."""

    conn: str
    opened: int
    """The moment when the client asked for it."""
    start: int
    """How much the client had sent before."""
    first: list[Sent] = attrs.field(factory=list[Sent])
    """Subscriptions that it began with."""
    arrived: list[Arrival] = attrs.field(factory=list[Arrival])
    live: bool = True
    left: bool = False
    """The client ended it, or went away in a way that ends it."""
    impaired: bool = False
    """Its client was away, or slow, so that events may give way and it may end for it."""
    gap: bool = True
    """The client was told that it is not the session before."""

    def told(self) -> list[Arrival]:
        return [one for one in self.arrived if one.what == "close"]


@attrs.define(eq=False)
class Record:
    """One client: what it sent, and its sessions one after the other."""

    label: int
    plain: bool = False
    """It speaks RivetKit's protocol alone, in which a refused subscription ends the session."""
    always: tuple[str, ...] = ()
    """What it always listens for, if it sees no more than that of what is sent to it without a subscription."""
    sent: list[Sent] = attrs.field(factory=list[Sent])
    traces: list[Trace] = attrs.field(factory=list[Trace])

    def __str__(self) -> str:
        return f"client {self.label}"


class Model:
    """Judges records by a journal. `conns` are the actor's at the end, `slow` those that ended for their slowness."""

    def __init__(self, journal: list[Entry], conns: set[str], slow: set[str]) -> None:
        self.journal = journal
        self.conns = conns
        self.slow = slow
        self.emits = [(i, entry) for i, entry in enumerate(journal) if isinstance(entry, Emit)]
        self.marks = [(i, entry) for i, entry in enumerate(journal) if isinstance(entry, Mark)]
        self.moments = {(mark.what, mark.conn): i for i, mark in reversed(self.marks)}
        self.begun = {mark.call: i for i, mark in reversed(self.marks) if mark.what == "call"}
        self.returns = {mark.call: (i, mark) for i, mark in self.marks if mark.what == "return"}
        self.emitted = {entry.id: i for i, entry in self.emits}
        ends = [(i, mark.what) for i, mark in self.marks if mark.what in ("stop", "stopped")]
        self.cut_off = [i for (i, what), (_, then) in pairwise([*ends, (NEVER, "stop")]) if what == then == "stop"]
        """When an actor was told to stop that could not do its work in its grace."""

    def judge(self, records: list[Record]) -> None:
        """Raise Violation unless everything is as it must be once nothing is on its way any more."""
        self.judge_turns()
        seen = dict.fromkeys((entry.id for _, entry in self.emits), 0)
        for record in records:
            self.judge_calls(record)
            for trace in record.traces:
                self.judge_arrivals(record, trace)
                self.judge_life(record, trace)
                self.judge_events(record, trace)
                for one in trace.arrived:
                    if one.what == "event":
                        seen[one.number] += 1
        for i, entry in self.emits:
            if not seen[entry.id] <= entry.recipients <= len(entry.to):
                raise Violation("count", f"{entry} at {i} reached {seen[entry.id]}")

    # -- the actor ----------------------------------------------------------------------------------------------------

    def judge_turns(self) -> None:
        """Serial actions and hooks never overlap. Calls of a connection start in the order of sending, each once."""
        inside: Mark | None = None
        latest: dict[str, int] = {}
        ran: set[int] = set()
        for _, mark in self.marks:
            if mark.serial and mark.what in ENTERS:
                if inside is not None:
                    raise Violation("turns", f"{mark} inside {inside}")
                inside = mark
            elif mark.serial and mark.what in LEAVES:
                inside = None
            if mark.what == "call":
                if mark.call in ran:
                    raise Violation("run once", f"{mark} again")
                if mark.call < latest.get(mark.conn, -1):
                    raise Violation("start order", f"{mark} after call {latest[mark.conn]}")
                ran.add(mark.call)
                latest[mark.conn] = mark.call

    # -- a client -----------------------------------------------------------------------------------------------------

    def judge_calls(self, record: Record) -> None:
        """Each call is answered once, as it ended in the actor, and one that was answered so has run."""
        answers: dict[int, list[Arrival]] = {sent.call: [] for sent in record.sent if sent.call >= 0}
        for trace in record.traces:
            for one in trace.arrived:
                if one.what in ("answer", "error"):
                    if one.number not in answers:
                        raise Violation("answers", f"{one}, which {record} had not asked for")
                    answers[one.number].append(one)
        live = record.traces[-1] if record.traces and record.traces[-1].live else None
        for index, sent in enumerate(record.sent):
            if sent.call < 0:
                continue
            got = answers[sent.call]
            if len(got) > 1 or (not got and live is not None and index >= live.start):
                raise Violation("answers", f"{len(got)} of call {sent.call} came to {record}")
            _, returned = self.returns.get(sent.call, (NEVER, None))
            how = None if returned is None else returned.how
            if sent.call in self.begun and returned is None:
                raise Violation("answers", f"call {sent.call} of {record} never ended")
            for one in got:
                expected = ERRORS.get(one.name, ()) if one.what == "error" else ("ok",)
                causeless = (one.name == "aborted" and not sent.cancelled) or (
                    one.name == "shutdown_timeout" and not any(i >= sent.moment for i in self.cut_off)
                )
                if how not in expected or causeless:
                    raise Violation("answers", f"{one} of call {sent.call} came to {record}, and it was {how}")

    def judge_arrivals(self, record: Record, trace: Trace) -> None:
        """Init first; events in the actor's order and at most once; an answer after the events before its return."""
        newest, returned, init = -1, -1, False
        for one in trace.arrived:
            if one.what == "init":
                if init:
                    raise Violation("init", f"twice to {record}")
                init = True
            elif one.what == "event":
                moment = self.emitted.get(one.number, -1)
                entry = self.journal[moment] if moment >= 0 else None
                if not isinstance(entry, Emit) or trace.conn not in entry.to:
                    raise Violation("stray", f"{one} came to {record}, and it was {entry}")
                if moment == newest:
                    raise Violation("once", f"{one} came twice to {record}")
                if moment < newest:
                    again = sum(other == one for other in trace.arrived) > 1
                    raise Violation("once" if again else "order", f"{one} came after event {newest} to {record}")
                if moment < returned:
                    raise Violation("cause", f"{one} came after the answer of a call behind it to {record}")
                if not init and not entry.targeted:
                    raise Violation("init", f"{one} came before Init to {record}")
                newest = moment
            elif one.what in ("answer", "error") and one.name not in OWN:
                returned = max(returned, self.returns.get(one.number, (-1, None))[0])

    def judge_life(self, record: Record, trace: Trace) -> None:
        """A session ends for a cause, of which its client is told, leaves the actor, and has one `on_disconnect`."""
        conn = trace.conn
        connected = self.moments.get(("connect", conn), NEVER)
        admitted = self.moments.get(("admitted", conn), NEVER) < NEVER
        ran = sum(mark.what == "disconnect" and mark.conn == conn for _, mark in self.marks)
        cut_off = any(i >= trace.opened for i in self.cut_off)
        if ran != (admitted and not trace.live) and not (cut_off and ran == 0):
            raise Violation("on_disconnect", f"ran {ran} times for {record}, whose session {trace}")
        if trace.live != (conn in self.conns):
            raise Violation("conns", f"the actor has {self.conns}, and {record} {trace}")
        kicked, rejected = ((what, conn) in self.moments for what in ("kick", "rejected"))
        stopped = any(mark.what == "stop" and i >= trace.opened for i, mark in self.marks)
        refused = record.plain and any(sent.refused for sent in record.sent[trace.start :])
        if trace.live and (kicked or rejected):
            raise Violation("end", f"{record} lives on: {trace}")
        if not trace.live:
            if not (trace.left or kicked or rejected or stopped or refused or conn in self.slow):
                raise Violation("end", f"{record} ended without a cause: {trace}")
            if conn in self.slow and not trace.impaired:
                raise Violation("slow", f"{record} ended, and it was not slow")
            if not (trace.left or trace.impaired or trace.told()):
                raise Violation("end", f"{record} was not told of its end: {trace}")
        if not trace.gap:
            raise Violation("gap", f"{record} got a new session and was not told")
        gone = False
        for i, entry in self.emits:
            if i > connected:
                if gone and conn in entry.conns:
                    raise Violation("conns", f"{record} came back at {i}")
                gone = gone or conn not in entry.conns

    # -- its events ---------------------------------------------------------------------------------------------------

    def judge_events(self, record: Record, trace: Trace) -> None:
        """What arrived is what was to arrive, but for what its policy let give way, of which exactly it was told."""
        arrived = [self.emitted[one.number] for one in trace.arrived if one.what == "event"]
        told = list(self._told(trace, arrived))
        if told and not trace.impaired:
            raise Violation("dropped", f"{record} keeps up, and was told of {told}")
        names = sorted({name for name, *_ in told})
        until = len(self.journal) if trace.live else max(arrived, default=-1) + 1
        changes = list(self._windows(record, trace))
        here = set(arrived)
        states: set[tuple[int, tuple[int, ...]]] = {(0, (0,) * len(names))}
        for i, entry in self.emits:
            if i >= until or trace.conn not in entry.to:
                continue
            states = {later for state in states for later in self._advance(changes, state, i)}
            explained: set[tuple[int, tuple[int, ...]]] = set()
            for done, missing in states:
                expected = entry.targeted or self._is_subscribed(changes[:done], entry.event)
                optional = entry.targeted and record.always and entry.event not in record.always
                if optional or expected == (i in here):
                    explained.add((done, missing))
                if expected and i not in here and entry.droppable and entry.event in names:
                    # Each marker stands where the first of those that it counts stood.
                    at = names.index(entry.event)
                    most = sum(count for name, after, _, count in told if name == entry.event and after < i)
                    if missing[at] < most:
                        explained.add((done, (*missing[:at], missing[at] + 1, *missing[at + 1 :])))
            if not explained:
                raise Violation("unsubscribed" if i in here else "lost", f"{entry} at {i}, and {record}: {trace}")
            states = {
                (done, missing)
                for done, missing in explained
                if all(missing[names.index(name)] > 0 for name, _, before, _ in told if before <= i)
            }
            if not states:
                raise Violation("dropped", f"{record} was told too early or too often: {told}")
        totals = tuple(sum(count for name, _, _, count in told if name == one) for one in names)
        if trace.live and all(missing != totals for _, missing in states):
            raise Violation("dropped", f"{record} was told of {totals} {names}, and it was {states}")

    @staticmethod
    def _told(trace: Trace, arrived: list[int]) -> Iterator[tuple[str, int, int, int]]:
        """Each marker: the event, the moments of the events that arrived before and after it, and the count."""
        position = 0
        for one in trace.arrived:
            if one.what == "event":
                position += 1
            elif one.what == "dropped":
                after = arrived[position - 1] if position else -1
                yield one.name, after, arrived[position] if position < len(arrived) else NEVER, one.number

    def _windows(self, record: Record, trace: Trace) -> Iterator[tuple[Sent, int, int]]:
        """Each subscription and each end of one: the moments from which, and at which, it must be in force."""
        for index, sent in enumerate([*trace.first, *record.sent[trace.start :]], trace.start - len(trace.first)):
            if sent.call >= 0 or sent.refused:
                continue
            calls = [(at, self._began(trace, other)) for at, other in enumerate(record.sent) if other.call >= 0]
            earlier = max((moment + 1 for at, moment in calls if at < index and moment < NEVER), default=0)
            later = min((moment for at, moment in calls if at > index), default=NEVER)
            first = max(sent.moment, earlier)
            if sent.hidden_after is not None:
                first = self.emitted.get(sent.hidden_after, -1) + 1
            yield sent, first, max(first, min(later, sent.settled))

    def _began(self, trace: Trace, sent: Sent) -> int:
        moment = self.begun.get(sent.call, NEVER)
        mark = self.journal[moment] if moment < NEVER else None
        return moment if isinstance(mark, Mark) and mark.conn == trace.conn else NEVER

    @staticmethod
    def _advance(
        changes: list[tuple[Sent, int, int]], state: tuple[int, tuple[int, ...]], moment: int
    ) -> Iterator[tuple[int, tuple[int, ...]]]:
        """The states that this one may have become by a moment: how many changes are in force, and what was dropped."""
        done, missing = state
        while True:
            if done == len(changes) or changes[done][2] > moment:
                yield done, missing
            if done == len(changes) or changes[done][1] > moment:
                return
            done += 1

    @staticmethod
    def _is_subscribed(changes: list[tuple[Sent, int, int]], event: str) -> bool:
        return next((sent.wanted for sent, _, _ in reversed(changes) if sent.event == event), False)
