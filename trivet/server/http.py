"""HTTP/1.1 on one connection: requests in, answers out, within limits of size and time. h11 does the parsing.

Every way in which a client can be wrong or slow ends as an HttpError, which the caller answers like any other error.
"""

import re
import time
from collections.abc import Mapping
from email.utils import formatdate
from functools import cache, lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, final

import attrs
import h11
import trio

from trivet.errors import PublicError, http_status
from trivet.limits import Limits
from trivet.raw import Response
from trivet.server.wire import Wire

if TYPE_CHECKING:
    from trivet.server.budget import Share

# Bodies may come in chunks of one byte; other tasks run after so many events.
_EVENTS_BETWEEN_CHECKPOINTS: Final = 128

# How long a connection that ends after an error is still read, so that the client gets to read the answer.
_LINGER: Final = 2.0

# The end of a head, for h11 too.
_BLANK_LINE: Final = re.compile(rb"\n\r?\n")

# Of one head, beside its size: each line costs far more than the bytes in it.
_LINES: Final = 256

# What h11 quotes of a request in its errors, as Python writes it.
_QUOTED: Final = re.compile(r"""[:\s]*\b(?:bytearray\(|b['"]).*""", re.DOTALL)

_NO_BODY: Final = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})

# Framing and the connection are this module's; what an application says about them is left out.
_OWN_HEADERS: Final = frozenset({"content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "date"})

_KNOWN: Final = {
    name.encode(): name
    for name in (
        "accept",
        "accept-encoding",
        "accept-language",
        "authorization",
        "cache-control",
        "connection",
        "content-length",
        "content-type",
        "cookie",
        "host",
        "origin",
        "pragma",
        "sec-websocket-extensions",
        "sec-websocket-key",
        "sec-websocket-protocol",
        "sec-websocket-version",
        "upgrade",
        "user-agent",
        "x-forwarded-for",
        "x-forwarded-proto",
    )
}


class HttpError(PublicError):
    """A request that cannot be served as HTTP. With `close` the connection ends after the answer."""

    def __init__(self, status: int, group: str, code: str, message: str, *, close: bool = False) -> None:
        super().__init__(group, code, message)
        self.status = status
        self.close = close


def error_status(error: PublicError) -> int:
    """The HTTP status that answers with this error."""
    return error.status if isinstance(error, HttpError) else http_status(error)


@attrs.frozen
class Head:
    """The head of a request: its target without scheme and host, header names in lower case, repeated ones joined."""

    method: str
    target: str
    headers: Mapping[str, str]
    version: str = "1.1"


@final
class HttpConnection:
    """The server's side of one HTTP/1.1 connection.

    For each request: `receive_head`, `read_body` or `discard_body`, `respond`, `next_cycle`. What a client pipelines
    waits until its turn. All methods raise trio.BrokenResourceError when the peer is gone.
    """

    __slots__ = ("_body_read", "_declared_size", "_h11", "_limits", "_method", "_served", "_share", "_wire")

    def __init__(self, wire: Wire, limits: Limits, share: "Share") -> None:
        self._wire = wire
        self._share = share
        self._limits = limits
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.http_header)
        self._method = "GET"
        self._served = False
        self._body_read = True
        self._declared_size = 0

    async def receive_head(self) -> Head | None:
        """The head of the next request, or None when the client ends or stays silent. Raises HttpError."""
        waiting = self._limits.http_idle_timeout if self._served else self._limits.http_header_timeout
        started = bool(self._h11.trailing_data[0])
        if started:
            waiting = self._limits.http_header_timeout
            await trio.lowlevel.checkpoint()  # Pipelined requests must not keep the loop to themselves.
        self._method = "GET"
        with trio.CancelScope(deadline=trio.current_time() + waiting) as scope:
            while True:
                self._check_head()
                event = self._next_event()
                if isinstance(event, h11.Request):
                    self._body_read = False
                    self._served = True
                    return self._head(event)
                if isinstance(event, h11.ConnectionClosed):
                    return None
                data = await self._wire.receive()
                if data and not started:
                    started = True
                    scope.deadline = trio.current_time() + self._limits.http_header_timeout
                self._h11.receive_data(data)
        if started:
            raise HttpError(408, "api", "request_timeout", "The request headers took too long", close=True)
        return None

    def _check_head(self) -> None:
        """Raises HttpError for the beginning of a head that is too large: before the rest is here, or any is parsed."""
        received = self._h11.trailing_data[0]
        end = _BLANK_LINE.search(received)
        size = len(received) if end is None else end.end()
        if size > self._limits.http_header or received.count(b"\n", 0, size) > _LINES:
            raise HttpError(431, "api", "headers_too_large", "The request headers are too large", close=True)

    def _head(self, request: h11.Request) -> Head:
        headers: dict[str, str] = {}
        for raw_name, raw_value in request.headers:
            # A connection keeps its headers; of names that are known there is one copy for all of them.
            name, value = _KNOWN.get(raw_name) or raw_name.decode("ascii"), raw_value.decode("latin-1")
            joint = "; " if name == "cookie" else ", "
            headers[name] = f"{headers[name]}{joint}{value}" if name in headers else value
        self._method = request.method.decode("ascii")
        version = request.http_version.decode("ascii")
        if self._method == "CONNECT":
            raise HttpError(405, "api", "method_not_allowed", "This server is no proxy", close=True)
        # A proxy before the server may have seen another end of this request (RFC 9112 section 6.1).
        if "transfer-encoding" in headers and ("content-length" in headers or version == "1.0"):
            raise HttpError(400, "api", "bad_request", "The request has two framings", close=True)
        self._declared_size = int(headers.get("content-length", "0"))
        return Head(self._method, _origin_form(request.target.decode("latin-1")), headers, version)

    async def read_body(self, limit: int) -> bytes | None:
        """The whole body, or None when it is longer than `limit`; the rest of it is read and thrown away.

        It counts among the bodies of all requests until `release_body`. Raises HttpError when it is longer than any
        body may be, takes too long, or has no room among the others.
        """
        body = bytearray()
        size = 0
        events = 0
        maximum = max(limit, self._limits.http_body)
        with trio.CancelScope(deadline=trio.current_time() + self._limits.http_body_timeout):
            while not self._body_read:
                event = self._next_event()
                if isinstance(event, h11.Data):
                    size += len(event.data)
                    if size > maximum:
                        raise _body_too_large()
                    if size <= limit:
                        self._share.hold(size)
                        body += event.data
                    else:
                        body.clear()
                    events += 1
                    if events % _EVENTS_BETWEEN_CHECKPOINTS == 0:
                        await trio.lowlevel.checkpoint()
                elif isinstance(event, h11.EndOfMessage):
                    self._body_read = True
                else:
                    if self._declared_size > maximum:
                        raise _body_too_large()
                    if self._h11.they_are_waiting_for_100_continue:
                        if self._declared_size > limit:
                            return None  # It asked before sending, and need not send.
                        await self._send(self._h11.send(h11.InformationalResponse(status_code=100, headers=[])))
                    self._h11.receive_data(await self._wire.receive())
            return bytes(body) if size <= limit else None
        raise HttpError(408, "api", "request_timeout", "The request body took too long", close=True)

    def release_body(self) -> None:
        """The body is not needed any more."""
        self._share.hold(0)

    @property
    def body_read(self) -> bool:
        """Whether the body has been read to its end, or there was none."""
        return self._body_read

    async def discard_body(self) -> None:
        """Read the body to its end, so that the connection can be used again. Raises HttpError as `read_body`.

        A long one is left unread, and the connection ends after the answer: it is not worth the waiting.
        """
        if self._body_read or self._h11.they_are_waiting_for_100_continue:
            return
        if self._declared_size <= self._limits.incoming_message:
            await self.read_body(0)

    def skip_body(self) -> bool:
        """Throw away what is here of the body already. Whether that was the whole of it. Raises HttpError."""
        while not self._body_read and not self._h11.they_are_waiting_for_100_continue:
            event = self._next_event()
            if isinstance(event, h11.EndOfMessage):
                self._body_read = True
            elif not isinstance(event, h11.Data):
                break
        return self._body_read

    async def respond(self, response: Response, *, close: bool = False) -> None:
        """Send an answer. Raises h11.LocalProtocolError or ValueError, and sends nothing, for what HTTP cannot carry.

        With `close`, or when the rest of the request is unread, it says that the connection ends.
        """
        if self._h11.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return  # Nothing can be answered any more.
        bodiless = self._method == "HEAD" or response.status in _NO_BODY
        headers = [("date", _http_date(int(time.time())))]
        headers += [(name, value) for name, value in response.headers if name.lower() not in _OWN_HEADERS]
        if response.status != HTTPStatus.NO_CONTENT:
            headers.append(("content-length", str(len(response.body))))
        if close or not self._body_read:
            headers.append(("connection", "close"))
        raw_headers = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]
        head = h11.Response(status_code=response.status, headers=raw_headers, reason=_reason(response.status))
        data = self._h11.send(head)
        if response.body and not bodiless:
            data += self._h11.send(h11.Data(data=response.body))
        data += self._h11.send(h11.EndOfMessage())
        await self._send(data)

    def next_cycle(self) -> bool:
        """Make ready for the next request; False when there will be none."""
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
            return True
        return False

    async def linger(self) -> None:
        """Before closing: if the client may be sending still, let it get to read what it was answered."""
        complete = self._h11.their_state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED)
        if not complete or self._h11.trailing_data[0]:
            await self._wire.linger(_LINGER)

    async def switch_protocols(self, headers: list[tuple[str, str]]) -> bytes:
        """Answer 101, and return what the client has sent after its request: it belongs to the new protocol."""
        head = h11.InformationalResponse(status_code=101, headers=headers, reason=_reason(101))
        await self._send(self._h11.send(head))
        return self._h11.trailing_data[0]

    def _next_event(self) -> object:
        try:
            return self._h11.next_event()
        except h11.RemoteProtocolError as exc:
            message = f"Bad request: {_QUOTED.sub('', str(exc))}"
            raise HttpError(exc.error_status_hint, "api", "bad_request", message, close=True) from exc

    async def _send(self, data: bytes) -> None:
        taken = self._wire.send_nowait(data)
        if taken == len(data):
            return
        # A client that does not read its answer must not hold this task for ever.
        with trio.move_on_after(self._limits.http_body_timeout):
            await self._wire.send_all(memoryview(data)[taken:])
            return
        raise trio.BrokenResourceError("the client does not read its answer")


def _origin_form(target: str) -> str:
    # A proxy's request names the server too (RFC 9112 section 3.2.2).
    if target.startswith(("http://", "https://")):
        path = target.split("/", 3)[3:]
        return f"/{path[0]}" if path else "/"
    return target


def _body_too_large() -> HttpError:
    return HttpError(413, "api", "body_too_large", "The request body is too large", close=True)


@lru_cache(maxsize=1)
def _http_date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)


@cache
def _reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""
