"""Nurseries inside context managers, which the user's code shall not notice."""

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import cast

import trio


class Ungrouped:
    """Lets the error of a body out as it was raised, through nurseries around it.

    Trio puts even a single error into a group, to show that several tasks may have failed. Where the other tasks do
    not raise, the body's error is the only one, and it is raised alone. If a task does raise, the group comes out.

        ungrouped = Ungrouped()
        with ungrouped.outside():
            async with trio.open_nursery():
                with ungrouped.inside():
                    ...
    """

    def __init__(self) -> None:
        self._raised: BaseException | None = None

    @contextmanager
    def inside(self) -> Generator[None]:
        """Around the body."""
        try:
            yield
        except BaseException as error:
            self._raised = error
            raise

    @contextmanager
    def outside(self) -> Generator[None]:
        """Around the nurseries."""
        try:
            yield
        except BaseExceptionGroup as group:
            raised = self._raised
            if raised is None or raised is group or not self._is_the_only(cast("BaseException", group)):
                raise
            # `raise` would make the group the context of its own content.
            context = raised.__context__
            try:
                raise raised
            finally:
                raised.__context__ = context
                self._raised = raised = context = None

    def _is_the_only(self, group: BaseException) -> bool:
        # By the leaves: Trio rebuilds a group that the body raised when it takes cancellations out of it.
        own = {id(error) for error in _leaves(self._raised)}
        return all(isinstance(error, trio.Cancelled) or id(error) in own for error in _leaves(group))


def _leaves(error: BaseException | None) -> list[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        return [] if error is None else [error]
    group = cast("BaseExceptionGroup[BaseException]", error)
    return [leaf for inner in group.exceptions for leaf in _leaves(inner)]


@asynccontextmanager
async def open_quiet_nursery() -> AsyncGenerator[trio.Nursery]:
    """A nursery for tasks that never raise. It is cancelled when its body ends, whose error comes out alone."""
    ungrouped = Ungrouped()
    with ungrouped.outside():
        async with trio.open_nursery() as nursery:
            try:
                with ungrouped.inside():
                    yield nursery
            finally:
                nursery.cancel_scope.cancel()
