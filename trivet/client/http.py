"""HTTP requests of a client, over httpcore."""

import math
import re
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self, cast
from urllib.parse import urlsplit

import attrs
import httpcore
import trio

from trivet.client.dial import Dialer, HttpBackend
from trivet.errors import ActorError, ConnectionLost
from trivet.limits import Limits

KEEP_ALIVE: Final = 30.0
"""How long an idle connection is kept, in seconds: less than any server does."""

MAX_REQUESTS: Final = 256
"""Requests of one client at the same time; further ones wait."""

_FAILURES: Final = (httpcore.NetworkError, httpcore.RemoteProtocolError, httpcore.TimeoutException)


@attrs.frozen
class Answer:
    """An HTTP response. Header names are as they came."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    def header(self, name: str) -> str:
        """The first header of that (lower-case) name, or ""."""
        return next((value for key, value in self.headers if key.lower() == name), "")


class _Body:
    """A request's body.

    httpcore's own is an async generator, which a cancellation in the middle leaves to the garbage collector.
    """

    def __init__(self, body: bytes) -> None:
        self._rest = body

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._rest:
            raise StopAsyncIteration
        body, self._rest = self._rest, b""
        return body


# Taking a new connection into use waits for nothing; were that to change, a cancellation would not wait longer.
_SHIELDED_AT_MOST: Final = 1.0


class _Progress:
    """Follows one request through httpcore.

    Between opening a connection and taking it into use httpcore has a checkpoint at which a cancellation would leave
    the connection open and unusable in the pool; it is shielded. Nothing waits there.
    """

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.sent = False

    async def trace(self, event: str, info: Mapping[str, object]) -> None:
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self.scope.shield = True
            self.scope.deadline = trio.current_time() + _SHIELDED_AT_MOST
        elif event in ("connection.start_tls.started", "http11.send_request_headers.started"):
            self.scope.shield = False
            self.scope.deadline = math.inf
            self.sent = event == "http11.send_request_headers.started"


class HttpClient:
    """A pool of kept-alive connections. Closing it ends what goes on."""

    def __init__(self, dialer: Dialer, limits: Limits) -> None:
        self._limits = limits
        self._slots = trio.Semaphore(MAX_REQUESTS)
        self._pool = httpcore.AsyncConnectionPool(
            # The dialer has the real one; httpcore would change it, and load certificates even for plain HTTP.
            ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            max_connections=None,
            max_keepalive_connections=16,
            keepalive_expiry=KEEP_ALIVE,
            network_backend=HttpBackend(dialer),
        )

    async def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, *, timeout: float, max_answer: int
    ) -> Answer:
        """Send one request and read the answer, within `timeout` seconds; its body is at most `max_answer` bytes.

        Raises ConnectionLost, with `maybe_executed` once bytes of the request were sent, ValueError for a URL or
        headers that HTTP cannot carry, ActorError `message.outgoing_too_long` for too large a response.
        """
        progress = _Progress()
        answer: Answer | None = None
        with trio.move_on_after(timeout):
            async with self._slots:
                with progress.scope:
                    answer = await self._send(method, url, headers, body, progress, max_answer)
        if answer is None:
            raise ConnectionLost(f"no answer from {_shown(url)} within {timeout:g} s", maybe_executed=progress.sent)
        return answer

    async def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, progress: _Progress, max_answer: int
    ) -> Answer:
        try:
            request = httpcore.Request(
                method,
                url,
                headers=[
                    (name.encode("ascii"), value.encode("latin-1")) for name, value in self._headed(url, headers, body)
                ],
                content=_Body(body),
                extensions={"trace": progress.trace},
            )
            response = await self._pool.handle_async_request(request)
            try:
                return Answer(
                    response.status,
                    [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers],
                    await self._read(response, max_answer),
                )
            finally:
                await response.aclose()
        except _FAILURES as error:
            message = f"the connection to {_shown(url)} failed: {str(error) or type(error).__name__}"
            raise ConnectionLost(message, maybe_executed=progress.sent) from error
        except (httpcore.LocalProtocolError, httpcore.UnsupportedProtocol, UnicodeEncodeError) as error:
            raise ValueError(f"this request cannot be sent: {error}") from error

    def _headed(self, url: str, headers: Mapping[str, str], body: bytes) -> list[tuple[str, str]]:
        length = [("content-length", str(len(body)))] if body else []
        return [("host", urlsplit(url).netloc), *headers.items(), *length]

    async def _read(self, response: httpcore.Response, max_answer: int) -> bytes:
        body = bytearray()
        too_long = False
        stream = cast("httpcore.AsyncNetworkStream", cast("Any", response).extensions["network_stream"])
        try:
            async for chunk in response.aiter_stream():
                body += chunk
                if len(body) > max_answer and not too_long:
                    too_long = True
                    # The rest shall not come. Breaking out would leave httpcore's generators to the garbage collector.
                    await stream.aclose()
        except httpcore.ReadError:
            if not too_long:
                raise
        if too_long:
            raise ActorError("message", "outgoing_too_long", f"The response is over {max_answer} bytes")
        return bytes(body)

    async def aclose(self) -> None:
        """Close every connection."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + self._limits.close_timeout):
            await self._pool.aclose()


def _shown(url: str) -> str:
    """A URL as an error may show it: a query carries the input of actors, and what follows an @ in it is a token."""
    return re.sub(r"@[^/]*", "", url.partition("?")[0])
