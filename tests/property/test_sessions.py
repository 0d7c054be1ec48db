"""Resumable sessions under drawn breaks: at any byte, with any part of what was sent unread or unacknowledged."""

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime.support import settled
from tests.runtime.test_sessions import Returning, Room
from trivet import Limits, Registry
from trivet.protocol import extension
from trivet.protocol.messages import SubscriptionRequest
from trivet.runtime.host import open_host
from trivet.runtime.outbox import Outbox

PART = st.floats(0, 1)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("emit"), st.integers(1, 5)),
        st.tuples(st.just("read"), PART),
        st.tuples(st.just("acknowledge"), PART),
        st.tuples(st.just("let through"), st.integers(0, 400)),
        st.tuples(st.just("break"), PART),
        st.tuples(st.just("settle"), st.just(0)),
    ),
    min_size=8,
    max_size=40,
)


class Story:
    """One client through one list of steps."""

    def __init__(self, client: Returning) -> None:
        self.client = client
        self.emitted = 0
        self.calls: list[int] = []
        self.acknowledged = 0
        self.replayed = 0

    def read(self, part: float) -> None:
        """Take whole frames out of the first part of what has arrived; the rest stays."""
        received = self.client.transport.received
        end = received.rfind(b"\n", 0, int(len(received) * part)) + 1
        rest = received[end:]
        del received[end:]
        self.client.take()
        self.client.transport.received += rest

    async def take(self, step: str, value: float) -> None:
        client = self.client
        if step == "emit":
            for _ in range(int(value)):
                self.calls.append(client.act("emit", self.emitted))
                self.emitted += 1
        elif step == "read":
            self.read(value)
        elif step == "acknowledge":
            self.acknowledged += int((len(client.seen) - self.acknowledged) * value)
            client.session.receive_extension(extension.Ack(self.acknowledged))
        elif step == "let through":
            client.transport.room = value
            client.transport.read(0)
        elif step == "break":
            self.read(value)
            client.transport.received.clear()
            await client.session.leave(client.transport)
            before = client.session.statistics().queued_messages
            assert await client.back()
            self.replayed += before > 0
            self.acknowledged = len(client.seen)
        else:
            await settled()

    async def finish(self) -> None:
        self.client.transport.read()
        await settled()
        self.read(1)
        assert self.client.events == list(range(self.emitted))
        assert list(self.client.outputs()) == self.calls
        answers = [line for line in self.client.seen if "ActionResponse" in line]
        assert len(answers) == len(self.calls)
        assert not self.client.session.ended


async def tell(steps: list[tuple[str, float]]) -> Story:
    async with open_host(Registry(Room), Limits()) as host:
        instance, _ = await host.get_or_create("default", "room", ())
        client = Returning(host, instance)
        await client.open()
        client.session.receive(SubscriptionRequest("tick", True))
        story = Story(client)
        for step, value in steps:
            await story.take(step, value)
        await story.finish()
        client.session.end(1000, "")
        return story


def run(steps: list[tuple[str, float]]) -> Story:
    return trio.run(tell, steps, clock=trio.testing.MockClock(autojump_threshold=0))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(STEPS)
def test_every_event_and_answer_arrives_once_and_in_order(steps: list[tuple[str, float]]) -> None:
    run(steps)


def test_the_search_comes_to_replays() -> None:
    replays = 0

    @settings(max_examples=100, deadline=None, derandomize=True, database=None)
    @given(STEPS)
    def search(steps: list[tuple[str, float]]) -> None:
        nonlocal replays
        replays += run(steps).replayed

    search()
    assert replays >= 20


def test_a_loss_on_resume_is_found() -> None:
    attach = Outbox.attach

    def forgetful(self: Outbox, transport: object, received: int) -> bool:
        went_on = attach(self, transport, received)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        if self._queue:
            self._queued_bytes -= len(self._queue.pop())
        return went_on

    @settings(max_examples=200, deadline=None, derandomize=True, database=None, report_multiple_bugs=False)
    @given(STEPS)
    def search(steps: list[tuple[str, float]]) -> None:
        run(steps)

    Outbox.attach = forgetful  # type: ignore[method-assign]  # pyright: ignore[reportAttributeAccessIssue]
    try:
        search()
    except (AssertionError, ExceptionGroup):
        return
    finally:
        Outbox.attach = attach  # type: ignore[method-assign]
    raise AssertionError("the planted bug was not found")
