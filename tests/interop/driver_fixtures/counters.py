"""Counters: state, broadcasts, connection state, and the order of the connection hooks."""

import attrs

from trivet import Actor, Conn, Event, action

from .support import now_ms


@attrs.define
class CounterState:
    count: int = 0


class Counter(Actor[CounterState]):
    new_count = Event(int)

    @action
    def increment(self, x: int) -> int:
        self.state.count += x
        self.broadcast(self.new_count, self.state.count)
        return self.state.count

    @action
    def set_count(self, x: int) -> int:
        self.state.count = x
        self.broadcast(self.new_count, x)
        return self.state.count

    @action
    def get_count(self) -> int:
        return self.state.count

    @action
    def get_key(self) -> list[str]:
        return list(self.key)


@attrs.define
class ConnectionCount:
    connection_count: int = 0


class CounterConn(Actor[ConnectionCount, CounterState]):
    new_count = Event(int)

    def on_connect(self, conn: Conn[CounterState, object]) -> None:
        self.state.connection_count += 1

    def on_disconnect(self, conn: Conn[CounterState, object]) -> None:
        self.state.connection_count -= 1

    @action
    def increment(self, x: int) -> None:
        self.conn.state.count += x
        self.broadcast(self.new_count, self.conn.state.count)

    @action
    def set_count(self, x: int) -> None:
        self.conn.state.count = x
        self.broadcast(self.new_count, x)

    @action
    def get_count(self) -> int:
        return self.conn.state.count

    @action
    def get_connection_count(self) -> int:
        return self.state.connection_count


@attrs.define
class NamedParams:
    name: str | None = None


@attrs.define
class Named:
    name: str


@attrs.define
class CounterWithParamsState:
    count: int = 0
    initializers: list[str] = attrs.field(factory=list[str])


@attrs.frozen
class CountBy:
    count: int
    by: str


class CounterWithParams(Actor[CounterWithParamsState, Named, NamedParams]):
    new_count = Event(CountBy)

    def create_conn_state(self, params: NamedParams) -> Named:
        return Named(params.name or "anonymous")

    def on_connect(self, conn: Conn[Named, NamedParams]) -> None:
        self.state.initializers.append(conn.state.name)

    @action
    def increment(self, x: int) -> int:
        self.state.count += x
        self.broadcast(self.new_count, CountBy(self.state.count, self.conn.state.name))
        return self.state.count

    @action
    def get_initializers(self) -> list[str]:
        return self.state.initializers


@attrs.define
class LifecycleParams:
    track_lifecycle: bool = False


@attrs.define
class JoinTime:
    join_time: int


@attrs.define
class LifecycleState:
    count: int = 0
    events: list[str] = attrs.field(factory=list[str])


class CounterWithLifecycle(Actor[LifecycleState, JoinTime, LifecycleParams]):
    def on_wake(self) -> None:
        self.state.events.append("onWake")

    def on_before_connect(self, params: LifecycleParams) -> None:
        self._track("onBeforeConnect", params)

    def create_conn_state(self, params: LifecycleParams) -> JoinTime:
        return JoinTime(now_ms())

    def on_connect(self, conn: Conn[JoinTime, LifecycleParams]) -> None:
        self._track("onConnect", conn.params)

    def on_disconnect(self, conn: Conn[JoinTime, LifecycleParams]) -> None:
        self._track("onDisconnect", conn.params)

    def _track(self, event: str, params: LifecycleParams) -> None:
        if params.track_lifecycle:
            self.state.events.append(event)

    @action
    def get_events(self) -> list[str]:
        return self.state.events

    @action
    def increment(self, x: int) -> int:
        self.state.count += x
        return self.state.count


ACTORS = (Counter, CounterConn, CounterWithParams, CounterWithLifecycle)
