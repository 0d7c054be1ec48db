"""How the programs that tests start serve: they print their port, and serve until they are signalled."""

from typing import overload

import trio

from trivet import Limits, Registry, Server, serve


class _Announcement:
    @overload
    def started(self: trio.TaskStatus[None]) -> None: ...
    @overload
    def started(self, value: Server) -> None: ...
    def started(self, value: Server | None = None) -> None:
        assert value is not None
        print(value.port, flush=True)


async def serve_announced(registry: Registry, limits: Limits) -> None:
    """Serve on a free port of the loopback address, and print which."""
    await serve(registry, port=0, limits=limits, handle_signals=True, task_status=_Announcement())
