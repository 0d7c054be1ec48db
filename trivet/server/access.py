"""The server token: what a client has to show before it learns or does anything of actors."""

import re
from collections.abc import Iterator, Sequence
from hmac import compare_digest
from typing import Final, final
from urllib.parse import unquote

from trivet.protocol.gateway import Route
from trivet.protocol.subprotocols import parse_subprotocols
from trivet.server.http import Head, HttpError

# What a header, a subprotocol and a URL can all carry.
_TOKEN: Final = re.compile(r"[!-+\--~]+")

_BEARER: Final = "bearer "


@final
class ServerToken:
    """The one token that opens a server. Raises ValueError, which does not say it, for what cannot be one."""

    __slots__ = ("_expected",)

    def __init__(self, token: str) -> None:
        if not _TOKEN.fullmatch(token):
            raise ValueError("a server token is made of visible ASCII characters other than the comma, and not empty")
        self._expected: Final = token.encode("ascii")

    def check(self, head: Head, route: Route | None, offered: Sequence[str] = ()) -> None:
        """Raise the HttpError 401 `api.unauthorized` for a request that does not present the token.

        A request may present several, since an actor may want an Authorization of its own: one has to be right.
        `offered` are the subprotocols of a WebSocket.
        """
        # Every comparison takes the same time, whatever the difference is.
        if not any(compare_digest(token.encode(), self._expected) for token in _presented(head, route, offered)):
            raise HttpError(
                401, "api", "unauthorized", "This server wants a token, and the request has not the right one."
            )


def _presented(head: Head, route: Route | None, offered: Sequence[str]) -> Iterator[str]:
    """The tokens of a request, wherever RivetKit's clients put them."""
    authorization = head.headers.get("authorization", "")
    if authorization[: len(_BEARER)].lower() == _BEARER:
        yield authorization[len(_BEARER) :].strip()
    yield head.headers.get("x-rivet-token", "")
    subprotocol = parse_subprotocols(offered).token or ""
    yield subprotocol
    yield unquote(subprotocol)
    if route is not None:
        yield route.target.token or ""
