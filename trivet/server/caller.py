"""For whom a connection's requests are: what is limited and logged, and what actors see, goes by that address."""

from types import MappingProxyType
from typing import Final, final

from trivet.server.http import Head
from trivet.server.peers import Peers, Visit
from trivet.server.proxies import TrustedProxies
from trivet.server.wire import Wire

_FORWARDED_FOR: Final = "x-forwarded-for"
_FORWARDED_PROTO: Final = "x-forwarded-proto"

# Some proxies name the scheme of a WebSocket's URL.
_SECURE: Final = MappingProxyType({"http": False, "ws": False, "https": True, "wss": True})


@final
class Caller:
    """Whoever is at the other end of a connection; where that is a trusted proxy, for whom it asks at the moment.

    A connection of a client counts among those of its address from its first byte to its last. One of a proxy carries
    the requests of many clients, in turn: of each of them it is a connection from the head of a request to the end of
    its answer, or of the WebSocket that it becomes; between them it is nobody's.
    """

    __slots__ = ("_peers", "_proxies", "_wire", "address", "secure", "visit")

    def __init__(self, wire: Wire, peers: Peers, proxies: TrustedProxies) -> None:
        self._wire: Final = wire
        self._peers: Final = peers
        self._proxies: Final = proxies if proxies.trusts(wire.peer) else None
        self.address = wire.peer
        """None where there is no network. A proxy's is that of the client that it asked for last."""
        self.secure = wire.secure
        """Whether the client speaks TLS: to the proxy, where there is one that says so."""
        self.visit: Visit | None = None
        """What it may have; None where that is not limited."""

    def __enter__(self) -> None:
        if self._proxies is None:
            self.visit = self._peers.enter(self._wire.peer)

    def __exit__(self, *_: object) -> None:
        self._leave()

    @property
    def forwarded(self) -> bool:
        """Whether others' requests come over the same connection."""
        return self._proxies is not None

    @property
    def owner(self) -> str | None:
        """Whom what is held for it is charged to; None where that is not limited."""
        return None if self.visit is None else self.visit.key

    def begin(self, head: Head, *, websocket: bool) -> None:
        """A request has come. Raises HttpError 429 for one that is not even worth a WebSocket to say no over."""
        if self._proxies is None:
            return
        self.address = self._proxies.client(self._wire.peer, head.headers.get(_FORWARDED_FOR))
        scheme = head.headers.get(_FORWARDED_PROTO, "").rpartition(",")[2].strip().lower()
        self.secure = _SECURE.get(scheme, self._wire.secure)
        # A client's connections to the proxy are not seen here: only a WebSocket is known to be a new one.
        self.visit = self._peers.enter(self.address, arrives=websocket)
        if self.visit is not None and self.visit.ignored:
            self.visit.check()  # to hang up would look to the proxy as if the server were broken, for everybody

    def end(self) -> None:
        """The request is answered."""
        if self._proxies is not None:
            self._leave()

    def _leave(self) -> None:
        if self.visit is not None:
            self.visit.leave()
            self.visit = None
