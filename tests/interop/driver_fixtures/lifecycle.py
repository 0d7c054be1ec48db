"""Starting and destroying actors, and the observers that survive them."""

import math

import attrs
import trio

from trivet import Actor, Options, Request, Response, WebSocket, action

from .support import Json, ValueState, not_supported, now_ms


@attrs.define
class DestroyedActors:
    destroyed_actors: list[str] = attrs.field(factory=list[str])


class DestroyObserver(Actor[DestroyedActors]):
    @action
    def notify_destroyed(self, actor_key: str) -> None:
        self.state.destroyed_actors.append(actor_key)

    @action
    def was_destroyed(self, actor_key: str) -> bool:
        return actor_key in self.state.destroyed_actors

    @action
    def reset(self) -> None:
        self.state.destroyed_actors.clear()


@attrs.define
class DestroyState:
    value: int = 0
    key: str = ""


class DestroyActor(Actor[DestroyState]):
    ephemeral = "fresh"

    def on_wake(self) -> None:
        self.state.key = "/".join(self.key)

    async def on_destroy(self) -> None:
        observer = self.client().get_or_create(DestroyObserver, ["observer"])
        await observer.call(DestroyObserver.notify_destroyed, self.state.key)

    def on_request(self, request: Request) -> Response:
        if request.path == "/state":
            return Response.json({"key": self.state.key, "value": self.state.value})
        return Response("Not Found", 404)

    async def on_websocket(self, websocket: WebSocket) -> None:
        welcome = {"type": "welcome", "key": self.state.key, "value": self.state.value}
        await websocket.send(Response.json(welcome).text())
        async for _ in websocket:
            pass

    @action
    async def set_value(self, value: int) -> int:
        self.state.value = value
        await self.save()
        return value

    @action
    def get_value(self) -> int:
        return self.state.value

    @action
    def set_ephemeral(self, value: str) -> str:
        self.ephemeral = value
        return value

    @action
    def get_ephemeral(self) -> str:
        return self.ephemeral

    @action
    def receive_value(self) -> Json:
        raise not_supported("A queue")

    @action(name="destroy")
    def end(self) -> None:
        self.destroy()


@attrs.define
class AbortState:
    abort_event_count: int = 0


@attrs.frozen
class AbortReport:
    before_destroy_aborted: bool
    before_destroy_signal_aborted: bool
    after_destroy_aborted: bool
    after_destroy_signal_aborted: bool
    abort_event_count_after_destroy: int


class DestroyAbortSignalActor(Actor[AbortState]):
    """What the suite calls the abort signal is, in Trio, the cancellation of what runs in the actor."""

    async def _watch(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.state.abort_event_count += 1

    async def on_destroy(self) -> None:
        observer = self.client().get_or_create(DestroyObserver, ["observer"])
        await observer.call(DestroyObserver.notify_destroyed, "/".join(self.key))

    @action
    def request_destroy(self) -> AbortReport:
        before = _is_cancelled()
        self.start_soon(self._watch)
        self.destroy()
        after = _is_cancelled()
        return AbortReport(before, before, after, after, self.state.abort_event_count)


def _is_cancelled() -> bool:
    return trio.current_effective_deadline() == -math.inf


@attrs.frozen
class LifecycleEvent:
    actor_key: str
    event: str


@attrs.frozen
class StampedLifecycleEvent:
    actor_key: str
    event: str
    timestamp: int


@attrs.define
class LifecycleEvents:
    events: list[StampedLifecycleEvent] = attrs.field(factory=list[StampedLifecycleEvent])


class LifecycleObserver(Actor[LifecycleEvents]):
    options = Options(sleep_after=math.inf)

    @action
    def record_event(self, event: LifecycleEvent) -> None:
        self.state.events.append(StampedLifecycleEvent(event.actor_key, event.event, now_ms()))

    @action
    def get_events(self) -> list[StampedLifecycleEvent]:
        return self.state.events

    @action
    def clear_events(self) -> None:
        self.state.events.clear()


@attrs.define
class RaceState:
    initialized: bool = False
    start_time: int = 0
    destroy_called: bool = False
    start_completed: bool = False


class StartStopRaceActor(Actor[RaceState]):
    async def on_wake(self) -> None:
        self.state.start_time = now_ms()
        await trio.sleep(0.1)
        self.state.initialized = True
        self.state.start_completed = True
        await self._record("started")

    async def on_destroy(self) -> None:
        self.state.destroy_called = True
        await self._record("destroy")

    async def _record(self, event: str) -> None:
        observer = self.client().get_or_create(LifecycleObserver, ["observer"])
        await observer.call(
            LifecycleObserver.record_event,
            LifecycleEvent("/".join(self.key), event),
        )

    @action
    def get_state(self) -> RaceState:
        return self.state

    @action
    def ping(self) -> str:
        return "pong"

    @action(name="destroy")
    def end(self) -> None:
        self.destroy()


@attrs.define
class Phases:
    phases: dict[str, str] = attrs.field(factory=dict[str, str])


class SaveStateObserver(Actor[Phases]):
    @action
    def record_phase(self, key: str, phase: str) -> None:
        self.state.phases[key] = phase

    @action
    def get_phase(self, key: str) -> str | None:
        return self.state.phases.get(key)

    @action
    def reset(self, key: str) -> None:
        self.state.phases.pop(key, None)


class SaveStateActor(Actor[ValueState]):
    options = Options(concurrent=True)

    @action
    def get_value(self) -> int:
        return self.state.value

    @action
    async def save_immediate_and_block(self, value: int) -> None:
        self.state.value = value
        await self.save()
        await self._record("immediate")
        await trio.sleep_forever()

    @action
    async def save_deferred_and_block(self, value: int, max_wait: int) -> None:
        # What changes is saved in time by itself: no later than the call that tells of it.
        self.state.value = value
        await self._record("deferred")
        await trio.sleep_forever()

    async def _record(self, phase: str) -> None:
        observer = self.client().get_or_create(SaveStateObserver, ["observer"])
        await observer.call(SaveStateObserver.record_phase, "/".join(self.key), phase)


ACTORS = (
    DestroyObserver,
    DestroyActor,
    DestroyAbortSignalActor,
    LifecycleObserver,
    StartStopRaceActor,
    SaveStateObserver,
    SaveStateActor,
)
