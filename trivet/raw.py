"""Low-level HTTP and WebSocket, as actors serve them and clients open them. Events never touch these."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

import attrs

from trivet.errors import TrivetError


@attrs.frozen
class Request:
    """An HTTP request: a raw one, or the one that opened a connection or carried a call.

    `headers` have lower-case names; repeated ones are joined with ", ". `peer` is the client's address, None where
    there is no network. `body` is whole, and empty for an upgrade.
    """

    method: str
    url: str
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str])
    peer: str | None = None
    body: bytes = b""

    @property
    def path(self) -> str:
        """The path as it was sent, still percent-encoded."""
        return urlsplit(self.url).path or "/"

    @property
    def query_string(self) -> str:
        """What follows the question mark, as it was sent, still percent-encoded."""
        return urlsplit(self.url).query

    @property
    def query(self) -> dict[str, str]:
        """The decoded query; of a repeated name the last value."""
        return dict(parse_qsl(self.query_string, keep_blank_values=True))

    def text(self) -> str:
        """The body as UTF-8. Raises UnicodeDecodeError."""
        return self.body.decode()

    def json(self) -> Any:
        """The body as JSON. Raises ValueError."""
        return json.loads(self.body)


class Response:
    """The answer to a raw request. A `str` body is sent as UTF-8, as text/plain unless a content type is given."""

    def __init__(
        self,
        body: bytes | str = b"",
        status: int = 200,
        headers: Mapping[str, str] | Sequence[tuple[str, str]] | None = None,
    ) -> None:
        pairs = list(headers.items()) if isinstance(headers, Mapping) else list(headers or ())
        if isinstance(body, str) and not any(name.lower() == "content-type" for name, _ in pairs):
            pairs.append(("content-type", "text/plain; charset=utf-8"))
        self.status = status
        self.headers = pairs
        self.body = body.encode() if isinstance(body, str) else body

    @classmethod
    def json(cls, value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Self:
        """A JSON response. Raises TypeError or ValueError for what JSON cannot hold."""
        pairs = {"content-type": "application/json", **(headers or {})}
        return cls(json.dumps(value, allow_nan=False, separators=(",", ":")), status, pairs)

    def header(self, name: str) -> str | None:
        """The first header of that name, in any case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def text(self) -> str:
        """The body as UTF-8. Raises UnicodeDecodeError."""
        return self.body.decode()

    def parse_json(self) -> Any:
        """The body as JSON. Raises ValueError."""
        return json.loads(self.body)

    def __repr__(self) -> str:
        return f"<Response {self.status}, {len(self.body)} bytes>"


class WebSocketClosed(TrivetError):
    """The low-level WebSocket has ended; `code` and `reason` are the peer's, or 1006 when there were none."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class WebSocket(ABC):
    """A low-level WebSocket: whole messages, in order, text as str and binary as bytes.

    One task may send while another receives; two tasks may send. After the end, `close_code` and `close_reason` are
    what the closing side said.
    """

    request: Request | None = None
    close_code: int | None = None
    close_reason: str = ""

    @abstractmethod
    async def send(self, data: str | bytes) -> None:
        """Send one message, waiting for room. Raises WebSocketClosed. When cancelled midway the socket is ended."""

    @abstractmethod
    async def receive(self) -> str | bytes:
        """The next message. Raises WebSocketClosed. Cancelling loses nothing."""

    @abstractmethod
    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """Close, wait for the peer's answer within a deadline. Idempotent; when cancelled, ends the socket at once."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str | bytes:
        try:
            return await self.receive()
        except WebSocketClosed:
            raise StopAsyncIteration from None
