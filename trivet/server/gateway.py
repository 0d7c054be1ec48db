"""What every connection of one server shares: the host of the actors, who is welcome, and what goes on."""

from collections.abc import Collection, Mapping, Sequence
from typing import Final, final

import attrs
import trio

from trivet.errors import PublicError
from trivet.protocol.gateway import Route
from trivet.raw import Response
from trivet.runtime.host import Host
from trivet.runtime.session import Session
from trivet.server.access import ServerToken
from trivet.server.budget import Budget, Share
from trivet.server.caller import Caller
from trivet.server.during import During
from trivet.server.http import Head, HttpError
from trivet.server.origins import Origins
from trivet.server.peers import Peers
from trivet.server.proxies import TrustedProxies

# They say nothing of actors. RivetKit's client would ask for metadata for ever if it was refused them.
_OPEN_PATHS: Final = frozenset({"/", "/health", "/metadata"})


@attrs.frozen
class GatewayStatistics:
    """`connections` are open now, `websockets` of them; `requests` were begun since the start."""

    connections: int
    websockets: int
    requests: int


@final
class Gateway:
    """The way from sockets to one host's actors."""

    __slots__ = (
        "_away",
        "_budget",
        "_connections",
        "_idle",
        "_loopback",
        "_requests",
        "_token",
        "_websockets",
        "_working",
        "decoding",
        "host",
        "limits",
        "origins",
        "pages",
        "peers",
        "proxies",
    )

    def __init__(
        self,
        host: Host,
        origins: Origins,
        pages: Mapping[str, Response] | None = None,
        loopback: Collection[str] = (),
        token: ServerToken | None = None,
        proxies: TrustedProxies | None = None,
    ) -> None:
        """`loopback` are the addresses of listeners that no other machine can reach."""
        self.host: Final = host
        self.limits: Final = host.limits
        self.origins: Final = origins
        self.pages: Final = dict(pages or {})
        """What is answered to a GET of these paths."""
        self.peers: Final = Peers(host.limits)
        self.proxies: Final = proxies or TrustedProxies()
        self._loopback: Final = frozenset(loopback)
        self._token: Final = token
        self._budget: Final = Budget(host.limits.http_bodies)
        self.decoding: Final = trio.CapacityLimiter(1)
        """Of threads that decode: Python runs one at a time anyhow, and each has much memory in use."""
        self._connections = 0
        self._away = 0
        self._websockets = 0
        self._requests = 0
        self._working = 0
        self._idle: trio.Event | None = None

    def connection(self) -> During[bool]:
        """Count one connection while it lasts. False when there are far too many to even tell it so."""
        self._connections += 1
        # A client that is told can say why and when to retry; those that come on top of these are not told.
        return During(
            self._connections <= self.limits.connections + _spare(self.limits.connections), self._end_connection
        )

    def _end_connection(self) -> None:
        self._connections -= 1

    def check(self) -> None:
        """Raise the PublicError that refuses work now: `actor.stopping`, `guard.service_unavailable`."""
        if self.host.stopping:
            raise PublicError("actor", "stopping", "The server is stopping")
        if self._connections > self.limits.connections:
            raise PublicError("guard", "service_unavailable", "The server has too many connections")

    def refusal(self, head: Head, address: str | None) -> HttpError | None:
        """Why a page that causes this request may not, None where there is no page or it may.

        `address` is this end's of the connection.
        """
        path = head.target.partition("?")[0]
        page = path == "/" or path in self.pages
        return self.origins.refusal(head, loopback=address in self._loopback, page=page)

    def authorize(self, head: Head, route: Route | None, offered: Sequence[str] = ()) -> None:
        """Raise the HttpError 401 `api.unauthorized` where a token is wanted and not presented."""
        if self._token is None:
            return
        if route is None:
            path = head.target.partition("?")[0]
            if path in self.pages or path in _OPEN_PATHS:
                return
        self._token.check(head, route, offered)

    def share(self, caller: Caller) -> Share:
        """What a connection may have the server hold."""
        share = Share(self._budget, self.limits.incoming_message)
        share.charge_to(caller.owner)
        return share

    def request(self) -> During[None]:
        """Count one request until it is answered."""
        self._requests += 1
        self._working += 1
        return During(None, self._end_work)

    def keep_place(self, session: Session, caller: Caller) -> None:
        """A connection is over. If its session waits for its client, it has its place; where too many do, it ends."""
        absence, visit = session.absence, caller.visit
        if absence is None or not session.away:
            return
        if self._away >= self.limits.connections or not (visit is None or visit.stay()):
            session.give_up()
            return
        caller.visit = None  # it is the session's now
        self._away += 1

        def over() -> None:
            self._away -= 1
            if visit is not None:
                visit.leave()

        absence.on_end(over)

    def websocket(self) -> During[None]:
        """Count one WebSocket that an actor serves."""
        self._websockets += 1
        self._working += 1
        return During(None, self._end_websocket)

    def _end_websocket(self) -> None:
        self._websockets -= 1
        self._end_work()

    def _end_work(self) -> None:
        self._working -= 1
        if not self._working and self._idle is not None:
            self._idle.set()

    async def idle(self) -> None:
        """Wait until no request is unanswered and no actor serves a WebSocket."""
        while self._working:
            self._idle = trio.Event()
            await self._idle.wait()

    def statistics(self) -> GatewayStatistics:
        """Counts, see GatewayStatistics."""
        return GatewayStatistics(self._connections, self._websockets, self._requests)


def _spare(connections: int) -> int:
    return 64 + connections // 16
