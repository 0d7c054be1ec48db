"""The pytest plugin: the `world` fixture."""

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from trivet.testing.world import World, real_by_default


@pytest.fixture
def world() -> type[World]:
    """Makes worlds for an async test, which then runs in virtual time: `async with world(registry) as actors`.

    With TRIVET_TESTING_REAL=1 in the environment the test runs in real time, over sockets.
    """
    return World


def pytest_itemcollected(item: pytest.Item) -> None:
    """Give the tests that use `world` a clock that jumps."""
    if "world" in getattr(item, "fixturenames", ()) and not real_by_default():
        # The first marker with a `run` counts.
        item.add_marker(pytest.mark.trio(run=_run_in_virtual_time), append=False)


def _run_in_virtual_time(
    async_fn: Callable[[], Any], *, clock: trio.abc.Clock | None = None, instruments: Any = ()
) -> Any:
    return trio.run(async_fn, clock=clock or trio.testing.MockClock(autojump_threshold=0), instruments=instruments)
