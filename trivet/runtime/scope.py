"""Tasks that belong to something which mostly has none."""

from collections.abc import Awaitable, Callable
from typing import Final

import trio
from typing_extensions import TypeVarTuple, Unpack

from trivet.runtime.logs import logger

Ts = TypeVarTuple("Ts")

# How long the owner waits for cancelled tasks. They end at their next checkpoint, unless user code shields itself; then
# the nursery, which outlives the owner, still waits for them.
_JOIN_TIMEOUT: Final = 5.0


class TaskScope:
    """The tasks of one connection, run in a nursery that many share.

    An idle connection needs no task of its own, and a nursery for each would cost more than the rest of it. The owner
    must call `aclose`, which cancels the tasks and joins them. What a task raises is logged and stays there.
    """

    __slots__ = ("_idle", "_nursery", "_scopes", "closed")

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._scopes: set[trio.CancelScope] | None = None
        self._idle: trio.Event | None = None
        self.closed = False

    def start_soon(self, fn: Callable[[Unpack[Ts]], Awaitable[object]], *args: *Ts) -> trio.CancelScope:
        """Start a task; cancel the returned scope to cancel it. Once it is closed nothing is run."""
        scope = trio.CancelScope()
        if self.closed:
            scope.cancel()
            return scope
        if self._scopes is None:
            self._scopes = set()
        self._scopes.add(scope)
        self._nursery.start_soon(self._run, scope, fn, args)
        return scope

    async def _run(
        self, scope: trio.CancelScope, fn: Callable[..., Awaitable[object]], args: tuple[object, ...]
    ) -> None:
        try:
            with scope:
                await fn(*args)
        except Exception:
            logger.exception("%s failed", getattr(fn, "__qualname__", fn))
        finally:
            assert self._scopes is not None
            self._scopes.discard(scope)
            if not self._scopes and self._idle is not None:
                self._idle.set()

    @property
    def empty(self) -> bool:
        """Whether nothing runs."""
        return not self._scopes

    @property
    def over(self) -> bool:
        """Whether what is started now would not run any more, or be cancelled at once."""
        return self.closed or self._nursery.cancel_scope.cancel_called

    def close(self) -> None:
        """Run nothing more."""
        self.closed = True

    def cancel(self) -> None:
        """Cancel what runs, without waiting for it."""
        for scope in self._scopes or ():
            scope.cancel()

    async def aclose(self) -> None:
        """Cancel what runs and wait for its end, also when the caller itself is cancelled."""
        self.cancel()
        if self._scopes:
            self._idle = trio.Event()
            with trio.move_on_after(_JOIN_TIMEOUT, shield=True):
                await self._idle.wait()
