"""Where a server is, and who its client is there."""

from typing import Final
from urllib.parse import unquote, urlsplit

import attrs

_PORTS: Final = {"http": 80, "https": 443}

DEFAULT_NAMESPACE: Final = "default"


@attrs.frozen
class Endpoint:
    """A server's address. `prefix` is the path before every route, without a trailing slash."""

    scheme: str
    host: str
    port: int
    prefix: str
    namespace: str
    token: str | None = attrs.field(repr=False)

    @property
    def secure(self) -> bool:
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """The Host header's value: the port is left out where it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> tuple[str, str, int]:
        """Whom it leads to: scheme, host and port."""
        return self.scheme, self.host, self.port

    def url(self, resource: str) -> str:
        """The whole URL of a path and query."""
        return f"{self.scheme}://{self.authority}{resource}"


def parse_endpoint(url: str, token: str | None = None, namespace: str | None = None) -> Endpoint:
    """An endpoint from `http://host:port/prefix`, or with its user in it: `http://namespace:token@host`.

    ws and wss stand for http and https. Raises ValueError for anything else, and where the URL and the arguments both
    say who the user is.
    """
    parts = urlsplit(url)
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    if scheme not in _PORTS or not parts.hostname:
        raise ValueError(f"an endpoint is http://host[:port][/prefix] or https://..., not {url!r}")
    if parts.query or parts.fragment:
        raise ValueError("an endpoint has no query and no fragment")
    if parts.username is not None:
        if token is not None or namespace is not None:
            raise ValueError("give the namespace and token either in the URL or as arguments")
        namespace = unquote(parts.username)
        token = unquote(parts.password) if parts.password is not None else None
    if parts.password is not None and not namespace:
        raise ValueError("a token in the URL needs a namespace before it: http://namespace:token@host")
    return Endpoint(
        scheme=scheme,
        host=parts.hostname,
        port=parts.port or _PORTS[scheme],
        prefix=parts.path.rstrip("/"),
        namespace=namespace or DEFAULT_NAMESPACE,
        token=token or None,
    )
