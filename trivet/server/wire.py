"""The bytes of one connection, whatever carries them: TCP, TLS or a stream in memory."""

import io
import socket
import ssl
import sys
from collections.abc import Callable
from typing import Final, Literal, cast, final

import trio

RECEIVE_SIZE: Final = 64 * 1024

_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError)

# A file of a socket's descriptor is POSIX; Trio has no non-blocking send of its own.
_NONBLOCKING: Final = sys.platform != "win32"


@final
class Wire:
    """A stream with a non-blocking way out where there is one, and with one exception for every way to be gone.

    All methods raise trio.BrokenResourceError when the peer is gone or the wire was closed here. Sending is for one
    task at a time; a send that was cancelled may have sent a part.
    """

    __slots__ = ("_file", "_tls", "host", "peer", "socket", "stream", "write")

    def __init__(self, stream: trio.abc.Stream, *, peer: str | None = None) -> None:
        self.stream: Final = stream
        self._tls: Final = _tls(stream)
        self._file: Final = _file(stream)
        self.write: Final[Callable[[bytes], int | None]] = _nothing if self._file is None else self._file.write
        """What `send_nowait` is made of, without a Python function around it: None or 0 when it would block.

        Raises OSError when the peer is gone, and ValueError once the wire was closed.
        """
        self.socket: Final = cast("trio.SocketStream", stream).socket if self._file is not None else None
        """What to wait for before `receive_nowait`, where the wire is a plain socket."""
        self.peer: Final = peer if peer is not None else _address(stream, "getpeername")
        self.host: Final = _address(stream, "getsockname")
        """The address at this end, where it has one."""

    @property
    def secure(self) -> bool:
        """Whether it is TLS."""
        return self._tls is not None

    async def handshake(self) -> None:
        """The TLS handshake, where there is one to make. Raises trio.BrokenResourceError when it fails."""
        if self._tls is not None:
            await self._tls.do_handshake()

    def send_nowait(self, data: bytes) -> int:
        """Send what goes out without waiting, and say how much that was: 0 when it would block."""
        try:
            return self.write(data) or 0
        except (OSError, ValueError) as exc:
            raise trio.BrokenResourceError(f"socket connection broken: {exc}") from exc

    async def send_all(self, data: bytes | memoryview) -> None:
        """Send everything, waiting for room."""
        try:
            await self.stream.send_all(data)
        except trio.ClosedResourceError as exc:
            raise trio.BrokenResourceError("the connection was closed here") from exc

    async def receive(self) -> bytes:
        """Some bytes, or none at the end of the stream. Always a checkpoint; cancelling loses nothing."""
        try:
            return bytes(await self.stream.receive_some(RECEIVE_SIZE))
        except trio.ClosedResourceError as exc:
            raise trio.BrokenResourceError("the connection was closed here") from exc

    def receive_nowait(self) -> bytes | None:
        """What has come to a plain socket: nothing at the end of the stream, None while there is none."""
        assert self._file is not None
        try:
            return self._file.read(RECEIVE_SIZE)
        except (OSError, ValueError) as exc:
            raise trio.BrokenResourceError(f"socket connection broken: {exc}") from exc

    def half_close(self) -> None:
        """Tell the peer that no more will come, where the stream can. Idempotent."""
        if isinstance(self.stream, trio.SocketStream):
            try:
                self.stream.socket.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # The peer was faster; there is nobody to tell.

    async def linger(self, seconds: float) -> None:
        """Read and discard until the peer ends or the time is over.

        Closing a TCP socket that holds unread bytes resets the connection, and a reset may overtake what was sent last.
        """
        self.half_close()
        with trio.move_on_after(seconds):
            try:
                while await self.receive():
                    pass
            except trio.BrokenResourceError:
                pass

    async def aclose(self) -> None:
        """Close at once, without a farewell. Wakes whoever sends or receives."""
        if self._file is not None:
            # First, so that bytes can never reach a descriptor that was opened since: whoever has `write` still has
            # that of a closed file.
            self._file.close()
        await trio.aclose_forcefully(self.stream)


def _file(stream: trio.abc.Stream) -> io.FileIO | None:
    """A file that shares the socket's descriptor, and leaves it open when it is closed."""
    # Trio has set TCP_NOTSENT_LOWAT to 16 KiB, which is left so. For a peer that does not read the kernel then takes 20
    # to 175 kB, by the peer's own buffer, and what is over waits in the outbox, where it is counted and may give way.
    # Without it the kernel takes 3 to 4 MB first (64 KiB: 70 to 220 kB). A fan-out to 1,000 that read costs the same
    # with either: 10.4 and 10.3 us of CPU for a delivery at 1 event in flight, 0.76 and 0.76 at 64 (Linux 6.18).
    if not _NONBLOCKING or not isinstance(stream, trio.SocketStream) or stream.socket.fileno() < 0:
        return None
    return io.FileIO(stream.socket.fileno(), "r+b", closefd=False)


def _nothing(data: bytes) -> int:
    """Takes nothing: the writing of a stream that cannot be written to without waiting."""
    return 0


def _tls(stream: trio.abc.Stream) -> "trio.SSLStream[trio.abc.Stream] | None":
    # isinstance cannot tell the type of the stream inside.
    return cast("trio.SSLStream[trio.abc.Stream]", stream) if isinstance(stream, trio.SSLStream) else None


def _address(stream: trio.abc.Stream, end: Literal["getpeername", "getsockname"]) -> str | None:
    while (tls := _tls(stream)) is not None:
        stream = tls.transport_stream
    if not isinstance(stream, trio.SocketStream):
        return None
    try:
        address = cast("object", getattr(stream.socket, end)())
    except OSError:
        return None
    # Unix sockets have a path, mostly an empty one, where the others have a tuple.
    return str(cast("tuple[object, ...]", address)[0]) if isinstance(address, tuple) else None


def tls_listener(listener: trio.SocketListener, context: ssl.SSLContext) -> "trio.SSLListener[trio.SocketStream]":
    """A listener whose streams speak TLS as HTTPS clients do: without waiting for each other's goodbye."""
    return trio.SSLListener(listener, context, https_compatible=True)
