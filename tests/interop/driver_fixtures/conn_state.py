"""State of connections, and when a connection is seen among the others."""

from typing import TypedDict

import attrs
import trio

from trivet import Actor, Conn, Event, action

from .support import now_ms


@attrs.define
class ConnStateParams:
    username: str | None = None
    role: str | None = None
    no_count: bool | None = None


@attrs.define
class UserState:
    username: str
    role: str
    counter: int
    created_at: int
    no_count: bool


@attrs.frozen
class ConnectionView:
    """The state of a connection with its id."""

    id: str
    username: str
    role: str
    counter: int
    created_at: int
    no_count: bool


@attrs.frozen
class Greeting:
    id: str
    username: str


@attrs.frozen
class UserConnected:
    id: str
    username: str
    role: str


@attrs.frozen
class UserDisconnected:
    id: str


# "from" is no name for a Python field; the functional form gives it to a key.
DirectMessage = TypedDict("DirectMessage", {"from": str, "message": str})


class ConnectionUpdate(TypedDict, total=False):
    username: str
    role: str


@attrs.define
class SharedState:
    shared_counter: int = 0
    disconnection_count: int = 0


class ConnStateActor(Actor[SharedState, UserState, ConnStateParams]):
    connected_from_on_connect = Event(Greeting)
    connected_from_on_connect_conns = Event(Greeting)
    user_connected = Event(UserConnected)
    user_disconnected = Event(UserDisconnected)
    direct_message = Event(DirectMessage)

    def create_conn_state(self, params: ConnStateParams) -> UserState:
        return UserState(
            username=params.username or "anonymous",
            role=params.role or "user",
            counter=0,
            created_at=now_ms(),
            no_count=params.no_count or False,
        )

    def on_connect(self, conn: Conn[UserState, ConnStateParams]) -> None:
        conn.send(self.connected_from_on_connect, Greeting(conn.id, conn.state.username))
        listed = self.conns[conn.id]
        listed.send(self.connected_from_on_connect_conns, Greeting(listed.id, listed.state.username))
        self.broadcast(self.user_connected, UserConnected(conn.id, "anonymous", "user"))

    def on_disconnect(self, conn: Conn[UserState, ConnStateParams]) -> None:
        if not conn.state.no_count:
            self.state.disconnection_count += 1
            self.broadcast(self.user_disconnected, UserDisconnected(conn.id))

    @action
    def increment_conn_counter(self, amount: int = 1) -> None:
        self.conn.state.counter += amount

    @action
    def increment_shared_counter(self, amount: int = 1) -> int:
        self.state.shared_counter += amount
        return self.state.shared_counter

    @action
    def get_connection_state(self) -> ConnectionView:
        return _view(self.conn)

    @action
    def get_connection_ids(self) -> list[str]:
        return [conn.id for conn in self.conns.values() if not conn.state.no_count]

    @action
    def get_disconnection_count(self) -> int:
        return self.state.disconnection_count

    @action
    def get_all_connection_states(self) -> list[ConnectionView]:
        return [_view(conn) for conn in self.conns.values()]

    @action
    def send_to_connection(self, target_id: str, message: str) -> bool:
        target = self.conns.get(target_id)
        if target is None:
            return False
        direct: DirectMessage = {"from": self.conn.id, "message": message}
        target.send(self.direct_message, direct)
        return True

    @action
    def update_connection(self, updates: ConnectionUpdate) -> UserState:
        state = self.conn.state
        state.username = updates.get("username") or state.username
        state.role = updates.get("role") or state.role
        return state

    @action
    def disconnect_self(self, reason: str = "test.disconnect") -> bool:
        self.conn.disconnect(reason)
        return True


def _view(conn: Conn[UserState, ConnStateParams]) -> ConnectionView:
    return ConnectionView(id=conn.id, **attrs.asdict(conn.state))


@attrs.define
class PreflightParams:
    label: str | None = None
    before_delay_ms: int | None = None
    create_delay_ms: int | None = None
    reject_before: bool | None = None
    reject_create: bool | None = None


@attrs.define
class Labelled:
    label: str


@attrs.frozen
class ConnectSnapshot:
    label: str
    own_visible: bool
    visible_labels: list[str]


@attrs.frozen
class DisconnectSnapshot:
    label: str | None
    other_labels: list[str]


@attrs.define
class PreflightState:
    before_started: int = 0
    create_started: int = 0
    before_visible_labels: list[list[str]] = attrs.field(factory=list[list[str]])
    create_visible_labels: list[list[str]] = attrs.field(factory=list[list[str]])
    connect_snapshots: list[ConnectSnapshot] = attrs.field(factory=list[ConnectSnapshot])
    disconnect_snapshots: list[DisconnectSnapshot] = attrs.field(factory=list[DisconnectSnapshot])


@attrs.frozen
class PreflightSnapshot:
    before_started: int
    create_started: int
    before_visible_labels: list[list[str]]
    create_visible_labels: list[list[str]]
    connect_snapshots: list[ConnectSnapshot]
    disconnect_snapshots: list[DisconnectSnapshot]
    visible_labels: list[str]


class ConnPreflightVisibilityActor(Actor[PreflightState, Labelled, PreflightParams]):
    def _labels(self) -> list[str]:
        return [conn.state.label for conn in self.conns.values()]

    async def on_before_connect(self, params: PreflightParams) -> None:
        self.state.before_started += 1
        self.state.before_visible_labels.append(self._labels())
        if params.before_delay_ms:
            await trio.sleep(params.before_delay_ms / 1000)
        if params.reject_before:
            raise RuntimeError("rejected before connect")

    async def create_conn_state(self, params: PreflightParams) -> Labelled:
        self.state.create_started += 1
        self.state.create_visible_labels.append(self._labels())
        if params.create_delay_ms:
            await trio.sleep(params.create_delay_ms / 1000)
        if params.reject_create:
            raise RuntimeError("rejected create conn state")
        return Labelled(params.label or "anonymous")

    def on_connect(self, conn: Conn[Labelled, PreflightParams]) -> None:
        self.state.connect_snapshots.append(
            ConnectSnapshot(conn.state.label, conn.id in self.conns, self._labels()),
        )

    def on_disconnect(self, conn: Conn[Labelled, PreflightParams]) -> None:
        others = [other.state.label for other in self.conns.values() if other.id != conn.id]
        self.state.disconnect_snapshots.append(DisconnectSnapshot(conn.state.label, others))

    @action
    def snapshot(self) -> PreflightSnapshot:
        state = self.state
        return PreflightSnapshot(
            before_started=state.before_started,
            create_started=state.create_started,
            before_visible_labels=state.before_visible_labels,
            create_visible_labels=state.create_visible_labels,
            connect_snapshots=state.connect_snapshots,
            disconnect_snapshots=state.disconnect_snapshots,
            visible_labels=self._labels(),
        )


ACTORS = (ConnStateActor, ConnPreflightVisibilityActor)
