"""The pytest plugin: the `world` fixture."""

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from trivet.testing.world import World, real_by_default


@pytest.fixture
def world(request: pytest.FixtureRequest) -> type[World]:
    """Makes worlds for an async test, which then runs in virtual time: `async with world(registry) as actors`.

    With TRIVET_TESTING_REAL=1 in the environment the test runs in real time, over sockets.
    """
    if not real_by_default():
        request.node.add_marker(pytest.mark.trio(run=_run_in_virtual_time))
    return World


def _run_in_virtual_time(
    async_fn: Callable[[], Any], *, clock: trio.abc.Clock | None = None, instruments: Any = ()
) -> Any:
    return trio.run(async_fn, clock=clock or trio.testing.MockClock(autojump_threshold=0), instruments=instruments)
