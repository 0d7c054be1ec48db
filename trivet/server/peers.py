"""What one peer address may have: connections at once, new connections and messages in a second.

Programs of this machine are not limited, nor is a stream that has no address. Behind a proxy every client has the
proxy's address, unless the proxy is trusted to say whose it is.
"""

import ipaddress
import math
from typing import Final, final

import trio

from trivet.limits import Limits
from trivet.runtime.logs import logger
from trivet.server.addresses import read_address
from trivet.server.http import HttpError

# What ends a WebSocket that is over a limit.
TRY_AGAIN_LATER: Final = 1013
RATE_LIMIT: Final = "guard.rate_limit"

# A bucket holds what so many seconds bring: a page that loads, or clients that all come back, are no flood.
BURST: Final = 10.0

# Refused connections that are told why, in a second; those on top of them are closed without a word.
_TOLD_RATE: Final = 5.0

# Addresses without a connection that are remembered. The one that left first is forgotten, and so forgiven, first.
REMEMBERED: Final = 4096

# Who has one IPv6 address has as a rule all of this network (RFC 6177).
_IPV6_NETWORK: Final = 64

_SECONDS_BETWEEN_WARNINGS: Final = 10.0


@final
class _Bucket:
    """A token bucket, full at first. It holds one token at least, however low the rate is."""

    __slots__ = ("_at", "_level", "_rate", "_size")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._size = max(1.0, rate * BURST)
        self._level = self._size
        self._at = now

    def take(self, now: float) -> bool:
        """Take a token. Whether there was one."""
        self._fill(now)
        if self._level < 1.0:
            return False
        self._level -= 1.0
        return True

    def full(self, now: float) -> bool:
        """Whether nobody could tell it from a new one."""
        self._fill(now)
        return self._level >= self._size

    def _fill(self, now: float) -> None:
        self._level = min(self._size, self._level + (now - self._at) * self._rate)
        self._at = now


def _bucket(rate: float, now: float) -> _Bucket | None:
    return None if math.isinf(rate) else _Bucket(rate, now)


@final
class _Peer:
    """What is known of one address."""

    __slots__ = ("admitted", "arrivals", "away", "connections", "messages", "told")

    def __init__(self, limits: Limits, now: float) -> None:
        self.connections = 0
        self.admitted = 0  # of them; those that are being refused keep nobody out
        self.away = 0  # of them: sessions that wait for a client, which must be let in when it comes back
        self.arrivals = _bucket(limits.peer_connection_rate, now)
        self.messages = _bucket(limits.peer_message_rate, now)
        self.told = _Bucket(_TOLD_RATE, now)

    def forgettable(self, now: float) -> bool:
        """Whether it is like an address that has never been here."""
        return all(bucket is None or bucket.full(now) for bucket in (self.arrivals, self.messages, self.told))


@final
class Visit:
    """One connection of an address that is limited, until `leave`."""

    __slots__ = ("_away", "_excess", "_peers", "_who", "ignored", "key")

    def __init__(self, peers: "Peers", key: str, who: _Peer, excess: str, *, ignored: bool) -> None:
        self._peers = peers
        self.key: Final = key
        """What counts as one address."""
        self._who = who
        self._excess = excess
        self._away = False
        self.ignored: Final = ignored
        """Whether it is to be closed without a word."""

    @property
    def admitted(self) -> bool:
        """Whether it is within the limits of connections."""
        return not self._excess

    def leave(self) -> None:
        """The connection is over."""
        self._peers._leave(self.key, self._who, admitted=self.admitted, away=self._away)

    def stay(self) -> bool:
        """The connection is over, and its session waits for its client until `leave`. False where too many do."""
        self._away = self._peers._stay(self._who, admitted=self.admitted)
        return self._away

    def check(self) -> None:
        """Count one request. Raises HttpError 429 `guard.rate_limit`, after which the connection ends."""
        if self._excess:
            raise _rate_limit(self._excess)
        if not self.take():
            raise _rate_limit("Too many requests and messages")

    def take(self) -> bool:
        """Count one message. False for one too many."""
        bucket = self._who.messages
        if bucket is None or bucket.take(trio.current_time()):
            return True
        self._peers.warn("peer_message_rate")
        return False


@final
class Peers:
    """The addresses that are connected, and those that were a moment ago. Their number is bounded."""

    __slots__ = ("_absent", "_limits", "_present", "_warned_at")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._present: dict[str, _Peer] = {}
        self._absent: dict[str, _Peer] = {}  # in the order in which they left
        self._warned_at = -math.inf

    def __len__(self) -> int:
        return len(self._present) + len(self._absent)

    def enter(self, address: str | None, *, arrives: bool = True) -> Visit | None:
        """One connection, to be left at its end; None for one that is not limited.

        One that does not arrive is there already, for somebody else: it counts among those that are there at once, not
        among the new ones.
        """
        key = _key(address)
        if key is None:
            return None
        now = trio.current_time()
        who = self._present.get(key) or self._absent.pop(key, None) or _Peer(self._limits, now)
        self._present[key] = who
        who.connections += 1
        excess = self._excess(who, now, arrives)
        visit = Visit(self, key, who, excess, ignored=arrives and bool(excess) and not who.told.take(now))
        who.admitted += visit.admitted
        return visit

    def _stay(self, who: _Peer, *, admitted: bool) -> bool:
        if who.away >= self._limits.peer_connections:
            self.warn("peer_connections")
            return False
        who.admitted -= admitted
        who.away += 1
        return True

    def _leave(self, key: str, who: _Peer, *, admitted: bool, away: bool) -> None:
        if away:
            who.away -= 1
        else:
            who.admitted -= admitted
        who.connections -= 1
        if not who.connections:
            del self._present[key]
            self._absent[key] = who
            self._forget()

    def _excess(self, who: _Peer, now: float, arrives: bool) -> str:
        """What there is too much of, "" for nothing."""
        if who.admitted >= self._limits.peer_connections:
            self.warn("peer_connections")
            return "Too many connections"
        if arrives and who.arrivals is not None and not who.arrivals.take(now):
            self.warn("peer_connection_rate")
            return "Too many new connections"
        return ""

    def _forget(self) -> None:
        now = trio.current_time()
        while self._absent:
            key, who = next(iter(self._absent.items()))
            if len(self._absent) <= REMEMBERED and not who.forgettable(now):
                return
            del self._absent[key]

    def warn(self, limit: str) -> None:
        """Say in the log that a limit was reached: not more often than somebody would want to read it."""
        now = trio.current_time()
        if now >= self._warned_at + _SECONDS_BETWEEN_WARNINGS:
            self._warned_at = now
            logger.warning(
                "an address has reached Limits.%s = %g and is refused; if it is a proxy's, name it with trusted_proxies"
                " or --trusted-proxy",
                limit,
                getattr(self._limits, limit),
            )


def _key(address: str | None) -> str | None:
    """What is counted as one peer; None for what is not limited."""
    if address is None:
        return None
    ip = read_address(address)
    if ip is None:
        return address  # `serve_stream` takes any name
    if ip.is_loopback:
        return None
    return str(ip) if ip.version == 4 else str(ipaddress.ip_network((int(ip), _IPV6_NETWORK), strict=False))


def _rate_limit(excess: str) -> HttpError:
    return HttpError(429, "guard", "rate_limit", f"{excess} from this address", close=True)
