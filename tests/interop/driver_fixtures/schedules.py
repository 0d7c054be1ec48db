"""Actors with actions that run later."""

import attrs

from trivet import Actor, Event, action

from .support import not_supported, now_ms


@attrs.define
class ScheduledState:
    last_run: int = 0
    scheduled_count: int = 0
    task_history: list[str] = attrs.field(factory=list[str])


@attrs.frozen
class Fired:
    time: int
    count: int


@attrs.frozen
class FiredWithId:
    task_id: str
    time: int
    count: int


@attrs.frozen
class ScheduledTask:
    task_id: str
    scheduled_for: int


class Scheduled(Actor[ScheduledState]):
    scheduled = Event(Fired)
    scheduled_with_id = Event(FiredWithId)

    @action
    def schedule_task_at(self, timestamp: int) -> int:
        self.schedule.at(timestamp / 1000, Scheduled.on_scheduled_task)
        return timestamp

    @action
    def schedule_task_after(self, delay: int) -> int:
        self.schedule.after(delay / 1000, Scheduled.on_scheduled_task)
        return now_ms() + delay

    @action
    def schedule_task_after_with_id(self, task_id: str, delay: int) -> ScheduledTask:
        self.schedule.after(delay / 1000, Scheduled.on_scheduled_task_with_id, task_id)
        return ScheduledTask(task_id, now_ms() + delay)

    @action
    def schedule_task(self, delay: int) -> int:
        return self.schedule_task_at(now_ms() + delay)

    @action
    def get_last_run(self) -> int:
        return self.state.last_run

    @action
    def get_scheduled_count(self) -> int:
        return self.state.scheduled_count

    @action
    def get_task_history(self) -> list[str]:
        return self.state.task_history

    @action
    def clear_history(self) -> bool:
        self.state = ScheduledState()
        return True

    @action
    def on_scheduled_task(self) -> None:
        self._count()
        self.broadcast(self.scheduled, Fired(self.state.last_run, self.state.scheduled_count))

    @action
    def on_scheduled_task_with_id(self, task_id: str) -> None:
        self._count()
        self.state.task_history.append(task_id)
        self.broadcast(self.scheduled_with_id, FiredWithId(task_id, self.state.last_run, self.state.scheduled_count))

    def _count(self) -> None:
        self.state.last_run = now_ms()
        self.state.scheduled_count += 1


@attrs.define
class ScheduledCount:
    scheduled_count: int = 0


class ScheduledDb(Actor[ScheduledCount]):
    @action
    def schedule_db_write(self, delay: int) -> None:
        raise not_supported("A database")

    @action
    def get_log_count(self) -> int:
        raise not_supported("A database")

    @action
    def get_scheduled_count(self) -> int:
        return self.state.scheduled_count


ACTORS = (Scheduled, ScheduledDb)
