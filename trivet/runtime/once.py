"""Something that happens once, and that mostly nobody waits for."""

import trio


class Once:
    """A trio.Event that is small, and made fast, as long as nobody waits: an idle actor has two of them."""

    __slots__ = ("_event", "_happened")

    def __init__(self) -> None:
        self._event: trio.Event | None = None
        self._happened = False

    def is_set(self) -> bool:
        """Whether it has happened."""
        return self._happened

    def set(self) -> None:
        """It has happened. Idempotent."""
        self._happened = True
        event, self._event = self._event, None
        if event is not None:
            event.set()

    async def wait(self) -> None:
        """Wait until it has happened. Always a checkpoint."""
        if self._happened:
            await trio.lowlevel.checkpoint()
            return
        if self._event is None:
            self._event = trio.Event()
        await self._event.wait()
