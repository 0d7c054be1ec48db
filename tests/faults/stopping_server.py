"""The program that the tests of stopping start: prints its port, and serves until it is signalled."""

import sys

import trio

from tests.faults.announced import serve_announced
from trivet import Actor, Event, Limits, Registry, WebSocket, action


class Worker(Actor):
    """Has work that takes as long as it is told."""

    ticked = Event(int)

    async def on_websocket(self, websocket: WebSocket) -> None:
        async for message in websocket:
            await websocket.send(message)

    @action
    async def work(self, seconds: float) -> float:
        await trio.sleep(seconds)
        return seconds

    @action(concurrent=True)
    async def work_beside(self, seconds: float) -> float:
        self.broadcast(self.ticked, 1)
        await trio.sleep(seconds)
        self.broadcast(self.ticked, 2)
        return seconds

    @action(concurrent=True)
    async def cling(self) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(1000)


async def main(grace: float) -> None:
    limits = Limits(shutdown_grace=grace, close_timeout=1.0)
    await serve_announced(Registry(Worker), limits)


if __name__ == "__main__":
    trio.run(main, float(sys.argv[1]))
