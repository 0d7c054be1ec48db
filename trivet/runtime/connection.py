"""One connection as actor code sees it, and the mapping of all of them."""

from collections.abc import Callable, ItemsView, Iterator, Mapping, ValuesView
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, cast, overload
from uuid import uuid4

import attrs
import trio

from trivet.actor import CP, CS
from trivet.event import Event, Ts
from trivet.raw import Request, WebSocket

if TYPE_CHECKING:
    from trivet.runtime.instance import Instance
    from trivet.runtime.session import Session

ConnKind: TypeAlias = Literal["events", "call", "raw"]


@attrs.frozen
class ConnStatistics:
    """Counts of one connection. `queued_*` wait in this process for its client to read.

    `unacknowledged` messages are kept for a resumable client until it says that it has them; `dropped` events gave way
    by their overflow policy.
    """

    queued_messages: int = 0
    queued_bytes: int = 0
    sent_messages: int = 0
    unacknowledged: int = 0
    dropped: int = 0
    unanswered_calls: int = 0
    subscriptions: int = 0


class Conn(Generic[CS, CP]):
    """A connection: `events` (a client's `.connect()`), `call` (the transient one of a stateless call) or `raw`."""

    __slots__ = ("_instance", "_left", "_request", "_session", "_websocket", "id", "kind", "params", "state")

    def __init__(self, instance: "Instance", kind: ConnKind, request: Request) -> None:
        self._instance = instance
        self._request = request
        self._session: Session | None = None
        self._websocket: WebSocket | None = None
        self._left = False  # its `on_disconnect` has run
        self.id = str(uuid4())
        """Unique, and new with every connection."""
        self.kind: ConnKind = kind
        self.params: CP = cast("CP", None)
        """What the client connected with."""
        self.state: CS = cast("CS", None)
        """This connection's own state, from `create_conn_state`."""

    @property
    def request(self) -> Request:
        """The request that opened it: headers, peer address, url."""
        return self._request

    @overload
    def send(self, event: Event[*Ts], *args: *Ts) -> bool: ...
    @overload
    def send(self, event: str, *args: object) -> bool: ...
    def send(self, event: Event[*tuple[Any, ...]] | str, *args: object) -> bool:
        """Send an event to this connection, subscribed or not. Never waits.

        False, and nothing happens, when it has ended or is not of kind `events`. Raises ValidationError, EncodeError
        or `message.outgoing_too_long` for an event that cannot be sent.
        """
        session = self._session
        return session is not None and not session.ended and self._instance.emitter.send(session, event, args)

    @overload
    async def publish(self, event: Event[*Ts], *args: *Ts, timeout: float = 5) -> bool: ...
    @overload
    async def publish(self, event: str, *args: object, timeout: float = 5) -> bool: ...
    async def publish(self, event: Event[*tuple[Any, ...]] | str, *args: object, timeout: float = 5) -> bool:
        """`send` once this connection has room. Raises trio.TooSlowError after `timeout` seconds; False as `send`."""
        session = self._session
        if session is None or session.ended:
            await trio.lowlevel.checkpoint()
            return False
        return await self._instance.emitter.publish_to(session, event, args, timeout)

    @property
    def attached(self) -> bool:
        """False while a resumable connection waits for its client to come back. It stays in `conns` meanwhile."""
        return self._session is None or not self._session.outbox.detached

    def disconnect(self, reason: str = "") -> None:
        """End it: what was sent before is delivered, then its socket is closed with 1000 and the reason.

        It leaves `conns` at once, and `on_disconnect` follows in its turn. Calls of it that wait for their turn are
        dropped, and so is the response of the action that is running for it, even of the one that calls this.
        Harmless for one that has ended, and for a stateless call.
        """
        if self._session is not None:
            self._session.kick(reason)
        elif self._websocket is not None:
            self._instance.start_background(self._websocket.aclose, (1000, reason))

    def statistics(self) -> ConnStatistics:
        """What waits for its client, and how much it has used."""
        return ConnStatistics() if self._session is None else self._session.statistics()

    def __repr__(self) -> str:
        return f"<Conn {self.id} {self.kind}>"


class Conns(Mapping[str, Conn[CS, CP]]):
    """The admitted connections of one actor, by id, in the order of admission. Iterating walks a snapshot."""

    __slots__ = ("_conns",)

    def __init__(self, conns: dict[str, Conn[CS, CP]]) -> None:
        self._conns = conns

    def __getitem__(self, conn_id: str) -> Conn[CS, CP]:
        return self._conns[conn_id]

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._conns))

    def __len__(self) -> int:
        return len(self._conns)

    def values(self) -> ValuesView[Conn[CS, CP]]:
        """The connections as they are now."""
        return self._conns.copy().values()

    def items(self) -> ItemsView[str, Conn[CS, CP]]:
        """The connections with their ids as they are now."""
        return self._conns.copy().items()

    def find(self, predicate: Callable[[Conn[CS, CP]], bool]) -> Conn[CS, CP] | None:
        """The first connection for which `predicate` is true, or None."""
        return next((conn for conn in tuple(self._conns.values()) if predicate(conn)), None)

    def __repr__(self) -> str:
        return f"<Conns of {len(self._conns)}>"
