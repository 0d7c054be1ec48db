"""Whatever peers send, a server answers what it should, forgets it, and others notice nothing."""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from random import Random

import attrs

from tests.faults.support import TEXT, action_request, client_frame, subscription
from tests.fuzz.grammar import Attack, Upgrade, events_attacks, http_attacks, raw_attacks
from tests.fuzz.search import search, without_one
from tests.fuzz.world import LIMITS, besiege

CONNECT = Upgrade(
    "/gateway/room/connect?rvt-namespace=default&rvt-method=getOrCreate&rvt-runner=default&rvt-key=k",
    ["rivet", "rivet_encoding.json"],
)


@attrs.frozen
class Plan:
    """What is the same for all attacks of one attempt."""

    together: bool
    schedule: int


def attempt(parts: Sequence[Attack | Plan]) -> Iterable[str]:
    plan = next((part for part in parts if isinstance(part, Plan)), Plan(together=False, schedule=0))
    outcomes: Counter[str] = Counter()
    attacks = [part for part in parts if isinstance(part, Attack)]
    besiege(attacks, together=plan.together, outcomes=outcomes, schedule=plan.schedule)
    return outcomes.elements()


def smaller(part: Attack | Plan) -> Generator[Attack | Plan]:
    if isinstance(part, Attack):
        for steps in without_one(part.steps):
            yield attrs.evolve(part, steps=steps)


def planned(draw: Callable[[Random], Sequence[Attack]]) -> Callable[[Random], Sequence[Attack | Plan]]:
    return lambda r: [*draw(r), Plan(r.random() < 0.5, r.randrange(1 << 32))]


def test_http_requests() -> None:
    seen = search("http", 100, planned(http_attacks), attempt, smaller)
    # That the search comes to where requests end, good or bad; what it may not see every time is not named here.
    wanted = "200 204 400 403 404 405 408 413 501"
    assert {f"status {status}" for status in wanted.split()} <= seen.keys()
    assert len([outcome for outcome in seen if outcome.startswith("error ")]) >= 12
    assert seen["status 200"] >= 50


def test_events_connections() -> None:
    seen = search("events", 140, planned(events_attacks), attempt, smaller)
    assert {"message Init", "message ActionResponse", "message Event", "close 1000 kicked"} <= seen.keys()
    for name in ("session", "resumed", "ack", "subscribed", "refused", "synced"):
        assert f"extension {name}" in seen
    for code in ("action_not_found", "validation_error", "my_code", "overloaded", "action_timed_out", "refused"):
        assert f"message Error {code}" in seen
    for code in ("actor.invalid_request", "message.incoming_too_long", "auth.forbidden"):
        assert f"close 1011 {code}" in seen
    assert len(seen) >= 35


def test_raw_websockets() -> None:
    seen = search("raw", 40, planned(raw_attacks), attempt, smaller)
    assert {"raw message", "close 4001 bye", "close 1009 message.incoming_too_long"} <= seen.keys()
    assert len([outcome for outcome in seen if outcome.startswith("close 1002")]) >= 3
    assert len(seen) >= 15


# -- what it has found ------------------------------------------------------------------------------------------------


def call(name: str, *args: object) -> bytes:
    return client_frame(TEXT, action_request(1, name, args))


def test_calls_that_wait_for_an_admission_do_not_count_after_a_hang_up() -> None:
    besiege([Attack(CONNECT, [call("echo", "hi")], "abort")], together=False, outcomes=Counter(), schedule=0)
    for schedule in range(20):
        left = client_frame(8, b"\x03\xe8")
        besiege([Attack(CONNECT, [call("echo", "hi") + left])], False, Counter(), schedule)


def test_calls_that_wait_for_something_do_not_count_after_the_end_of_their_connection() -> None:
    waiting = client_frame(TEXT, subscription("slow")) + call("echo", "hi")
    for sent, end in (
        (waiting + client_frame(TEXT, b"{"), "close 1011 actor.invalid_request"),
        (call("kickMe") + waiting, "close 1000 kicked"),
    ):
        outcomes: Counter[str] = Counter()
        besiege([Attack(CONNECT, [0.1, sent])], False, outcomes)
        assert outcomes[end] == 1, outcomes


def test_a_call_that_finds_the_queue_full_does_not_count() -> None:
    full = client_frame(TEXT, subscription("slow")) + client_frame(TEXT, subscription("filled")) * LIMITS.inbox
    outcomes: Counter[str] = Counter()
    besiege([Attack(CONNECT, [0.1, full + call("echo", "hi")])], False, outcomes)
    assert outcomes["close 1011 actor.overloaded"] == 1
