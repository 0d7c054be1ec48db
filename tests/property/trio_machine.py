"""Stateful tests of Trio programs: the rules of one Hypothesis state machine drive one Trio run.

The rules stay synchronous, as Hypothesis wants them. Each example has a Trio run of its own in guest mode, on a virtual
clock; it makes progress only while a rule is inside `TrioMachine.run`. What a rule leaves in flight stays where it is
until the next rule, so the races between rules are as much a part of the search as the rules themselves.
"""

from collections import Counter, deque
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from random import Random
from typing import Any, ClassVar, Final, TypeVar, cast

import outcome
import trio
import trio.testing
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine
from trio._core import _run
from typing_extensions import TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

DEADLINE: Final = 3600.0
"""Virtual seconds after which what a rule waits for counts as a deadlock. Passing them costs no time."""

seeds: Final = st.integers(0, 2**32 - 1)


def seed_scheduler(seed: int) -> None:
    """Make the order in which Trio runs its tasks a function of `seed`.

    Hypothesis seeds Trio's generator with the same number for each example, so that without this every example of a
    test would see one and the same schedule. There is no public way to it.
    """
    scheduler: Random = _run._r
    scheduler.seed(seed)


class TrioMachine(RuleBasedStateMachine):
    """A state machine whose rules call `self.run(async_fn, *args)`.

    Its one `@initialize` rule draws a seed from `seeds` and passes it to `start`. There may be no other: Hypothesis
    would run them in any order, and nothing runs before `start`. Override `open` and `aclose` for what each example
    needs; start tasks in `self.nursery`. At the end of an example `aclose` must have ended them all: a task that lives
    on is a failure.
    """

    latest: ClassVar["TrioMachine | None"] = None
    """The example that ran last: after a failure, the shrunk one."""

    def __init__(self) -> None:
        super().__init__()
        type(self).latest = self
        self.nursery: trio.Nursery
        self.occurred: Counter[str] = Counter()
        """What happened in this example, for tests that the search is not empty. Rules are counted as `rule`."""
        self._ticks: deque[Callable[[], object]] = deque()
        self._running = False
        self._result: outcome.Outcome[None] | None = None

    def start(self, seed: int) -> None:
        """The first step of each example; the seed decides the order of its tasks."""
        seed_scheduler(seed)
        trio.lowlevel.start_guest_run(
            self._main,
            run_sync_soon_threadsafe=self._ticks.append,
            run_sync_soon_not_threadsafe=self._ticks.append,
            done_callback=self._done,
            clock=trio.testing.MockClock(autojump_threshold=0),
            restrict_keyboard_interrupt_to_checkpoints=True,
        )
        self._running = True
        self._pump(lambda: hasattr(self, "nursery"))
        self.run(self.open)

    async def open(self) -> None:
        """Runs first in each example."""

    async def aclose(self) -> None:
        """Runs last in each example, also after a failure."""

    def run(self, async_fn: Callable[[Unpack[Ts]], Awaitable[T]], *args: *Ts) -> T:
        """The result of `async_fn`, called in a task of this example's run.

        Raises trio.TooSlowError when it waits for longer than DEADLINE, which, since the clock jumps whenever every
        task waits, is when nothing that it waits for can happen any more.
        """
        results: list[outcome.Outcome[T]] = []

        async def guarded() -> T:
            with trio.fail_after(DEADLINE):
                return await async_fn(*args)

        async def task() -> None:
            results.append(await outcome.acapture(guarded))

        self.nursery.start_soon(task, name=getattr(async_fn, "__qualname__", None))
        self._pump(lambda: bool(results))
        if self.nursery.cancel_scope.cancel_called:  # some other task has failed, which is what there is to tell
            self._pump(lambda: False)
        return results[0].unwrap()

    def call(self, fn: Callable[[Unpack[Ts]], T], *args: *Ts) -> T:
        """The result of a synchronous function that needs to be called in a Trio task."""

        async def call() -> T:
            return fn(*args)

        return self.run(call)

    def settle(self) -> None:
        """Let every task run until it waits for something; the clock stands still."""
        self.run(trio.testing.wait_all_tasks_blocked)

    def teardown(self) -> None:
        """End the run, and look for what it left behind."""
        if not self._running:
            return
        left: list[str] = []
        try:
            self.run(self.aclose)
            self.settle()
            left = [task.name for task in self.nursery.child_tasks]
        finally:
            if self._running:
                self.nursery.start_soon(self._stop)
                self._pump(lambda: not self._running)
        assert not left, f"tasks that outlived their owners: {left}"

    async def _main(self) -> None:
        async with trio.open_nursery() as self.nursery:
            await trio.sleep_forever()

    async def _stop(self) -> None:
        self.nursery.cancel_scope.cancel()

    def _done(self, result: "outcome.Outcome[Any]") -> None:
        self._running = False
        self._result = result

    def _pump(self, until: Callable[[], bool]) -> None:
        while not until():
            if not self._running:
                assert self._result is not None
                with _alone():
                    self._result.unwrap()
                raise RuntimeError("the Trio run has ended")
            self._ticks.popleft()()


@contextmanager
def _alone() -> Generator[None]:
    """Take the one exception out of the groups that nurseries have wrapped it in."""
    try:
        yield
    except BaseException as exc:
        error = exc
        while isinstance(error, BaseExceptionGroup):
            inner = list(cast("BaseExceptionGroup[BaseException]", error).exceptions)
            if len(inner) > 1:
                break
            error = inner[0]
        raise error from None
