"""Actors with background work of their own."""

import attrs
import trio

from trivet import Actor, Options, action

from .lifecycle import LifecycleEvent, LifecycleObserver
from .support import Json, not_supported, now_ms


@attrs.define
class TickState:
    tick_count: int = 0
    last_tick_at: int = 0
    run_started: bool = False
    run_exited: bool = False


class RunWithTicks(Actor[TickState]):
    options = Options(sleep_after=1)

    async def run(self) -> None:
        self.state.run_started = True
        try:
            while True:
                self.state.tick_count += 1
                self.state.last_tick_at = now_ms()
                await trio.sleep(0.05)
        finally:
            self.state.run_exited = True

    @action
    def get_state(self) -> TickState:
        return self.state


@attrs.define
class ConsumerState:
    messages_received: list[Json] = attrs.field(factory=list[Json])
    run_started: bool = False
    wake_count: int = 0


class RunWithQueueConsumer(Actor[ConsumerState]):
    options = Options(sleep_after=1)

    def on_wake(self) -> None:
        self.state.wake_count += 1

    @action
    def get_state(self) -> ConsumerState:
        return self.state

    @action
    def send_message(self, body: Json) -> bool:
        raise not_supported("A queue")


@attrs.define
class ExitState:
    run_started: bool = False
    run_exited: bool = False
    destroy_called: bool = False
    sleep_count: int = 0
    wake_count: int = 0


class RunWithEarlyExit(Actor[ExitState]):
    options = Options(sleep_after=1)

    def on_wake(self) -> None:
        self.state.wake_count += 1

    async def run(self) -> None:
        self.state.run_started = True
        await trio.sleep(0.2)
        self.state.run_exited = True

    async def on_sleep(self) -> None:
        self.state.sleep_count += 1
        await self._record("sleep")

    async def on_destroy(self) -> None:
        self.state.destroy_called = True
        await self._record("destroy")

    async def _record(self, event: str) -> None:
        observer = self.client().get_or_create(LifecycleObserver, ["run-with-early-exit"])
        await observer.call(LifecycleObserver.record_event, LifecycleEvent(self.actor_id, event))

    @action
    def get_state(self) -> ExitState:
        return self.state

    @action(name="destroy")
    def end(self) -> None:
        self.destroy()


class RunWithError(Actor[ExitState]):
    options = Options(sleep_after=1)

    def on_wake(self) -> None:
        self.state.wake_count += 1

    async def run(self) -> None:
        self.state.run_started = True
        await trio.sleep(0.2)
        self.state.run_exited = True
        raise RuntimeError("intentional error in run handler")

    def on_sleep(self) -> None:
        self.state.sleep_count += 1

    def on_destroy(self) -> None:
        self.state.destroy_called = True

    @action
    def get_state(self) -> ExitState:
        return self.state

    @action(name="destroy")
    def end(self) -> None:
        self.destroy()


@attrs.define
class SelfSleepState:
    run_count: int = 0
    wake_count: int = 0
    sleep_count: int = 0
    marker: str = "new"


class RunSelfInitiatedSleep(Actor[SelfSleepState]):
    options = Options(sleep_after=1)

    def on_wake(self) -> None:
        self.state.wake_count += 1

    def run(self) -> None:
        self.state.run_count += 1
        if self.state.run_count == 1:
            self.state.marker = "sleep-requested"
            self.sleep()

    def on_sleep(self) -> None:
        self.state.sleep_count += 1
        self.state.marker = "slept"

    @action
    def get_state(self) -> SelfSleepState:
        return self.state


@attrs.define
class SelfDestroyState:
    run_count: int = 0
    destroy_requested: bool = False


class RunSelfInitiatedDestroy(Actor[SelfDestroyState]):
    options = Options(sleep_after=1)

    def run(self) -> None:
        self.state.run_count += 1
        if not self.state.destroy_requested:
            self.state.destroy_requested = True
            self.destroy()

    async def on_destroy(self) -> None:
        observer = self.client().get_or_create(LifecycleObserver, ["self-initiated-destroy"])
        await observer.call(
            LifecycleObserver.record_event,
            LifecycleEvent(self.actor_id, "destroy"),
        )

    @action
    def get_state(self) -> SelfDestroyState:
        return self.state


@attrs.define
class StubbornState:
    wake_count: int = 0
    destroy_count: int = 0


class RunIgnoresAbortStopTimeout(Actor[StubbornState]):
    options = Options(sleep_after=0.05, shutdown_grace=0.1)

    def on_wake(self) -> None:
        self.state.wake_count += 1

    async def run(self) -> None:
        # Nothing in a Trio program can end what is shielded, so unlike the suite's this handler does not try for ever.
        with trio.move_on_after(1, shield=True):
            await trio.sleep_forever()

    def on_destroy(self) -> None:
        self.state.destroy_count += 1

    @action
    def get_state(self) -> StubbornState:
        return self.state

    @action(name="destroy")
    def end(self) -> None:
        self.destroy()


@attrs.define
class WakeState:
    wake_count: int = 0


class RunWithoutHandler(Actor[WakeState]):
    options = Options(sleep_after=1)

    def on_wake(self) -> None:
        self.state.wake_count += 1

    @action
    def get_state(self) -> WakeState:
        return self.state


ACTORS = (
    RunWithTicks,
    RunWithQueueConsumer,
    RunWithEarlyExit,
    RunWithError,
    RunSelfInitiatedSleep,
    RunSelfInitiatedDestroy,
    RunIgnoresAbortStopTimeout,
    RunWithoutHandler,
)
