"""Which web pages may use a server, and the CORS headers that tell their browsers so.

A browser sends an Origin with every WebSocket, and with every request of a page of another site that is more than a
link, an image or the like; with those it sends Sec-Fetch-Site (W3C Fetch Metadata). A server on loopback that accepted
any of them could be driven by every page that its user visits, so by default only pages of the server's own origin and
of this machine may. Programs that are not browsers send neither and are not concerned.

The server's own origin is known by the Host header, and a page can have a name of its own lead to this machine (DNS
rebinding). So a listener on loopback serves only requests whose Host is an address or a name of this machine, and so
does every listener once hosts are listed.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Final, final
from urllib.parse import urlsplit

from trivet.server.http import Head, HttpError

_LOCAL_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_LOCAL_DOMAIN: Final = ".localhost"
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}

_AUTHORITY: Final = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[^\[\]:@/?#\s,]+)(?::(?P<port>[0-9]+))?")

_ANY: Final = "*"
_OPAQUE: Final = "null"

_OTHER_SITES: Final = frozenset({"cross-site", "same-site"})

# What a preflight is answered, and for how long the browser may remember it.
_METHODS: Final = "GET, POST, PUT, DELETE, OPTIONS, PATCH"
_MAX_AGE: Final = "86400"


@final
class Origins:
    """The origins that are welcome: same origin, localhost on any port, and those listed.

    An entry is an origin as browsers write it (`https://app.example.com`, with the port unless it is the scheme's own),
    `null` for opaque origins, or `*` for every one. `hosts` are names by which the server is known, without a port, or
    `*` for every one; those of listed origins need not be named again. Raises ValueError for anything else.
    """

    __slots__ = ("_allowed", "_any", "_any_host", "_hosts", "_strict")

    def __init__(self, allowed: Iterable[str] = (), hosts: Iterable[str] = ()) -> None:
        entries = {_normalise(entry) for entry in allowed}
        names = {_host_entry(entry) for entry in hosts}
        self._any: Final = _ANY in entries
        self._allowed: Final = frozenset(entries)
        self._any_host: Final = self._any or _ANY in names
        self._strict: Final = bool(names)
        self._hosts: Final = names | {_host(urlsplit(entry).netloc) for entry in entries - {_ANY, _OPAQUE}}

    def refusal(self, head: Head, *, loopback: bool, page: bool) -> HttpError | None:
        """Why a request may not be served, None if it may.

        `loopback` says that it came to a listener on loopback, `page` that it asks for what anybody may follow a link
        to.
        """
        headers = head.headers
        if (loopback or self._strict) and not self.knows(headers.get("host")):
            return _host_error()
        if not self.allows(headers.get("origin"), headers.get("host")):
            return _origin_error()
        if not self._any and _is_foreign(headers) and not (page and _is_navigation(head)):
            return _origin_error()
        return None

    def knows(self, host: str | None) -> bool:
        """Whether a Host header names this machine: by an address, as localhost or below it, or by a listed name.

        Requests without a Host, which no browser sends, name it too; and any Host does where every origin is allowed.
        """
        if host is None or self._any_host:
            return True
        name = _host(host.strip().lower())
        return name == "localhost" or name.endswith(_LOCAL_DOMAIN) or _is_address(name) or name in self._hosts

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
        scheme, _, authority = normal.partition("://")
        if scheme not in _DEFAULT_PORTS:
            return False
        if _host(authority) in _LOCAL_HOSTS:
            return True
        return host is not None and authority == _without_default_port(scheme, host.strip().lower())


def _is_foreign(headers: Mapping[str, str]) -> bool:
    """Whether a page of another site causes this request, and its browser does not say which."""
    return "origin" not in headers and headers.get("sec-fetch-site") in _OTHER_SITES


def _is_navigation(head: Head) -> bool:
    return head.method == "GET" and head.headers.get("sec-fetch-mode") == "navigate"


def _host(authority: str) -> str:
    """The host of an authority in lower case, an IPv6 address with its brackets; "" for what is none."""
    match = _AUTHORITY.fullmatch(authority)
    return "" if match is None else match["host"].removesuffix(".")


def _host_entry(entry: str) -> str:
    text = entry.strip().lower()
    match = _AUTHORITY.fullmatch(text)
    if text == _ANY or (match is not None and match["port"] is None):
        return text.removesuffix(".")
    raise ValueError(f"{entry!r} is no host: write it as in app.example.com, without a port, or * for every host")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _normalise(origin: str) -> str:
    text = origin.strip().lower().removesuffix("/")
    if text in (_ANY, _OPAQUE):
        return text
    scheme, _, authority = text.partition("://")
    match = _AUTHORITY.fullmatch(authority)
    port = 1 if match is None or match["port"] is None else int(match["port"][:6])
    bracketed = authority.startswith("[")
    if (
        match is None
        or not re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme)
        or not 0 < port < 1 << 16
        or (bracketed and not _is_address(match["host"]))
    ):
        raise ValueError(f"{origin!r} is no origin: write it as in https://app.example.com, or * for every origin")
    return f"{scheme}://{_without_default_port(scheme, authority)}"


def _without_default_port(scheme: str, authority: str) -> str:
    return authority.removesuffix(f":{_DEFAULT_PORTS[scheme]}") if scheme in _DEFAULT_PORTS else authority


def _origin_error() -> HttpError:
    # The answer carries no CORS headers, so only people see it.
    return HttpError(
        403,
        "guard",
        "origin_not_allowed",
        "Pages of this origin may not use this server. Allow it with --allow-origin or allowed_origins.",
    )


def _host_error() -> HttpError:
    return HttpError(
        403,
        "guard",
        "host_not_allowed",
        "This server is not known by the name in the Host header. Use its address or localhost, or allow the name "
        "with --allow-host or allowed_hosts.",
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
