"""Actors that sleep under open connections."""

import attrs
import trio

from trivet import Actor, Conn, Event, Options, action

from .support import NoState


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
    options = Options(sleep_after=0.5, sleep_with_connections=True)

    def on_wake(self) -> None:
        self.state.wake_count += 1

    def on_sleep(self) -> None:
        self.state.sleep_count += 1

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
        self.sleep()


class HibernationSleepWindowActor(Actor[HibernationState, NoState]):
    options = Options(sleep_after=0.5, sleep_with_connections=True)
    sleeping = Event()

    def on_wake(self) -> None:
        self.state.wake_count += 1

    async def on_sleep(self) -> None:
        self.state.sleep_count += 1
        self.broadcast(self.sleeping)
        await trio.sleep(0.5)

    @action
    def get_actor_counts(self) -> HibernationState:
        return self.state

    @action
    def trigger_sleep(self) -> None:
        self.sleep()


@attrs.define
class CleanupState(HibernationState):
    disconnect_wake_counts: list[int] = attrs.field(factory=list[int])


class FileSystemHibernationCleanupActor(Actor[CleanupState, NoState]):
    options = Options(sleep_after=0.5, sleep_with_connections=True)

    def on_wake(self) -> None:
        self.state.wake_count += 1

    def on_sleep(self) -> None:
        self.state.sleep_count += 1

    def on_disconnect(self, conn: Conn[NoState, object]) -> None:
        if conn.kind == "events":
            self.state.disconnect_wake_counts.append(self.state.wake_count)

    @action
    def ping(self) -> str:
        return "pong"

    @action
    def trigger_sleep(self) -> None:
        self.sleep()

    @action
    def get_counts(self) -> HibernationState:
        return HibernationState(self.state.sleep_count, self.state.wake_count)

    @action
    def get_disconnect_wake_counts(self) -> list[int]:
        return self.state.disconnect_wake_counts


ACTORS = (HibernationActor, HibernationSleepWindowActor, FileSystemHibernationCleanupActor)
