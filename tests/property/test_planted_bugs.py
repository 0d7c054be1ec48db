"""The machine finds the bugs that are planted for it, says which rule they break, and shrinks them to a few steps.

Each plant changes one method of the runtime for one test, in a way in which an honest mistake might.
"""

from collections.abc import Callable
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.property.delivery import DeliveryMachine
from tests.property.model import Violation
from tests.property.world import MESSAGE, parse_frame
from trivet.protocol.messages import ActionRequest, ToServer
from trivet.protocol.messages import Event as EventMessage
from trivet.runtime import emit
from trivet.runtime.calls import ActionJob
from trivet.runtime.connection import Conn
from trivet.runtime.emit import Emitter
from trivet.runtime.instance import Instance
from trivet.runtime.outbox import Outbox
from trivet.runtime.session import Incoming, Session

SEARCH = settings(
    max_examples=150,
    stateful_step_count=12,
    derandomize=True,
    database=None,
    deadline=None,
    report_multiple_bugs=False,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)

put = Outbox.put
receive = Session.receive
post_disconnect = Instance.post_disconnect
expel = Instance.expel
answer = Session.answer
post = Session._post
subscribe = Emitter.subscribe


def is_event(outbox: Outbox, frame: bytes) -> bool:
    kind, content = parse_frame(frame)
    return kind == MESSAGE and isinstance(outbox.format.codec.decode_to_client(content), EventMessage)


def swap_last_two(outbox: Outbox) -> None:
    queue = outbox._queue
    if len(queue) > 1 and not outbox._writing and not outbox._head_sent and is_event(outbox, queue[-2]):
        queue[-1], queue[-2] = queue[-2], queue[-1]


def swap_events(self: Outbox, frame: bytes) -> bool:
    done = put(self, frame)
    if done and is_event(self, frame):
        swap_last_two(self)
    return done


def drop_event(self: Outbox, frame: bytes) -> bool:
    return True if self._queue and is_event(self, frame) else put(self, frame)


def double_event(self: Outbox, frame: bytes) -> bool:
    if is_event(self, frame):
        put(self, frame)
    return put(self, frame)


def answer_first(self: Session, job: ActionJob, output: Any) -> None:
    answer(self, job, output)
    if not self.ended:
        swap_last_two(self.outbox)


def keep_subscribed(self: Emitter, session: Session, name: str) -> None:
    pass


def subscribe_soon(self: Emitter, session: Session, name: str) -> None:
    async def another_task() -> None:
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        if not session.ended:
            subscribe(self, session, name)

    session._scope.start_soon(another_task)


def overtake(self: Session, message: ToServer, **kwargs: Any) -> None:
    if isinstance(message, ActionRequest) and self._posted and not (self._incoming or self._starting or self.ended):
        action = self.instance.definition.actions[message.name]
        if action.concurrent:
            self._charge(1, 1)
            self.instance.start_concurrent(ActionJob(self, message, action, (), 1))
            return
    receive(self, message, **kwargs)


def take_no_turn(self: Session, incoming: Incoming, message: ActionRequest, action: Any) -> None:
    if action is None or self._posted or self._incoming:
        post(self, incoming, message, action)
    else:
        self._posted += 1
        self.instance.start_concurrent(ActionJob(self, message, action, incoming.chain, incoming.size))


def disconnect_twice(self: Instance, conn: Conn[Any, Any]) -> None:
    post_disconnect(self, conn)
    post_disconnect(self, conn)


def stay(self: Instance, conn: Conn[Any, Any]) -> None:
    if len(self.conns) > 1:
        expel(self, conn)


def exclude_nobody(exclude: object) -> set[str]:
    return set()


def forget_the_call(self: Session, job: ActionJob, output: Any) -> None:
    if len(self.subscriptions) == 0:
        answer(self, job, output)


PLANTS = [
    (Outbox, "put", swap_events, "order"),
    (Outbox, "put", drop_event, "lost"),
    (Outbox, "put", double_event, "once"),
    (Session, "answer", answer_first, "cause"),
    (Session, "answer", forget_the_call, "answers"),
    (Session, "receive", overtake, "start order"),
    (Session, "_post", take_no_turn, "turns"),
    (Emitter, "unsubscribe", keep_subscribed, "unsubscribed"),
    (emit, "_ids", exclude_nobody, "stray"),
    (Emitter, "subscribe", subscribe_soon, "lost"),
    (Instance, "post_disconnect", disconnect_twice, "on_disconnect"),
    (Instance, "expel", stay, "conns"),
]


@pytest.mark.parametrize(("target", "name", "plant", "broken_rule"), PLANTS)
def test_a_planted_bug_is_found_and_named(
    target: object, name: str, plant: Callable[..., Any], broken_rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, name, plant)
    with pytest.raises(Violation) as caught:
        run_state_machine_as_test(DeliveryMachine, settings=SEARCH)
    assert caught.value.rule == broken_rule


# Shrinking takes some hundred examples, so not all of them are.
@pytest.mark.parametrize(
    ("target", "name", "plant", "steps"),
    [
        (Session, "answer", answer_first, 4),
        (Instance, "expel", stay, 3),
        (Instance, "post_disconnect", disconnect_twice, 3),
    ],
)
def test_a_planted_bug_is_shrunk(
    target: object, name: str, plant: Callable[..., Any], steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, name, plant)
    with pytest.raises(Violation):
        run_state_machine_as_test(DeliveryMachine, settings=settings(SEARCH, phases=[Phase.generate, Phase.shrink]))
    shrunk = DeliveryMachine.latest
    assert shrunk is not None
    assert sum(times for what, times in shrunk.occurred.items() if what.startswith("rule: ")) <= steps
