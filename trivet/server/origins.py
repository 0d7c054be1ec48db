"""Which web pages may use a server, and the CORS headers that tell their browsers so.

A browser sends an Origin with every WebSocket and with every request that a page of another site makes. A server on
loopback that accepted any of them could be driven by every page that its user visits, so by default only pages of the
server's own origin and of this machine may. Programs that are not browsers send no Origin and are not concerned.
"""

from collections.abc import Iterable
from typing import Final, final
from urllib.parse import urlsplit

from trivet.server.http import HttpError

_LOCAL_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}

_EMPTY: Final = urlsplit("")
_ANY: Final = "*"
_OPAQUE: Final = "null"

# What a preflight is answered, and for how long the browser may remember it.
_METHODS: Final = "GET, POST, PUT, DELETE, OPTIONS, PATCH"
_MAX_AGE: Final = "86400"


@final
class Origins:
    """The origins that are welcome: same origin, localhost on any port, and those listed.

    An entry is an origin as browsers write it (`https://app.example.com`, with the port unless it is the scheme's own),
    `null` for opaque origins, or `*` for every one. Raises ValueError for anything else.
    """

    __slots__ = ("_allowed", "_any")

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        entries = {_normalise(entry) for entry in allowed}
        self._any: Final = _ANY in entries
        self._allowed: Final = frozenset(entries)

    def allows(self, origin: str | None, host: str | None) -> bool:
        """Whether a request with these Origin and Host headers may be served.

        Same origin means the same host and port: the scheme is not compared, since TLS may end at a proxy.
        """
        if origin is None or self._any:
            return True
        try:
            normal = _normalise(origin)
        except ValueError:
            return False
        if normal in self._allowed:
            return True
        parts = urlsplit(normal)
        if parts.scheme not in _DEFAULT_PORTS:
            return False
        if parts.hostname in _LOCAL_HOSTS:
            return True
        return host is not None and parts.netloc == _without_default_port(parts.scheme, host.strip().lower())


def _normalise(origin: str) -> str:
    text = origin.strip().lower().removesuffix("/")
    if text in (_ANY, _OPAQUE):
        return text
    parts = _EMPTY
    try:
        parts = urlsplit(text)
        # Reading the port raises ValueError for one that is no number.
        valid = bool(parts.scheme and parts.hostname) and parts.port != 0 and text == f"{parts.scheme}://{parts.netloc}"
    except ValueError:
        valid = False
    if not valid or "@" in text:
        raise ValueError(f"{origin!r} is no origin: write it as in https://app.example.com, or * for every origin")
    return f"{parts.scheme}://{_without_default_port(parts.scheme, parts.netloc)}"


def _without_default_port(scheme: str, authority: str) -> str:
    return authority.removesuffix(f":{_DEFAULT_PORTS[scheme]}") if scheme in _DEFAULT_PORTS else authority


def origin_error() -> HttpError:
    """What a page of another origin is told; the answer carries no CORS headers, so only people see it."""
    return HttpError(
        403,
        "guard",
        "origin_not_allowed",
        "Pages of this origin may not use this server. Allow it with --allow-origin or allowed_origins.",
    )


def cors_headers(origin: str | None) -> list[tuple[str, str]]:
    """The headers of every answer that an allowed page may read."""
    headers = [
        ("access-control-allow-origin", origin or "*"),
        ("access-control-allow-credentials", "true"),
        ("access-control-expose-headers", "*"),
    ]
    if origin is not None:
        headers.append(("vary", "Origin"))
    return headers


def preflight_headers(origin: str | None, requested_headers: str | None) -> list[tuple[str, str]]:
    """The headers that answer an OPTIONS request."""
    return [
        *cors_headers(origin),
        ("access-control-allow-methods", _METHODS),
        ("access-control-allow-headers", requested_headers or "*"),
        ("access-control-max-age", _MAX_AGE),
    ]
