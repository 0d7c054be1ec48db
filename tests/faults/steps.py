"""Cancelling at every step: a scope is cancelled after the n-th task step, for each n until the body completes."""

from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Final

import trio
from trio._core import _run
from trio.abc import Instrument
from trio.testing import MockClock

MOST: Final = 5000


class CancelAfter(Instrument):
    """Cancels `scope` once so many task steps, of whatever task, have been taken inside `armed`."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self.scope = trio.CancelScope()
        self.fired = False

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._steps -= 1
        if self._steps == 0:
            self.fired = True
            self.scope.cancel()

    @contextmanager
    def armed(self) -> Generator[None]:
        """Count, and be cancelled, in here. The cancellation ends here too."""
        trio.lowlevel.add_instrument(self)
        try:
            with self.scope:
                yield
        finally:
            trio.lowlevel.remove_instrument(self)


def at_every_step(scenario: Callable[[CancelAfter], Awaitable[None]]) -> int:
    """Run `scenario` again and again in virtual time, cancelling one step later each time, until it completes.

    The scenario enters `canceller.armed()` around what is to be cancelled, and states afterwards what must hold. The
    order of Trio's tasks is seeded with the step, so that a failure comes again. Returns the number of steps.
    """
    deterministic = _run._ALLOW_DETERMINISTIC_SCHEDULING
    state = _run._r.getstate()
    _run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # pyright: ignore[reportConstantRedefinition] - Trio's own tests do the same; nothing public does it
    try:
        for step in range(1, MOST):
            _run._r.seed(step)
            canceller = CancelAfter(step)
            try:
                trio.run(_bounded, scenario, canceller, clock=MockClock(autojump_threshold=0))
            except BaseException as error:
                error.add_note(f"cancelled after step {step}")
                raise
            if not canceller.fired:
                return step - 1
    finally:
        _run._ALLOW_DETERMINISTIC_SCHEDULING = deterministic  # type: ignore[misc]  # pyright: ignore[reportConstantRedefinition]
        _run._r.setstate(state)
    raise AssertionError(f"not over after {MOST} steps")


async def _bounded(scenario: Callable[[CancelAfter], Awaitable[None]], canceller: CancelAfter) -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    with trio.fail_after(1000):  # virtual seconds: what hangs comes here at once
        await scenario(canceller)
    assert trio.lowlevel.current_statistics().tasks_living == before, "a task is left"
