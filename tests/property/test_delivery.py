"""Nothing that clients and the actor may do, in whatever order, breaks the delivery contract."""

from collections import Counter

import trio
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.property.delivery import DeliveryMachine, Newcomer

TestDelivery = DeliveryMachine.TestCase

HAPPENINGS = (
    "rule: call",
    "rule: close",
    "rule: connect",
    "rule: emit in background",
    "rule: hold",
    "rule: leave",
    "rule: let all happen",
    "rule: let time pass",
    "rule: send several",
    "rule: subscribe",
    "rule: unsubscribe",
    "call that outlived its connection",
    "close with calls waiting",
    "event to several",
    "kick with calls waiting",
    "leave with calls waiting",
    "overlapping calls",
    "partial write",
    "unsubscribe behind a call",
)


def test_the_search_comes_to_what_is_interesting() -> None:
    examples = Counter[str]()

    class Counting(DeliveryMachine):
        def teardown(self) -> None:
            super().teardown()
            examples.update(what for what, times in self.occurred.items() if times)

    search = settings(max_examples=60, stateful_step_count=40, derandomize=True, database=None, phases=[Phase.generate])
    run_state_machine_as_test(Counting, settings=search)
    assert {what: examples[what] for what in HAPPENINGS if examples[what] < 3} == {}
    assert sorted(examples) == sorted(HAPPENINGS)


def test_a_subscription_that_waits_behind_a_call_ends_with_its_connection() -> None:
    machine = DeliveryMachine()
    machine.start(seed=0)
    try:
        client = machine.add(Newcomer("json", 1 << 20, 0, [], []))
        machine.settle()
        machine.send_several(client, [("actAsync", [("pause", 10)]), ("act", []), ("alpha", True)])
        machine.settle()
        machine.call(client.close)
        machine.run(trio.sleep, 1)
        machine.emit_in_background([("all", "alpha")])
        machine.let_all_happen()
    finally:
        machine.teardown()


def test_an_example_is_the_same_each_time() -> None:
    journals: list[str] = []

    class Recording(DeliveryMachine):
        def teardown(self) -> None:
            super().teardown()
            journals.append(repr(self.journal))

    search = settings(max_examples=15, stateful_step_count=40, derandomize=True, database=None, phases=[Phase.generate])
    run_state_machine_as_test(Recording, settings=search)
    first = journals.copy()
    journals.clear()
    run_state_machine_as_test(Recording, settings=search)
    assert journals == first
