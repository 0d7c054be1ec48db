"""Actors that the suite puts to sleep: here what works without sleeping."""

import attrs
import trio

from trivet import Actor, Conn, Event, Options, Request, Response, WebSocket, action

from .support import dump, not_supported, parse


@attrs.define
class Counts:
    start_count: int = 0
    sleep_count: int = 0


class Sleep(Actor[Counts]):
    def on_wake(self) -> None:
        self.state.start_count += 1

    @action
    def trigger_sleep(self) -> None:
        raise not_supported("Sleep")

    @action
    def get_counts(self) -> Counts:
        return self.state

    @action
    def set_alarm(self, duration: int) -> None:
        raise not_supported("A schedule")

    @action
    def on_alarm(self) -> None:
        pass


class SleepWithLongRpc(Actor[Counts]):
    options = Options(concurrent=True)
    waiting = Event()

    def on_wake(self) -> None:
        self.state.start_count += 1
        self.finished = trio.Event()

    @action
    def get_counts(self) -> Counts:
        return self.state

    @action
    async def long_running_rpc(self) -> None:
        self.broadcast(self.waiting)
        await self.finished.wait()

    @action
    def finish_long_running_rpc(self) -> None:
        self.finished.set()


@attrs.define
class RequestCounts(Counts):
    request_count: int = 0


class SleepWithRawHttp(Actor[RequestCounts]):
    def on_wake(self) -> None:
        self.state.start_count += 1

    async def on_request(self, request: Request) -> Response:
        if request.path != "/long-request":
            return Response("Not Found", 404)
        self.state.request_count += 1
        await trio.sleep(float(request.query.get("duration", "1000")) / 1000)
        return Response.json({"completed": True})

    @action
    def get_counts(self) -> RequestCounts:
        return self.state


@attrs.define
class ConnectionCounts(Counts):
    connection_count: int = 0


class SleepWithRawWebSocket(Actor[ConnectionCounts]):
    def on_wake(self) -> None:
        self.state.start_count += 1

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
class ProbeState:
    count: int = 0


class CounterWaitUntilProbe(Actor[ProbeState]):
    """What the suite calls `waitUntil` is background work of the actor, and `keepAwake` work that is awaited."""

    @action
    def trigger_wait_until_void(self) -> int:
        self.state.count += 1
        self.start_soon(trio.lowlevel.checkpoint)
        return self.state.count

    @action
    def trigger_wait_until_with_value(self) -> int:
        self.state.count += 1
        self.start_soon(_ok)
        return self.state.count

    @action
    def trigger_wait_until_reject_void(self) -> int:
        self.state.count += 1
        self.start_soon(_fail)
        return self.state.count

    @action
    async def trigger_keep_awake_void(self) -> int:
        self.state.count += 1
        await trio.lowlevel.checkpoint()
        return self.state.count

    @action
    async def trigger_keep_awake_with_value(self) -> int:
        self.state.count += 1
        await _ok()
        return self.state.count

    @action
    def get_count(self) -> int:
        return self.state.count


async def _ok() -> dict[str, bool]:
    await trio.lowlevel.checkpoint()
    return {"ok": True}


async def _fail() -> None:
    raise RuntimeError("reject-with-error-ok")


class SleepWithNoSleepOption(Actor[Counts]):
    def on_wake(self) -> None:
        self.state.start_count += 1

    @action
    def get_counts(self) -> Counts:
        return self.state


@attrs.define
class LabelledCount:
    count: int = 0
    label: str = "default"


class StateZodCoercionActor(Actor[LabelledCount]):
    @action
    def get_state(self) -> LabelledCount:
        return self.state

    @action
    def set_count(self, count: int) -> None:
        self.state.count = count

    @action
    def set_label(self, label: str) -> None:
        self.state.label = label

    @action
    def trigger_sleep(self) -> None:
        raise not_supported("Sleep")


@attrs.define
class HibernationState:
    sleep_count: int = 0
    wake_count: int = 0


@attrs.define
class HibernationConn:
    count: int = 0
    connect_count: int = 0
    disconnect_count: int = 0


@attrs.frozen
class ConnLifecycleCounts:
    connect_count: int
    disconnect_count: int


class HibernationActor(Actor[HibernationState, HibernationConn]):
    def on_wake(self) -> None:
        self.state.wake_count += 1

    def on_connect(self, conn: Conn[HibernationConn, object]) -> None:
        conn.state.connect_count += 1

    def on_disconnect(self, conn: Conn[HibernationConn, object]) -> None:
        conn.state.disconnect_count += 1

    @action
    def ping(self) -> str:
        return "pong"

    @action
    def conn_increment(self) -> int:
        self.conn.state.count += 1
        return self.conn.state.count

    @action
    def get_conn_count(self) -> int:
        return self.conn.state.count

    @action
    def get_conn_lifecycle_counts(self) -> ConnLifecycleCounts:
        return ConnLifecycleCounts(self.conn.state.connect_count, self.conn.state.disconnect_count)

    @action
    def get_connection_ids(self) -> list[str]:
        return list(self.conns)

    @action
    def get_actor_counts(self) -> HibernationState:
        return self.state

    @action
    def trigger_sleep(self) -> None:
        raise not_supported("Sleep")


ACTORS = (
    Sleep,
    SleepWithLongRpc,
    SleepWithRawHttp,
    SleepWithRawWebSocket,
    CounterWaitUntilProbe,
    SleepWithNoSleepOption,
    StateZodCoercionActor,
    HibernationActor,
)
