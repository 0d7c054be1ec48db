"""State machines of Hypothesis whose rules are async: one Trio run for each example, in virtual time.

The run is a guest of Hypothesis' loop, and makes progress only while a rule runs. What a rule leaves in flight stays
where it is until the next one, so the races between rules are as much a part of the search as the rules themselves.
"""

import dataclasses
import functools
import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Final, TypeVar, cast

import attrs
import outcome
import trio
import trio.testing
from hypothesis import stateful
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine
from hypothesis.strategies import SearchStrategy
from typing_extensions import TypeVarTuple, Unpack

from trivet.testing.scheduling import seed_scheduler

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., object])
Ts = TypeVarTuple("Ts")

DEADLINE: Final = 3600.0
"""Virtual seconds after which what a rule waits for counts as a deadlock. Passing them costs no time."""

seeds: Final = st.integers(0, 2**32 - 1)

_MARKERS: Final = (stateful.RULE_MARKER, stateful.INITIALIZE_RULE_MARKER, stateful.INVARIANT_MARKER)


def rule(
    *, target: Bundle[Any] | None = None, targets: Sequence[Bundle[Any]] = (), **arguments: SearchStrategy[Any]
) -> Callable[[F], F]:
    """`hypothesis.stateful.rule`, with a type that lets async methods pass."""
    given: dict[str, Any] = {"target": target} if target is not None else {"targets": targets}
    make: Any = stateful.rule  # its overloads do not take what was gathered here
    return cast("Callable[[F], F]", make(**given, **arguments))


def initialize(
    *, target: Bundle[Any] | None = None, targets: Sequence[Bundle[Any]] = (), **arguments: SearchStrategy[Any]
) -> Callable[[F], F]:
    """`hypothesis.stateful.initialize`, with a type that lets async methods pass."""
    given: dict[str, Any] = {"target": target} if target is not None else {"targets": targets}
    make: Any = stateful.initialize  # its overloads do not take what was gathered here
    return cast("Callable[[F], F]", make(**given, **arguments))


def invariant(*, check_during_init: bool = False) -> Callable[[F], F]:
    """`hypothesis.stateful.invariant`, with a type that lets async methods pass."""
    decorate: Any = stateful.invariant(check_during_init=check_during_init)
    return cast("Callable[[F], F]", decorate)


def precondition(condition: Callable[[Any], bool]) -> Callable[[F], F]:
    """`hypothesis.stateful.precondition`, with a type that lets async methods pass. The condition is a sync one."""
    decorate: Any = stateful.precondition(condition)
    return cast("Callable[[F], F]", decorate)


@attrs.define(eq=False)
class _Held:
    """A context that a task holds open."""

    context: AbstractAsyncContextManager[Any]
    value: object = None
    error: Exception | None = None
    leave: trio.Event = attrs.field(factory=trio.Event)
    left: trio.Event = attrs.field(factory=trio.Event)


class TrioMachine(RuleBasedStateMachine):
    """A `RuleBasedStateMachine` whose rules, initializers and invariants may be async.

        class ChatMachine(TrioMachine):
            async def open(self) -> None:
                self.world = await self.enter(World(registry))

            @rule(text=st.text())
            async def send(self, text: str) -> None: ...

        TestChat = ChatMachine.TestCase

    The methods of one example run in one Trio run, each in a task of its own, on a virtual clock that jumps whenever
    every task waits; the drawn `schedule` decides the order in which tasks run, and shrinks with the rest. `open` runs
    before everything else, `aclose` at the end, also after a failure.

    A method that would wait for ever raises trio.TooSlowError, as does one that takes an hour of virtual time.
    A task of `nursery` that raises ends the example with that error, one that lives on after `aclose` is a failure.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for member in vars(cls).copy().values():
            for marker in _MARKERS:
                marked: Any = getattr(member, marker, None)
                if marked is not None and inspect.iscoroutinefunction(marked.function):
                    setattr(member, marker, dataclasses.replace(marked, function=_in_the_run(marked.function)))

    def __init__(self) -> None:
        super().__init__()
        self.nursery: trio.Nursery
        """For tasks of an example. What they do goes on while rules run."""
        self.__ticks: deque[Callable[[], object]] = deque()
        self.__started = False
        self.__running = False
        self.__result: outcome.Outcome[None] | None = None
        self.__held: dict[int, _Held] = {}

    @initialize(schedule=seeds)
    def schedule(self, schedule: int) -> None:
        """Drawn for each example: the order of tasks from here on."""
        self.start()
        seed_scheduler(schedule)

    def start(self) -> None:
        """Begin the run, unless it has begun. It begins by itself with the first async method."""
        if self.__started:
            return
        self.__started = True
        seed_scheduler(0)
        trio.lowlevel.start_guest_run(
            self.__main,
            run_sync_soon_threadsafe=self.__ticks.append,
            run_sync_soon_not_threadsafe=self.__ticks.append,
            done_callback=self.__done,
            clock=trio.testing.MockClock(autojump_threshold=0),
            restrict_keyboard_interrupt_to_checkpoints=True,
        )
        self.__running = True
        self.__pump(lambda: hasattr(self, "nursery"))
        self.run(self.open)

    # -- for subclasses -----------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Runs first in each example."""

    async def aclose(self) -> None:
        """Runs last in each example, also after a failure. Leaves what was entered, the last first."""
        for held in reversed(list(self.__held.values())):
            await self.__leave(held)

    async def enter(self, context: AbstractAsyncContextManager[T]) -> T:
        """The value of `async with context`, which lasts from this rule on until `leave`, or the end of the example.

        Rules run in different tasks, so that none of them can hold a World or a connection open itself.
        """
        held = _Held(context)
        await self.nursery.start(_hold, held)
        if held.error is not None:
            raise held.error
        self.__held[id(held.value)] = held
        return cast("T", held.value)

    async def leave(self, value: object) -> None:
        """Leave the context that `enter` gave this value of. Raises what its end raises."""
        await self.__leave(self.__held[id(value)])

    async def __leave(self, held: _Held) -> None:
        del self.__held[id(held.value)]
        held.leave.set()
        await held.left.wait()
        if held.error is not None:
            raise held.error

    # -- from synchronous methods -------------------------------------------------------------------------------------

    def run(self, async_fn: Callable[[Unpack[Ts]], Awaitable[T]], *args: *Ts) -> T:
        """The result of `async_fn`, called in a task of this example's run: what async methods do by themselves.

        Raises trio.TooSlowError when it waits for longer than DEADLINE, which, since the clock jumps whenever every
        task waits, is when nothing that it waits for can happen any more.
        """
        self.start()
        results: list[outcome.Outcome[T]] = []

        async def guarded() -> T:
            with trio.fail_after(DEADLINE):
                return await async_fn(*args)

        async def task() -> None:
            results.append(await outcome.acapture(guarded))

        self.nursery.start_soon(task, name=getattr(async_fn, "__qualname__", None))
        self.__pump(lambda: bool(results))
        if self.nursery.cancel_scope.cancel_called:  # some other task has failed, which is what there is to tell
            self.__pump(lambda: False)
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
        if not self.__running:
            return
        left: list[str] = []
        try:
            self.run(self.aclose)
            self.settle()
            left = [task.name for task in self.nursery.child_tasks]
        finally:
            if self.__running:
                self.nursery.start_soon(self.__stop)
                self.__pump(lambda: not self.__running)
        assert not left, f"tasks that outlived their owners: {left}"

    # -- the run ------------------------------------------------------------------------------------------------------

    async def __main(self) -> None:
        async with trio.open_nursery() as self.nursery:
            await trio.sleep_forever()

    async def __stop(self) -> None:
        self.nursery.cancel_scope.cancel()

    def __done(self, result: "outcome.Outcome[Any]") -> None:
        self.__running = False
        self.__result = result

    def __pump(self, until: Callable[[], bool]) -> None:
        while not until():
            if not self.__running:
                assert self.__result is not None
                with _alone():
                    self.__result.unwrap()
                raise RuntimeError("the Trio run has ended")
            self.__ticks.popleft()()


def _in_the_run(method: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    """A sync method that runs an async one in its machine's run."""

    @functools.wraps(method)
    def run(self: TrioMachine, **arguments: Any) -> Any:
        return self.run(functools.partial(method, self, **arguments))

    return run


async def _hold(held: _Held, task_status: trio.TaskStatus[None]) -> None:
    entered = False
    try:
        async with held.context as held.value:
            entered = True
            task_status.started()
            await held.leave.wait()
    except Exception as error:
        held.error = error
        if not entered:
            task_status.started()
    finally:
        held.left.set()


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
