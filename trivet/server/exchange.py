"""One HTTP request on its way to an answer, and the answers that are the same everywhere."""

from collections.abc import Mapping
from typing import Final, cast, final
from urllib.parse import parse_qsl, urlsplit

import attrs

from trivet.errors import ActorRef, EncodeError, PublicError
from trivet.protocol.codec import Codec, codec_for
from trivet.protocol.messages import Error
from trivet.protocol.values import UNDEFINED
from trivet.raw import Request, Response
from trivet.runtime.answers import error_message
from trivet.server.caller import Caller
from trivet.server.gateway import Gateway
from trivet.server.http import Head, HttpConnection, error_status

JSON_CODEC: Final = cast("Codec", codec_for("json"))

_DEFAULT_NAMESPACE: Final = "default"

# What HTTP wants to be said beside some statuses (RFC 9110 section 11.6.1, RFC 6585 section 4).
_HEADERS_OF_STATUS: Final = {401: ("www-authenticate", "Bearer"), 429: ("retry-after", "1")}


@final
@attrs.frozen
class Exchange:
    """A request, and what is needed to answer it."""

    gateway: Gateway
    http: HttpConnection
    head: Head
    ray_id: str
    caller: Caller

    @property
    def path(self) -> str:
        """The path of the request target, percent-encoded as sent. It may hold a token."""
        return self.head.target.partition("?")[0]

    @property
    def shown(self) -> str:
        """The request in words, for the log: without what tokens may stand in."""
        return f"{self.head.method} {self.path.partition('@')[0][:200]}"

    @property
    def query_string(self) -> str:
        """What follows the `?`."""
        return self.head.target.partition("?")[2]

    @property
    def namespace(self) -> str:
        """The namespace of a control request. Raises PublicError `api.bad_request`."""
        return self.parameters.get("namespace", _DEFAULT_NAMESPACE)

    @property
    def parameters(self) -> dict[str, str]:
        """The query of a control request. Raises PublicError `api.bad_request` where it is not UTF-8."""
        try:
            return dict(parse_qsl(self.query_string, keep_blank_values=True, errors="strict"))
        except ValueError:
            raise PublicError("api", "bad_request", "The query cannot be read.") from None

    @property
    def origin(self) -> str | None:
        """The Origin header, which browsers send."""
        return self.head.headers.get("origin")

    def request(self, target: str, body: bytes = b"") -> Request:
        """This request as an actor sees it, with the path and query that are its own."""
        return actor_request(self.head, target, caller=self.caller, body=body)


def actor_request(head: Head, target: str, *, caller: Caller, body: bytes = b"") -> Request:
    """A request as an actor sees it. RivetKit's `fetch` of a full URL says in a header which that was.

    It is believed of the server's name, as the Host header is, and not of another path or query.
    """
    headers: Mapping[str, str] = head.headers
    url = f"{'https' if caller.secure else 'http'}://{headers.get('host', 'localhost')}{target}"
    original = headers.get("x-rivet-internal-original-request-url")
    if original is not None:
        headers = {name: value for name, value in headers.items() if name != "x-rivet-internal-original-request-url"}
        if _is_url_of(original, target):
            url = original
    return Request(head.method, url, headers, caller.address, body)


def _is_url_of(text: str, target: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    path = parts.path or "/"
    return bool(parts.scheme and parts.netloc) and target == (f"{path}?{parts.query}" if parts.query else path)


def gateway_error(error: PublicError) -> Response:
    """The answer with an error of the way to an actor: always JSON, and named in a header."""
    response = error_response(error, JSON_CODEC)
    response.headers.append(("x-rivet-error", f"{error.group}.{error.code}"))
    if response.status in _HEADERS_OF_STATUS:
        response.headers.append(_HEADERS_OF_STATUS[response.status])
    return response


def error_response(error: PublicError, codec: Codec, actor: ActorRef | None = None) -> Response:
    """The answer with an error, in an encoding. Metadata that cannot travel are left out."""
    try:
        body = codec.encode_error(error_message(error, actor=error.actor or actor))
    except EncodeError:
        body = codec.encode_error(Error(error.group, error.code, error.message, UNDEFINED, None, error.actor or actor))
    return Response(body, error_status(error), [("content-type", codec.content_type)])


def json_response(body: bytes) -> Response:
    """An answer of the control API."""
    return Response(body, 200, [("content-type", "application/json")])
