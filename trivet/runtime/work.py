"""The tasks of one life of an actor, and whether they keep it awake."""

from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any

import trio

from trivet.event import Ts
from trivet.runtime.scope import TaskScope


class Work:
    """The tasks of one life. `on_less` is called whenever there is less of what sleep and stop have to wait for."""

    __slots__ = (
        "_on_less",
        "background",
        "beside",
        "calls",
        "running",
        "sockets",
        "vigils",
    )

    def __init__(self, nursery: trio.Nursery, on_less: Callable[[], None]) -> None:
        self.background = TaskScope(nursery)
        """`run`, and what the actor has started: cancelled when the life draws to its end."""
        self.beside = TaskScope(nursery)
        """Everything else: calls outside the turn, handlers of sockets, commits."""
        self._on_less = on_less
        self.calls = 0
        """Calls, raw requests and other work outside the turn that a stop waits for."""
        self.sockets = 0
        """Handlers of raw WebSockets. A stop closes their sockets, then waits for them."""
        self.vigils = 0
        """How often the actor has asked to be kept awake."""
        self.running = False
        """Whether the `run` hook has not returned."""

    def close(self) -> None:
        """The life is over: what is started from now on does not run."""
        self.background.close()
        self.beside.close()

    @property
    def keeps_awake(self) -> bool:
        """Whether any of it would be cut off by sleep."""
        return bool(self.calls or self.sockets or self.vigils or self.running)

    @property
    def unfinished(self) -> bool:
        """Whether there is anything but sockets that the end has to wait for."""
        return bool(self.calls or self.vigils)

    def run_outside(self, fn: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> trio.CancelScope:
        """Run something outside the turn that a stop waits for. What it raises is logged."""
        if not self.beside.closed:
            self.calls += 1
        return self.beside.start_soon(self._count_call, fn, args)

    async def _count_call(self, fn: Callable[..., Awaitable[object]], args: tuple[Any, ...]) -> None:
        try:
            await fn(*args)
        finally:
            self.calls -= 1
            self._on_less()

    def run_socket(self, fn: Callable[[], Awaitable[object]]) -> trio.CancelScope:
        """Run the handler of a raw WebSocket."""
        if not self.beside.closed:
            self.sockets += 1
        return self.beside.start_soon(self._count_socket, fn)

    async def _count_socket(self, fn: Callable[[], Awaitable[object]]) -> None:
        try:
            await fn()
        finally:
            self.sockets -= 1
            self._on_less()

    @contextmanager
    def vigil(self) -> Generator[None]:
        """Keep the actor awake."""
        self.vigils += 1
        try:
            yield
        finally:
            self.vigils -= 1
            self._on_less()

    def run_ended(self) -> None:
        """The `run` hook has returned."""
        self.running = False
        self._on_less()
