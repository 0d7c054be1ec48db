"""Opening byte streams to a server."""

import os
import ssl
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias, cast, runtime_checkable

import httpcore
import trio

from trivet.errors import ConnectionLost

Connect: TypeAlias = Callable[[str, int], Awaitable[trio.abc.Stream]]
"""Opens a plain stream to a host and port. Raises OSError."""


class NoTls(ConnectionLost):
    """The server does not speak TLS. No further attempt helps."""


def last_reason(error: BaseException) -> str:
    """What the system said in the end: Trio tries each address of a host, and keeps the errors as the cause."""
    if isinstance(error, BaseExceptionGroup):
        return last_reason(cast("BaseExceptionGroup[BaseException]", error).exceptions[-1])
    cause = error.__cause__
    if isinstance(cause, (OSError, BaseExceptionGroup)):
        return last_reason(cast("BaseException", cause))  # type: ignore[redundant-cast, unused-ignore]  # pyright infers unknowns
    if isinstance(error, OSError) and (error.errno or 0) > 0:
        return os.strerror(error.errno or 0)  # Trio's own text names the address once more
    return str(error)


class Dialer:
    """Opens streams, with TLS where the URL says so. Every failure leaves nothing open."""

    def __init__(self, tls: ssl.SSLContext | None, timeout: float, connect: Connect = trio.open_tcp_stream) -> None:
        self._tls = tls
        self._timeout = timeout
        self._connect = connect

    @property
    def tls_context(self) -> ssl.SSLContext:
        """The context for https."""
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    async def plain(self, host: str, port: int) -> trio.abc.Stream:
        """A stream without TLS. Raises ConnectionLost."""
        try:
            with trio.fail_after(self._timeout):
                return await self._connect(host, port)
        except trio.TooSlowError:
            message = f"{host}:{port} did not answer within {self._timeout:g} s"
            raise ConnectionLost(message, maybe_executed=False) from None
        except OSError as error:
            reason = last_reason(error)
            raise ConnectionLost(f"cannot connect to {host}:{port}: {reason}", maybe_executed=False) from error

    async def secure(self, stream: trio.abc.Stream, host: str) -> trio.abc.Stream:
        """TLS on top of a stream. Raises ConnectionLost."""
        # Peers end their side without TLS's goodbye, and HTTP and WebSocket have their own: https_compatible.
        secured: trio.SSLStream[trio.abc.Stream] = trio.SSLStream(
            stream, self.tls_context, server_hostname=host, https_compatible=True
        )
        try:
            with trio.fail_after(self._timeout):
                await secured.do_handshake()
        except trio.TooSlowError:
            await trio.aclose_forcefully(stream)
            message = f"{host} did not finish its TLS handshake within {self._timeout:g} s"
            raise ConnectionLost(message, maybe_executed=False) from None
        except (trio.BrokenResourceError, OSError) as error:
            await trio.aclose_forcefully(stream)
            reason = error.__cause__ or error
            if isinstance(reason, ssl.SSLError) and reason.reason == "WRONG_VERSION_NUMBER":
                raise NoTls(
                    f"the TLS handshake with {host} failed; does the server speak plain http?", maybe_executed=False
                ) from error
            raise ConnectionLost(f"the TLS handshake with {host} failed: {reason}", maybe_executed=False) from error
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return secured

    async def open(self, host: str, port: int, secure: bool) -> trio.abc.Stream:
        """A stream that is ready for HTTP."""
        stream = await self.plain(host, port)
        return await self.secure(stream, host) if secure else stream


@runtime_checkable
class _Looking(Protocol):
    """A stream that can tell, without waiting, whether there is something to receive, or the end."""

    def is_readable(self) -> bool: ...


class HttpStream(httpcore.AsyncNetworkStream):
    """A Trio stream for httpcore.

    httpcore's own backend leaves the socket open when a TLS handshake is cancelled, and works on sockets only.
    """

    def __init__(self, dialer: Dialer, stream: trio.abc.Stream) -> None:
        self._dialer = dialer
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            with trio.fail_after(float("inf") if timeout is None else timeout):
                return bytes(await self._stream.receive_some(max_bytes))
        except trio.TooSlowError as error:
            raise httpcore.ReadTimeout from error
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpcore.ReadError(str(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            with trio.fail_after(float("inf") if timeout is None else timeout):
                await self._stream.send_all(buffer)
        except trio.TooSlowError as error:
            raise httpcore.WriteTimeout from error
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpcore.WriteError(str(error)) from error

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        return HttpStream(self._dialer, await self._dialer.secure(self._stream, server_hostname or ""))

    def get_extra_info(self, info: str) -> object:
        if info == "is_readable":  # of an idle connection: whether the server has closed it
            stream = self._stream
            if isinstance(stream, trio.SSLStream):
                stream = cast("trio.SSLStream[trio.abc.Stream]", stream).transport_stream
            looking = stream.socket if isinstance(stream, trio.SocketStream) else stream
            return isinstance(looking, _Looking) and looking.is_readable()
        return None


class HttpBackend(httpcore.AsyncNetworkBackend):
    """httpcore's way to open streams, over a Dialer."""

    def __init__(self, dialer: Dialer) -> None:
        self._dialer = dialer

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: object = None,
    ) -> httpcore.AsyncNetworkStream:
        return HttpStream(self._dialer, await self._dialer.plain(host, port))
