"""Actors that sleep while low-level WebSockets are open, or what they do for them is not done."""

from typing import Generic, TypeVar

import attrs
import trio

from trivet import Options, WebSocket, action

from .support import CountingActor, Counts, SleepyActor, dump, parse

_TRACKED_SECONDS = 0.25


@attrs.define
class ConnectionCounts(Counts):
    connection_count: int = 0


class SleepWithRawWebSocket(CountingActor[ConnectionCounts]):
    options = Options(sleep_after=1)

    async def on_websocket(self, websocket: WebSocket) -> None:
        self.state.connection_count += 1
        try:
            await websocket.send(dump(type="connected", connectionCount=self.state.connection_count))
            async for message in websocket:
                match parse(message).get("type"):
                    case "getCounts":
                        await websocket.send(dump(type="counts", **self._counts()))
                    case "keepAlive":
                        await websocket.send(dump(type="ack"))
                    case _:
                        pass
        finally:
            self.state.connection_count -= 1

    def _counts(self) -> dict[str, int]:
        state = self.state
        return {
            "startCount": state.start_count,
            "sleepCount": state.sleep_count,
            "connectionCount": state.connection_count,
        }

    @action
    def get_counts(self) -> ConnectionCounts:
        return self.state


@attrs.define
class HandlerStatus(Counts):
    message_started: int = 0
    message_finished: int = 0
    close_started: int = 0
    close_finished: int = 0


class SleepRawWsOnMessage(SleepyActor[HandlerStatus]):
    options = Options(sleep_after=0.1)

    async def on_websocket(self, websocket: WebSocket) -> None:
        await websocket.send(dump(type="connected"))
        async for message in websocket:
            if message == "track-message":
                self.state.message_started += 1
                await websocket.send(dump(type="message-started"))
                await trio.sleep(_TRACKED_SECONDS)
                self.state.message_finished += 1

    @action
    def get_status(self) -> HandlerStatus:
        return self.state


class SleepRawWsAddEventListenerMessage(SleepRawWsOnMessage):
    """In JavaScript there are two ways to listen."""


class SleepRawWsOnClose(SleepyActor[HandlerStatus]):
    options = Options(sleep_after=0.1)

    async def on_websocket(self, websocket: WebSocket) -> None:
        await websocket.send(dump(type="connected"))
        async for _ in websocket:
            pass
        self.state.close_started += 1
        await trio.sleep(_TRACKED_SECONDS)
        self.state.close_finished += 1

    @action
    def get_status(self) -> HandlerStatus:
        return self.state


class SleepRawWsAddEventListenerClose(SleepRawWsOnClose):
    """In JavaScript there are two ways to listen."""


C = TypeVar("C", bound=Counts)


class _WebSocketKeeper(SleepyActor[C], Generic[C]):
    """It knows its open sockets."""

    def on_wake(self) -> None:
        super().on_wake()
        self.websockets: set[WebSocket] = set()

    async def on_websocket(self, websocket: WebSocket) -> None:
        self.websockets.add(websocket)
        try:
            await websocket.send(dump(type="connected"))
            async for _ in websocket:
                pass
        finally:
            self.websockets.discard(websocket)

    async def tell_of_sleep(self) -> None:
        for websocket in tuple(self.websockets):
            await websocket.send(dump(type="sleeping", sleepCount=self.state.sleep_count))


class SleepRawWsSendOnSleep(_WebSocketKeeper[Counts]):
    options = Options(sleep_after=1)

    async def on_sleep(self) -> None:
        await super().on_sleep()
        await self.tell_of_sleep()

    @action
    def get_counts(self) -> Counts:
        return self.state


class SleepRawWsDelayedSendOnSleep(_WebSocketKeeper[Counts]):
    options = Options(sleep_after=1)

    async def on_sleep(self) -> None:
        await super().on_sleep()
        await trio.sleep(0.1)
        await self.tell_of_sleep()
        await trio.sleep(0.1)

    @action
    def get_counts(self) -> Counts:
        return self.state


@attrs.define
class SlowHandlerStatus(Counts):
    handler_started: int = 0
    handler_finished: int = 0


class SleepRawWsVarsExceedsGrace(SleepyActor[SlowHandlerStatus]):
    options = Options(sleep_after=0.1, shutdown_grace=0.2)
    dirty = False

    async def on_websocket(self, websocket: WebSocket) -> None:
        await websocket.send(dump(type="connected"))
        async for message in websocket:
            if message == "slow-vars-work":
                self.state.handler_started += 1
                await websocket.send(dump(type="started"))
                await trio.sleep(2)
                self.dirty = True
                self.state.handler_finished += 1

    @action
    def get_status(self) -> SlowHandlerStatus:
        return self.state


ACTORS = (
    SleepWithRawWebSocket,
    SleepRawWsOnMessage,
    SleepRawWsAddEventListenerMessage,
    SleepRawWsOnClose,
    SleepRawWsAddEventListenerClose,
    SleepRawWsSendOnSleep,
    SleepRawWsDelayedSendOnSleep,
    SleepRawWsVarsExceedsGrace,
)
