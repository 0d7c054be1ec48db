"""Whether what clients saw is what the delivery contract promises, given what their actors did."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias, cast

import attrs
import trio

from trivet.testing.recording import Journal
from trivet.testing.records import (
    NEVER,
    Arrived,
    Called,
    Emitted,
    SentCall,
    Subscription,
    Trace,
    Watched,
    events_by_actor,
)

RULES: Final = {
    "order": "a connection sees its events in the order in which the actor emitted them",
    "once": "each at most once",
    "stray": "and none that was not meant for it",
    "cause": "the response to an action comes after every event that the action emitted before it returned",
    "sync": "and sync() returns after every event that the actor emitted before it was called",
    "subscribe": "a subscription is in force before any later message of the same connection is handled",
    "unsubscribed": "and ended before any later message once it was given up",
    "lost": "while a connection lives nothing that it should see is left out without its being told",
    "gap": "a connection whose session was lost is told so before the events of the next",
    "on_disconnect": "runs once for each connection that was admitted and has left",
    "answers": "each call is answered once",
    "start order": "calls of one connection start in the order of sending",
    "turns": "serial actions and hooks of one actor run one at a time",
}
"""What is verified, by the name that a Violation has for it."""

# Errors of calls that the actor never began.
_NEVER_STARTED: Final = {
    ("actor", code)
    for code in ("overloaded", "stopping", "deadlock", "action_not_found", "validation_error", "aborted")
} | {("message", "incoming_too_long")}


class Violation(AssertionError):
    """The delivery contract does not hold. `rule` is a name of `RULES`; `moment` orders violations in time."""

    def __init__(self, rule: str, message: str, moment: int) -> None:
        super().__init__(f"{rule}: {message}\n({RULES[rule]})")
        self.rule = rule
        self.moment = moment


@attrs.frozen
class _Change:
    """A subscription or its end, and the moments from which, and at which, it must be in force."""

    subscription: Subscription
    first: int
    last: int
    by_call: bool
    """The last moment is when a later call began."""


_Owed: TypeAlias = tuple[tuple[str, int, bool], ...]
"""By name, how many events were told to be dropped and are still to be found, and whether the next one has to be."""
_State: TypeAlias = tuple[int, int, _Owed]
"""How many changes are in force, how much of what arrived is explained, and what is owed."""


class DeliveryChecker:
    """Verifies what happened in a world against the delivery contract. `World.check_delivery()` makes it.

    It knows what the actors emitted and to whom, what each client sent, and what arrived there; nothing else. What it
    does not know, for instance when exactly a subscription came into force, it takes as it must have been for all to be
    right: it raises only when no course of events explains what was seen.

    What is missing at the end of a connection that has ended is no loss, for its client was told of the end. To have
    everything up to some point verified, call `settle` and then `verify` while the connections live.
    """

    def __init__(self, journal: Journal, is_quiet: Callable[[], bool], *, real: bool = False) -> None:
        self._journal = journal
        self._is_quiet = is_quiet
        self._real = real
        self._settled: list[int] = []

    @property
    def events_seen(self) -> int:
        """How many events have arrived at all connections together: that a test is about something."""
        return sum(
            one.event is not None for watched in self._journal.watched for t in watched.traces for one in t.arrived
        )

    async def settle(self, patience: float = 60.0) -> None:
        """Wait until nothing is on its way: no byte, no unanswered call, no running action or hook.

        Connections on a link that does not let anything through are not waited for. Raises trio.TooSlowError, which
        says what is going on, after `patience` seconds, virtual ones where the clock is; Violation where a client waits
        for an answer that nothing can bring any more.
        """
        step = 0.01
        try:
            with trio.fail_after(patience):
                quiet = 0
                while quiet < 2:
                    # Under a clock that jumps, a sleep ends when every other task waits, so no pause can be too short.
                    await trio.sleep(step)
                    quiet = quiet + 1 if self._is_quiet() else 0
                    step = min(step * 1.5, 0.1 if self._real else 1.0)
        except trio.TooSlowError:
            self._look_for_unanswered()
            going_on = "; ".join(self._journal.unfinished) or "something is on its way"
            raise trio.TooSlowError(f"after {patience:g} s the world is not quiet: {going_on}") from None
        self._settled.append(self._journal.now)

    def _look_for_unanswered(self) -> None:
        self._journal.answers_count = False
        try:
            quiet = self._is_quiet()
        finally:
            self._journal.answers_count = True
        for watched in self._journal.watched if quiet else ():
            for violation in self._judge_unanswered(watched):
                raise violation

    def verify(self, *, over: bool = False) -> None:
        """Raise the earliest Violation, if there is one. `over`: no actor lives any more.

        Right after `settle`, what has not arrived at a connection that lives is lost.
        """
        settled = bool(self._settled) and self._settled[-1] == self._journal.now
        found = sorted(self._violations(settled=settled or over, over=over), key=lambda violation: violation.moment)
        if found:
            raise found[0]

    def _violations(self, *, settled: bool, over: bool) -> Iterator[Violation]:
        emitted = events_by_actor(self._journal.entries)
        yield from _judge_turns(self._journal)
        for watched in self._journal.watched:
            starts, unsent = _match_calls(self._journal, watched)
            if unsent is not None:
                yield unsent
            for call in watched.calls:
                if call.answers > 1:
                    yield Violation("answers", f"{watched.name} got {call.answers} answers to {call}", call.moment)
            for trace in watched.traces:
                complete = settled and not over and trace.ended is None and trace.conn not in self._journal.impaired
                judge = _TraceJudge(trace, watched, starts, emitted.get(trace.actor, []), self._settled, complete)
                yield from judge.violations()
                yield from self._judge_disconnect(trace, settled=settled, over=over)

    def _judge_unanswered(self, watched: Watched) -> Iterator[Violation]:
        """Calls that have returned to a client that is still waiting for them, though nothing is on its way."""
        starts, _ = _match_calls(self._journal, watched)
        live = watched.live
        if live is None or live.conn in self._journal.impaired:
            return
        for call, began in starts.items():
            if began.conn == live.conn and began.returned != NEVER and not call.answers and not call.given_up:
                yield Violation("answers", f"{watched.name} never got an answer to {call}", began.returned)

    def _judge_disconnect(self, trace: Trace, *, settled: bool, over: bool) -> Iterator[Violation]:
        journal = self._journal
        if not journal.has_hook(trace.actor, "on_disconnect"):
            return
        ran = [e for e in _begun(journal) if e.what == "on_disconnect" and e.conn == trace.conn]
        if len(ran) > 1:
            yield Violation("on_disconnect", f"ran {len(ran)} times for {trace.name}", ran[1].moment)
        began = next((e.moment for e in journal.entries if e.actor == trace.actor), 0)
        crashed = any(moment >= began for moment in journal.crashes)
        if not ran and over and not crashed and not journal.slept_to_the_end(trace.actor, trace.ended):
            yield Violation("on_disconnect", f"never ran for {trace.name}, which has left", journal.now)
        if ran and trace.ended is None and settled and not over and trace.conn not in journal.impaired:
            yield Violation("on_disconnect", f"ran for {trace.name}, which is connected", ran[0].moment)


def _begun(journal: Journal) -> Iterator[Called]:
    for moment, entry in enumerate(journal.entries):
        if isinstance(entry, Called) and entry.moment == moment:
            yield entry


def _judge_turns(journal: Journal) -> Iterator[Violation]:
    inside: dict[str, Called] = {}
    for moment, entry in enumerate(journal.entries):
        if not isinstance(entry, Called) or not entry.serial:
            continue
        other = inside.get(entry.actor)
        if entry.moment == moment:
            if other is not None:
                yield Violation("turns", f"{entry} began while {other} was running", moment)
            inside[entry.actor] = entry
        elif other is entry:
            del inside[entry.actor]


def _match_calls(journal: Journal, watched: Watched) -> tuple[dict[SentCall, Called], Violation | None]:
    """Which calls of a client are which of the actor, up to the first that did not start in the order of sending."""
    conns = {trace.conn: index for index, trace in enumerate(watched.traces)}
    begun = [e for e in _begun(journal) if e.what == "action" and e.conn in conns]
    begun.sort(key=lambda called: conns[cast("str", called.conn)])  # in each connection they stay as they began
    sent = [
        call for call in watched.calls if not (call.error and (call.error.group, call.error.code) in _NEVER_STARTED)
    ]
    starts: dict[SentCall, Called] = {}
    position = 0
    for called in begun:
        at = next((i for i in range(position, len(sent)) if _is_same(sent[i], called)), None)
        if at is None:
            return starts, _unsent(watched, called, starts, sent)
        starts[sent[at]] = called
        position = at + 1
    return starts, None


def _is_same(sent: SentCall, called: Called) -> bool:
    if sent.name != called.name:
        return False
    return called.args is None or called.args[: len(sent.args)] == sent.args[: len(called.args)]


def _unsent(watched: Watched, called: Called, starts: dict[SentCall, Called], sent: list[SentCall]) -> Violation:
    before = [call for call in sent if _is_same(call, called)]
    if not before:
        return Violation("start order", f"{called} ran for {watched.name}, which had not called it", called.moment)
    if before[-1] in starts:
        message = f"{called} ran again for {watched.name}, or after a later call of it"
    else:
        later = max(starts.values(), key=lambda other: other.moment)
        message = f"{called} of {watched.name} began after {later}, which it had sent later"
    return Violation("start order", message, called.moment)


class _TraceJudge:
    """What arrived at one connection, against what its actor emitted."""

    def __init__(
        self,
        trace: Trace,
        watched: Watched,
        starts: dict[SentCall, Called],
        emitted: Sequence[Emitted],
        settled: Sequence[int],
        complete: bool,
    ) -> None:
        self._trace = trace
        self._name = trace.name
        self._emitted = emitted
        self._complete = complete
        self._starts = starts
        self._arrived = trace.arrived
        self._changes = self._windows(watched, settled)
        self._by_key: dict[tuple[str, bytes], list[Emitted]] = {}
        for event in emitted:
            self._by_key.setdefault((event.event, event.key), []).append(event)

    def violations(self) -> Iterator[Violation]:
        yield from self._look_for_gaps()
        plain = list(self._look_for_strangers())
        yield from plain
        if not plain:
            yield from self._explain()

    # -- what needs no explanation ------------------------------------------------------------------------------------

    def _look_for_gaps(self) -> Iterator[Violation]:
        for name in sorted(self._trace.missed):
            places = [index for index, one in enumerate(self._arrived) if one.event == name or name in one.gap]
            if not places or not self._arrived[places[0]].gap:
                message = f"connection {self._name} was not told that {name} may be missing: its session was lost"
                yield Violation("gap", message, self._trace.subscribed_first[0].moment)

    def _look_for_strangers(self) -> Iterator[Violation]:
        """What arrived though it was never emitted, or not to this connection, or too often, or in the wrong order."""
        seen: Counter[tuple[str, bytes]] = Counter()
        latest: Emitted | None = None
        for arrived in self._arrived:
            if arrived.event is None:
                continue
            key = (arrived.event, arrived.key)
            same = self._by_key.get(key, [])
            seen[key] += 1
            if not same:
                payload = ", ".join(map(repr, arrived.values))
                yield self._violation("stray", f"saw {arrived.event} ({payload}), which was never emitted", arrived)
            elif seen[key] > len(same):
                often = "twice" if len(same) == 1 else f"{seen[key]} times, and it was emitted {len(same)} times"
                yield self._violation("once", f"saw {same[-1]} {often}", arrived)
            elif len(same) == 1:
                event = same[0]
                if not self._is_meant(event):
                    yield self._violation("stray", f"saw {event}, which was not meant for it", arrived)
                if latest is not None and event.number < latest.number:
                    yield self._violation("order", f"saw {latest} before {event}", arrived)
                latest = event

    def _is_meant(self, event: Emitted) -> bool:
        conn = self._trace.conn
        return event.only == conn or (event.only is None and (conn in event.to or conn in event.perhaps))

    def _violation(self, rule: str, message: str, at: Arrived | Emitted) -> Violation:
        return Violation(rule, f"connection {self._name} {message}", at.moment)

    # -- what does ----------------------------------------------------------------------------------------------------

    def _windows(self, watched: Watched, settled: Sequence[int]) -> list[_Change]:
        conn = self._trace.conn
        began = [
            (index, self._starts[sent].moment)
            for index, sent in enumerate(watched.sent)
            if isinstance(sent, SentCall) and sent in self._starts and self._starts[sent].conn == conn
        ]
        changes = [(-1, sub) for sub in self._trace.subscribed_first if not sub.refused]
        changes += [
            (index, sent)
            for index, sent in enumerate(watched.sent)
            if isinstance(sent, Subscription) and not sent.refused and sent.trace is self._trace
        ]
        found: list[_Change] = []
        for index, subscription in changes:
            earlier = max((moment + 1 for at, moment in began if at < index), default=0)
            later = min((moment for at, moment in began if at > index), default=NEVER)
            calm = min((moment for moment in settled if moment > subscription.moment), default=NEVER)
            # Where nothing happened since, the settled moment is that of the subscription itself.
            calm = min([calm, *(moment for moment in settled if moment == subscription.moment and later > moment)])
            first_moment = max(subscription.moment, earlier)
            found.append(_Change(subscription, first_moment, max(first_moment, min(later, calm)), later <= calm))
        return found

    def _explain(self) -> Iterator[Violation]:
        """Find a course of subscriptions that explains all that arrived and all that did not."""
        states: set[_State] = {(0, 0, ())}
        for event in self._emitted:
            states = {further for state in states for further in self._advance(state, event.moment)}
            before = states
            states = set()
            for state in before:
                outcome = self._step(state, event)
                if outcome is None:
                    return
                states |= outcome
            if not states:
                yield self._diagnose(event, before)
                return
        ends = {self._pass_answers(state, NEVER) for state in states}
        if not any(position == len(self._arrived) and not owed for _, position, owed in ends):
            _, position, owed = max(ends, key=lambda state: state[1])
            if position < len(self._arrived):
                arrived = self._arrived[position]
                yield self._unsubscribed(arrived)
            elif self._complete:
                names = ", ".join(f"{count} {event}" for event, count, _ in owed)
                at = self._arrived[-1]
                yield self._violation("lost", f"was told that {names} were dropped, and they were not", at)

    def _advance(self, state: _State, moment: int) -> Iterator[_State]:
        """The states that this one may have become by a moment."""
        done, position, owed = state
        while True:
            if done == len(self._changes) or self._changes[done].last > moment:
                yield self._pass_answers((done, position, owed), moment)
            if done == len(self._changes) or self._changes[done].first > moment:
                return
            done += 1

    def _pass_answers(self, state: _State, moment: int) -> _State:
        done, position, owed = state
        while position < len(self._arrived):
            arrived = self._arrived[position]
            if arrived.dropped is not None:
                owed = _owe(owed, *arrived.dropped)
            elif arrived.event is not None or self._earliest(arrived) > moment:
                break
            position += 1
        return done, position, owed

    def _earliest(self, arrived: Arrived) -> int:
        """The moment before which whatever was emitted comes before this answer."""
        if arrived.synced is not None:
            return arrived.synced
        called = None if arrived.call is None else self._starts.get(arrived.call)
        return -1 if called is None or called.returned == NEVER else called.returned

    def _step(self, state: _State, event: Emitted) -> set[_State] | None:
        """The states after an event; None where the connection has ended, and all that arrived is explained."""
        done, position, owed = state
        found: set[_State] = set()
        expected = self._expects(done, event)
        missing = next(((count, now) for name, count, now in owed if name == event.event), None)
        if expected is not True:
            found.add(state)
        if expected is not False:
            if position == len(self._arrived):
                if not self._complete:
                    return None
            else:
                arrived = self._arrived[position]
                due = missing is not None and missing[1]
                if not due and (arrived.event, arrived.key) == (event.event, event.key):
                    found.add((done, position + 1, owed))
            if missing is not None:
                rest = tuple(one for one in owed if one[0] != event.event)
                left = missing[0] - 1
                found.add((done, position, tuple(sorted((*rest, (event.event, left, False)))) if left else rest))
        return found

    def _expects(self, done: int, event: Emitted) -> bool | None:
        if event.only is not None:
            return event.only == self._trace.conn
        if not self._is_meant(event) or not self._is_subscribed(done, event.event):
            return False
        return True if self._trace.conn in event.to else None

    def _is_subscribed(self, done: int, name: str) -> bool:
        changes = (change.subscription for change in reversed(self._changes[:done]))
        return next((change.wanted for change in changes if change.event == name), False)

    def _told_of(self, arrived: Arrived) -> bool:
        """Whether events of its name were told to be dropped before."""
        earlier = self._arrived[: self._arrived.index(arrived)]
        return any(one.dropped is not None and one.dropped[0] == arrived.event for one in earlier)

    def _unsubscribed(self, arrived: Arrived) -> Violation:
        event = self._by_key[arrived.event or "", arrived.key][0]
        return self._violation("unsubscribed", f"saw {event.text}, and was not subscribed to it", arrived)

    def _diagnose(self, event: Emitted, before: set[_State]) -> Violation:
        """Why no state is left after an event."""
        rest = self._arrived[min(position for _, position, _ in before) :]
        arrived = next((one for one in rest if (one.event, one.key) == (event.event, event.key)), None)
        expected = any(self._expects(done, event) is not False for done, _, _ in before)
        blocking = rest[0] if rest else None
        older = self._by_key.get((blocking.event or "", blocking.key)) if blocking is not None else None
        if blocking is not None and older and older[0].number < event.number and self._told_of(blocking):
            return self._violation("lost", f"was told that {older[0]} was dropped, and saw it after that", blocking)
        if expected and arrived is not None and blocking is not None:
            if blocking.call is not None:
                return self._violation("cause", f"got the answer to {blocking.call} before {event}", arrived)
            if blocking.synced is not None:
                return self._violation("sync", f"got the answer to sync() before {event}", arrived)
            if older and older[0].number < event.number:
                return self._unsubscribed(blocking)
            return self._violation("order", f"saw {older[0] if older else event} before {event}", arrived)
        changes = [change for change in self._changes if change.subscription.event == event.event]
        by_call = [change for change in changes if change.subscription.wanted and change.last <= event.moment]
        keys = {one.key for one in self._emitted if one.event == event.event and one.number < event.number}
        explained = any(one.event == event.event and one.key in keys for one in self._arrived)
        if event.only is None and by_call and by_call[-1].by_call and not explained:
            message = f"never saw {event.text}, though it had subscribed and then called"
            return self._violation("subscribe", message, event)
        return self._violation("lost", f"never saw {event.text}", event)


def _owe(owed: _Owed, event: str, count: int) -> _Owed:
    before = sum(old for name, old, _ in owed if name == event)
    return tuple(sorted((*(one for one in owed if one[0] != event), (event, before + count, True))))
