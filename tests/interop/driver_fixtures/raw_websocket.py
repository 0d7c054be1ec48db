"""Low-level WebSockets: `handle.webSocket()` as actors serve it."""

from urllib.parse import urlsplit

import attrs
import trio

from trivet import Actor, Options, WebSocket, action

from .support import Json, NoState, dump, now_ms, parse


@attrs.define
class RawWebSocketState:
    connection_count: int = 0
    message_count: int = 0
    indexed_message_order: list[int | None] = attrs.field(factory=list[int | None])


@attrs.frozen
class Stats:
    connection_count: int
    message_count: int


class RawWebSocketActor(Actor[RawWebSocketState]):
    options = Options(sleep_after=0.25)

    async def on_websocket(self, websocket: WebSocket) -> None:
        self.state.connection_count += 1
        try:
            await websocket.send(dump(type="welcome", connectionCount=self.state.connection_count))
            async for message in websocket:
                self.state.message_count += 1
                await websocket.send(self._answer(message, websocket))
        finally:
            self.state.connection_count -= 1

    def _answer(self, message: str | bytes, websocket: WebSocket) -> str | bytes:
        parsed = parse(message)
        state = self.state
        match parsed.get("type"):
            case "ping":
                return dump(type="pong", timestamp=now_ms())
            case "getStats":
                return dump(type="stats", connectionCount=state.connection_count, messageCount=state.message_count)
            case "getRequestInfo":
                return dump(type="requestInfo", **_request_info(websocket))
            case "indexedEcho":
                # Messages have indexes only where sockets outlive their actor; here none has.
                state.indexed_message_order.append(None)
                return dump(type="indexedEcho", payload=parsed.get("payload"), rivetMessageIndex=None)
            case "indexedAckProbe":
                state.indexed_message_order.append(None)
                payload = parsed.get("payload")
                size = len(payload) if isinstance(payload, str) else 0
                return dump(type="indexedAckProbe", rivetMessageIndex=None, payloadSize=size)
            case "getIndexedMessageOrder":
                return dump(type="indexedMessageOrder", order=state.indexed_message_order)
            case "scheduleSleep":
                self.start_soon(self._sleep_soon)
                return dump(type="sleepScheduled")
            case _:
                return message

    async def _sleep_soon(self) -> None:
        await trio.sleep(0.025)
        self.sleep()

    @action
    def trigger_sleep(self) -> bool:
        self.sleep()
        return True

    @action
    def get_stats(self) -> Stats:
        return Stats(self.state.connection_count, self.state.message_count)


def _request_info(websocket: WebSocket) -> dict[str, Json]:
    url = websocket.request.url if websocket.request else ""
    parts = urlsplit(url)
    return {"url": url, "pathname": parts.path, "search": f"?{parts.query}" if parts.query else ""}


class RawWebSocketBinaryActor(Actor[NoState]):
    async def on_websocket(self, websocket: WebSocket) -> None:
        async for message in websocket:
            if isinstance(message, bytes):
                await websocket.send(message[::-1])


@attrs.define
class OpenCount:
    open_count: int = 0


class RawWebSocketAsyncOpenActor(Actor[OpenCount]):
    options = Options(shutdown_grace=2)

    async def on_websocket(self, websocket: WebSocket) -> None:
        self.state.open_count += 1
        await trio.sleep(0.01)
        await websocket.send(dump(type="async-open", openCount=self.state.open_count))
        async for _ in websocket:
            pass

    @action
    def get_open_count(self) -> int:
        return self.state.open_count


@attrs.define
class OpenedState:
    opened: bool = False
    conn_id: str = ""


class RawWebSocketConnContextActor(Actor[NoState, OpenedState]):
    async def on_websocket(self, websocket: WebSocket) -> None:
        conn = self.conn
        conn.state = OpenedState(True, conn.id)
        state = {"opened": conn.state.opened, "connId": conn.state.conn_id}
        await websocket.send(dump(type="conn-context", connId=conn.id, state=state))
        async for _ in websocket:
            pass


ACTORS = (
    RawWebSocketActor,
    RawWebSocketBinaryActor,
    RawWebSocketAsyncOpenActor,
    RawWebSocketConnContextActor,
)
