"""What each connection must see: the delivery contract as a function of what the actor did and what its clients sent.

The actor keeps a journal. The index of an entry in it is its moment; the emits among them are the actor's one order of
events. A client keeps a trace of what it sent, each with the moment of sending, and of what arrived. Nothing else is
known to the model: in particular not when the runtime put a subscription in force, which happens at some moment of a
window. A trace is right when one moment in each window explains all that arrived and all that did not.
"""

from collections.abc import Callable
from typing import Final, Literal, TypeAlias

import attrs

NEVER: Final = 1 << 30


What: TypeAlias = Literal["connect", "admitted", "refused", "call", "return", "kick", "disconnect", "disconnected"]


class Violation(AssertionError):
    """The contract does not hold; `rule` says which part of it."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(f"{rule}: {message}")
        self.rule = rule


@attrs.define
class Emit:
    """One event. `event` is the name of a broadcast; what is sent to one connection needs no subscription."""

    event: str | None
    to: frozenset[int]
    """The connections in the actor's sight that it was meant for, before their subscriptions are looked at."""
    conns: frozenset[int]
    """The connections in the actor's sight."""
    count: int = 0
    """How many recipients the actor was told of."""


@attrs.frozen
class Mark:
    """A call began or returned; a hook of a connection did; a connection was kicked."""

    what: What
    conn: int
    call: int = -1
    serial: bool = True


Arrival: TypeAlias = tuple[Literal["init", "event", "answer", "error", "close"], int]
Entry: TypeAlias = Emit | Mark
ENTERS: Final = ("connect", "call", "disconnect")
LEAVES: Final = ("admitted", "refused", "return", "disconnected")


@attrs.define
class Sent:
    """A call, or a subscription to `event` or its end. `slow`: a hook decides, so that it takes its time."""

    moment: int
    call: int = -1
    event: str = ""
    subscribe: bool = False
    slow: bool = False
    settled: int = NEVER
    """A moment at which everything that could have happened had happened."""


@attrs.define
class Trace:
    """One connection as its client knows it."""

    label: int
    sent: list[Sent] = attrs.field(factory=list[Sent])
    arrived: list[Arrival] = attrs.field(factory=list["Arrival"])
    """The number is an event's moment, an answer's call, or a close frame's code."""
    left: tuple[int, int] = (NEVER, NEVER)
    """The window in which the client left, if it did."""
    refused: bool = False
    """It asked for a subscription that it is not given."""
    cut: bool = False
    """Its end came before all had arrived that was on its way, for which the client was to blame."""

    def settle(self, moment: int) -> None:
        """Nothing is on its way at this moment."""
        for sent in self.sent:
            sent.settled = min(sent.settled, moment)
        if self.left[0] < NEVER:
            self.left = (self.left[0], min(self.left[1], moment))

    def events(self) -> list[int]:
        return [number for what, number in self.arrived if what == "event"]


class Model:
    """Judges traces by a journal."""

    def __init__(self, journal: list[Entry]) -> None:
        self.journal = journal
        self._moments = {(entry.what, entry.conn, entry.call): i for i, entry in reversed(self._marks())}

    def _marks(self) -> list[tuple[int, Mark]]:
        return [(i, entry) for i, entry in enumerate(self.journal) if isinstance(entry, Mark)]

    def moment(self, what: What, conn: int, call: int = -1) -> int:
        return self._moments.get((what, conn, call), NEVER)

    def judge(self, traces: list[Trace]) -> None:
        """Raise Violation unless everything is as it must be once nothing is on its way any more."""
        self.judge_turns()
        for trace in traces:
            self.judge_arrivals(trace)
            self.judge_calls(trace)
            self.judge_life(trace)
            self.judge_events(trace)
        self.judge_counts(traces)

    def judge_turns(self) -> None:
        """Serial actions and hooks never overlap, and each connection's calls start in the order of sending."""
        inside: Mark | None = None
        latest: dict[int, int] = {}
        for _, mark in self._marks():
            if mark.serial and mark.what in ENTERS:
                if inside is not None:
                    raise Violation("turns", f"{mark} inside {inside}")
                inside = mark
            elif mark.serial and mark.what in LEAVES:
                inside = None
            if mark.what == "call":
                if mark.call <= latest.get(mark.conn, -1):
                    raise Violation("start order", f"{mark} after call {latest[mark.conn]}")
                latest[mark.conn] = mark.call

    def judge_arrivals(self, trace: Trace) -> None:
        """Init first, events in the actor's order and at most once, an answer after the events of its call."""
        newest, answered, init = -1, set[int](), False
        seen = set[int]()
        for what, number in trace.arrived:
            if what == "event":
                entry = self.journal[number]
                if number in seen:
                    raise Violation("once", f"event {number} came twice to {trace}")
                if any(number < self._returned(trace, call) for call in answered):
                    raise Violation("cause", f"event {number} came after the answer of a call behind it to {trace}")
                if number < newest:
                    raise Violation("order", f"event {number} came after {newest} to {trace}")
                if not init and not (isinstance(entry, Emit) and entry.event is None):
                    raise Violation("init", f"broadcast {number} came before Init to {trace}")
                newest = number
                seen.add(number)
            elif what in ("answer", "error"):
                if number in answered or not init or number not in {sent.call for sent in trace.sent}:
                    raise Violation("answers", f"an answer of call {number} that nothing asked for came to {trace}")
                answered.add(number)
            elif what == "init":
                if init:
                    raise Violation("init", f"twice to {trace}")
                init = True

    def _returned(self, trace: Trace, call: int) -> int:
        return self.moment("return", trace.label, call)

    def judge_calls(self, trace: Trace) -> None:
        """Nothing that was sent is lost: every call of a connection that lives starts and is answered."""
        first, _ = self.end(trace)
        answers = {number for what, number in trace.arrived if what in ("answer", "error")}
        dropped = trace.refused or self.moment("kick", trace.label) < NEVER
        waits = trace.left[0] < NEVER and any(sent.slow for sent in trace.sent)
        for sent in trace.sent:
            if sent.call < 0:
                continue
            started = self.moment("call", trace.label, sent.call)
            if started == NEVER and not dropped and not waits and self.moment("admitted", trace.label) < trace.left[0]:
                raise Violation("calls", f"call {sent.call} never started: {trace}")
            if sent.call not in answers and not trace.cut and self._returned(trace, sent.call) < first:
                raise Violation("answers", f"call {sent.call} was never answered: {trace}")

    def end(self, trace: Trace) -> tuple[int, int]:
        """The window in which the connection leaves the actor."""
        kicked, refused = self.moment("kick", trace.label), self.moment("refused", trace.label)
        ends = [trace.left, (kicked, kicked + 1), (refused, refused + 1)]
        ends += [window for sent, window in self.windows(trace) if sent.event == "forbidden"]
        return min(first for first, _ in ends), min(last for _, last in ends)

    def judge_life(self, trace: Trace) -> None:
        """In `conns` from `on_connect` to the end; then, if `on_connect` had run, `on_disconnect`; told of its end."""
        label, (first, last) = trace.label, self.end(trace)
        connect, admitted = self.moment("connect", label), self.moment("admitted", label)
        gone = NEVER
        for i, entry in enumerate(self.journal):
            if not isinstance(entry, Emit) or i <= connect:
                continue
            if label in entry.conns and gone < NEVER:
                raise Violation("conns", f"{trace} came back at {i}")
            if label not in entry.conns:
                gone = min(gone, i)
                if i < first:
                    raise Violation("conns", f"{trace} lives, and is not among the connections at {i}")
            elif i >= last:
                raise Violation("conns", f"{trace} has ended, and is among the connections at {i}")
        hooks = sum(mark.what == "disconnect" and mark.conn == label for _, mark in self._marks())
        if hooks != (admitted < NEVER and first < NEVER):
            raise Violation("on_disconnect", f"ran {hooks} times for {trace}")
        closes = [code for what, code in trace.arrived if what == "close"]
        if not trace.cut and admitted < first and ("init", 0) not in trace.arrived:
            raise Violation("init", f"never came to {trace}")
        kicked_or_left = min(trace.left[0], self.moment("kick", label)) < NEVER
        codes = [1000] * kicked_or_left + [1011] * (trace.refused or self.moment("refused", label) < NEVER)
        if not trace.cut and (len(closes) != (first < NEVER) or not set(closes) <= set(codes)):
            raise Violation("end", f"{closes or 'no end'} came to {trace}")

    def windows(self, trace: Trace) -> list[tuple[Sent, tuple[int, int]]]:
        """For each subscription and each end of one: the moments from which, and at which, it must be in force."""
        found: list[tuple[Sent, tuple[int, int]]] = []
        # When the messages before this one may, and must, have been handled: an action when it has begun.
        may = must = self.moment("admitted", trace.label)
        for index, sent in enumerate(trace.sent):
            if sent.call >= 0:
                began = self.moment("call", trace.label, sent.call)
                may, must = max(may, began), max(must, began)
                continue
            later = (self.moment("call", trace.label, other.call) for other in trace.sent[index:] if other.call >= 0)
            first = max(sent.moment, min(may + 1, NEVER))
            last = sent.moment if must < sent.moment and not sent.slow else max(first, min(sent.settled, *later, NEVER))
            found.append((sent, (first, last)))
            may, must = max(may, first - 1), max(must, last)
        return found

    def judge_events(self, trace: Trace) -> None:
        """What arrived is what was to arrive: for each subscription some one moment in its window explains it."""
        arrived = set(trace.events())
        changes = [(sent, window) for sent, window in self.windows(trace) if sent.event != "forbidden"]
        until = len(self.journal) if not trace.cut else max(arrived, default=-1) + 1
        possible: set[int] = {0}  # how many of the changes may be in force
        for i, entry in enumerate(self.journal[:until]):
            for done in range(len(changes)):
                if done in possible and changes[done][1][0] <= i:
                    possible.add(done + 1)
            possible = {done for done in possible if done == len(changes) or changes[done][1][1] > i}
            if not isinstance(entry, Emit):
                continue
            here = i in arrived
            if entry.event is None or trace.label not in entry.to:
                if here != (trace.label in entry.to):
                    raise Violation("lost" if not here else "stray", f"event {i}, {entry}, and {trace}")
                continue
            subscribed = self._subscribed(changes, entry.event)
            explained = {done for done in possible if subscribed(done) == here}
            if not explained:
                raise Violation("lost" if not here else "unsubscribed", f"event {i}, {entry}, and {trace}")
            possible = explained

    @staticmethod
    def _subscribed(changes: list[tuple[Sent, tuple[int, int]]], event: str) -> Callable[[int], bool]:
        def subscribed(done: int) -> bool:
            return next((sent.subscribe for sent, _ in reversed(changes[:done]) if sent.event == event), False)

        return subscribed

    def judge_counts(self, traces: list[Trace]) -> None:
        """The actor was told of as many recipients as there were."""
        seen = [set(trace.events()) for trace in traces]
        for i, entry in enumerate(self.journal):
            if isinstance(entry, Emit):
                least = sum(i in events for events in seen)
                unsure = sum(
                    trace.cut and trace.label in entry.to and i not in events
                    for trace, events in zip(traces, seen, strict=True)
                )
                if not least <= entry.count <= least + unsure:
                    raise Violation("count", f"event {i} went to {least}, and the actor was told {entry.count}")
