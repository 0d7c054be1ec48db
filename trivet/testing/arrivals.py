"""Whether what arrived at one connection, and what did not, follows from what its actor emitted."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import attrs

from trivet.testing.records import NEVER, Arrived, Called, Emitted, SentCall, Subscription, Trace, Watched
from trivet.testing.rules import Violation


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


class TraceJudge:
    """What arrived at one connection, against what its actor emitted.

    `starts` are the calls of its client that the actor began, `settled` the moments at which nothing was on its way.
    `complete`: the last of them is now, so that what has not arrived is lost.
    """

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
        """What no course of events explains."""
        yield from self._look_for_gaps()
        plain = list(self._look_for_strangers())
        yield from plain
        if not plain:
            yield from self._explain()

    # -- whatever it subscribed to ------------------------------------------------------------------------------------

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

    # -- given what it subscribed to ----------------------------------------------------------------------------------

    def _windows(self, watched: Watched, settled: Sequence[int]) -> list[_Change]:
        """The changes of its subscriptions, in the order of asking: calls before and after them say when they held."""
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
            asked = subscription.moment
            # Where nothing happened since, the settled moment is that of the subscription itself.
            calm = min((moment for moment in settled if moment > asked or moment == asked < later), default=NEVER)
            first = max(asked, earlier)
            found.append(_Change(subscription, first, max(first, min(later, calm)), later <= calm))
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
        """Whether an event is for this connection with so many changes in force. None: it may be, or not."""
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
