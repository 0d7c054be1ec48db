"""Actors that sleep: idle, asked to, held off by their work, and woken by their schedules."""

import math

import attrs
import trio

from trivet import Actor, Event, Options, Request, Response, WebSocket, action

from .support import CountingActor, Counts, SleepyActor, dump


class Sleep(SleepyActor[Counts]):
    options = Options(sleep_after=1)

    @action
    def get_counts(self) -> Counts:
        return self.state

    @action
    def set_alarm(self, duration: float) -> None:
        self.schedule.after(duration / 1000, Sleep.on_alarm)

    @action
    def on_alarm(self) -> None:
        pass


class SleepWithLongRpc(CountingActor[Counts]):
    options = Options(sleep_after=1, concurrent=True)
    waiting = Event()

    def on_wake(self) -> None:
        super().on_wake()
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


class SleepWithRawHttp(CountingActor[RequestCounts]):
    options = Options(sleep_after=1)

    async def on_request(self, request: Request) -> Response:
        if request.path != "/long-request":
            return Response("Not Found", 404)
        self.state.request_count += 1
        await trio.sleep(float(request.query.get("duration", "1000")) / 1000)
        return Response.json({"completed": True})

    @action
    def get_counts(self) -> RequestCounts:
        return self.state


class SleepWithNoSleepOption(CountingActor[Counts]):
    options = Options(sleep_after=math.inf)

    @action
    def get_counts(self) -> Counts:
        return self.state


@attrs.define
class MessageCounts(Counts):
    wait_until_message_count: int = 0


class SleepWithWaitUntilMessage(CountingActor[MessageCounts]):
    options = Options(sleep_after=1)
    sleeping = Event(Counts)

    @action
    def trigger_sleep(self) -> None:
        self.wait_until(self._tell)
        self.sleep()

    async def _tell(self) -> None:
        await trio.sleep(0.01)
        self.state.wait_until_message_count += 1
        self.conn.send(self.sleeping, Counts(self.state.start_count, self.state.sleep_count))

    @action
    def get_counts(self) -> MessageCounts:
        return self.state


@attrs.define
class WaitUntilStatus(Counts):
    wait_until_called: bool = False
    wait_until_completed: bool = False


class SleepWithWaitUntilInOnWake(SleepyActor[WaitUntilStatus]):
    options = Options(sleep_after=1)

    def on_wake(self) -> None:
        super().on_wake()
        self.wait_until(self._complete)
        self.state.wait_until_called = True

    async def _complete(self) -> None:
        await trio.lowlevel.checkpoint()
        self.state.wait_until_completed = True

    @action
    def get_status(self) -> WaitUntilStatus:
        return self.state


@attrs.define
class GraceStatus(Counts):
    wait_until_started: int = 0


class SleepWaitUntilVarsDuringGrace(SleepyActor[GraceStatus]):
    options = Options(sleep_after=0.1, shutdown_grace=1)
    dirty = False

    async def on_sleep(self) -> None:
        await super().on_sleep()
        self.wait_until(self._soil)

    async def _soil(self) -> None:
        self.state.wait_until_started += 1
        await trio.sleep(0.15)
        self.dirty = True

    @action
    def get_status(self) -> GraceStatus:
        return self.state


@attrs.define
class AbortStatus(Counts):
    abort_vars_seen_per_wake: list[str] = attrs.field(factory=list[str])


class SleepAbortListenerVarsActor(SleepyActor[AbortStatus]):
    """What the suite calls an abort listener is, in Trio, what background work does when it is cancelled."""

    options = Options(sleep_after=1)
    is_stopping = False

    def on_wake(self) -> None:
        self.state.abort_vars_seen_per_wake.append("unset")
        self.start_soon(self._note_stop, self.state.start_count)
        super().on_wake()

    async def _note_stop(self, index: int) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.is_stopping = True
            self.state.abort_vars_seen_per_wake[index] = "object"

    async def on_sleep(self) -> None:
        await super().on_sleep()
        for _ in range(5):
            await trio.lowlevel.checkpoint()

    async def on_websocket(self, websocket: WebSocket) -> None:
        await websocket.send(dump(type="connected"))
        async for _ in websocket:
            pass

    @action
    def get_status(self) -> AbortStatus:
        return self.state


@attrs.define
class ProbeState:
    count: int = 0


class CounterWaitUntilProbe(Actor[ProbeState]):
    @action
    def trigger_wait_until_void(self) -> int:
        self.state.count += 1
        self.wait_until(trio.lowlevel.checkpoint)
        return self.state.count

    @action
    def trigger_wait_until_with_value(self) -> int:
        self.state.count += 1
        self.wait_until(_ok)
        return self.state.count

    @action
    def trigger_wait_until_reject_void(self) -> int:
        self.state.count += 1
        self.wait_until(_fail)
        return self.state.count

    @action
    async def trigger_keep_awake_void(self) -> int:
        self.state.count += 1
        with self.keep_awake():
            await trio.lowlevel.checkpoint()
        return self.state.count

    @action
    async def trigger_keep_awake_with_value(self) -> int:
        self.state.count += 1
        with self.keep_awake():
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


@attrs.define
class LabelledCount:
    count: int = 0
    label: str = "default"


class StateZodCoercionActor(Actor[LabelledCount]):
    options = Options(sleep_after=0.1)

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
        self.sleep()


ACTORS = (
    Sleep,
    SleepWithLongRpc,
    SleepWithRawHttp,
    SleepWithNoSleepOption,
    SleepWithWaitUntilMessage,
    SleepWithWaitUntilInOnWake,
    SleepWaitUntilVarsDuringGrace,
    SleepAbortListenerVarsActor,
    CounterWaitUntilProbe,
    StateZodCoercionActor,
)
