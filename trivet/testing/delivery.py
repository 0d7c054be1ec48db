"""Whether what clients saw is what the delivery contract promises, given what their actors did."""

from collections.abc import Callable, Iterator
from typing import Final, cast

import trio

from trivet.testing.arrivals import TraceJudge
from trivet.testing.recording import Journal
from trivet.testing.records import NEVER, Called, SentCall, Trace, Watched, events_by_actor
from trivet.testing.rules import Violation

# Errors of calls that the actor never began.
_NEVER_STARTED: Final = {
    ("actor", code)
    for code in ("overloaded", "stopping", "deadlock", "action_not_found", "validation_error", "aborted")
} | {("message", "incoming_too_long")}


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
                judge = TraceJudge(trace, watched, starts, emitted.get(trace.actor, []), self._settled, complete)
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
