"""The client's half of a WebSocket, as little of it as a load generator needs (RFC 6455 section 5.2)."""

import socket
from struct import pack
from typing import Final

TEXT: Final = 0x81
BINARY: Final = 0x82
_CLOSE: Final = 0x88
_PING: Final = 0x89
_PONG: Final = 0x8A

SWITCHED: Final = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
"""The least answer to an upgrade request: no load looks at more of it than its first line."""

_MASK: Final = b"\x5a\xa5\x3c\xc3"
_END_OF_HEAD: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"


class Violation(Exception):
    """A peer sent what it should not have sent, or did not send what it should have."""


def server_frame(opcode: int, payload: bytes) -> bytes:
    """A whole frame as a server sends it: not masked."""
    return _head(opcode, len(payload), 0) + payload


def client_frame(opcode: int, payload: bytes) -> bytes:
    """A whole frame as a client sends it: masked."""
    size = len(payload)
    key = (_MASK * (size // 4 + 1))[:size]
    masked = (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")
    return _head(opcode, size, 0x80) + _MASK + masked


def _head(opcode: int, size: int, masked: int) -> bytes:
    if size < 126:
        return pack("!BB", opcode, masked | size)
    if size < 1 << 16:
        return pack("!BBH", opcode, masked | 126, size)
    return pack("!BBQ", opcode, masked | 127, size)


def upgrade_request(path: str, subprotocols: str = "") -> bytes:
    """The request that begins a WebSocket."""
    offered = f"Sec-WebSocket-Protocol: {subprotocols}\r\n" if subprotocols else ""
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{offered}\r\n"
    ).encode()


class FrameReader:
    """Cuts what one blocking socket receives into messages, and answers pings. Messages are of one frame each."""

    __slots__ = ("_buffer", "controls", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.controls = 0
        """Control frames so far."""
        self._buffer = b""

    @property
    def pending(self) -> bool:
        """Whether the beginning of a frame was received without its end."""
        return bool(self._buffer)

    def read_head(self) -> None:
        """Wait for the answer to the upgrade request. Raises Violation unless it is 101."""
        while _END_OF_HEAD not in self._buffer:
            self._buffer += self._receive()
        head, _, self._buffer = self._buffer.partition(_END_OF_HEAD)
        if not head.startswith(b"HTTP/1.1 101 "):
            raise Violation(f"the server answered {head[:200]!r}")

    def read(self, count: int) -> list[bytes]:
        """Wait for so many messages. Raises Violation for more."""
        messages = self.feed(b"")
        while len(messages) < count:
            messages += self.feed(self._receive())
        if len(messages) > count:
            raise Violation(f"{len(messages)} messages where {count} were expected: {messages[-1][:200]!r}")
        return messages

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads of the messages that became whole. Raises Violation for a close frame."""
        buffer = self._buffer + data if self._buffer else data
        messages: list[bytes] = []
        start = 0
        while len(buffer) - start >= 2:
            opcode, size = buffer[start], buffer[start + 1]
            body = start + (2 if size < 126 else 4 if size == 126 else 10)
            if size >= 126:
                size = int.from_bytes(buffer[start + 2 : body], "big")
            if len(buffer) < body + size:
                break
            payload = buffer[body : body + size]
            start = body + size
            if opcode in (TEXT, BINARY):
                messages.append(payload)
                continue
            self.controls += 1
            if opcode == _PING:
                self.sock.send(client_frame(_PONG, payload))
            elif opcode == _CLOSE:
                raise Violation(f"the server closed a connection: {payload!r}")
            elif opcode != _PONG:
                raise Violation(f"unexpected frame {buffer[start : start + 40]!r}")
        self._buffer = buffer[start:]
        return messages

    def _receive(self) -> bytes:
        data = self.sock.recv(65536)
        if not data:
            raise Violation("the server ended a connection")
        return data


class HttpReader:
    """Cuts what one socket receives into the answers of HTTP/1.1, head and body together."""

    __slots__ = ("_buffer", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The answers that became whole. Raises Violation for one without a Content-Length."""
        buffer = self._buffer + data if self._buffer else data
        answers: list[bytes] = []
        while (end := buffer.find(_END_OF_HEAD)) >= 0:
            _, found, rest = buffer[:end].lower().partition(_LENGTH)
            if not found:
                raise Violation(f"an answer without a length: {buffer[:200]!r}")
            size = end + 4 + int(rest.partition(b"\r\n")[0])
            if len(buffer) < size:
                break
            answers.append(buffer[:size])
            buffer = buffer[size:]
        self._buffer = buffer
        return answers


class ChunkReader:
    """Cuts what one socket receives into pieces of one size."""

    __slots__ = ("_buffer", "_size", "sock")

    def __init__(self, sock: socket.socket, size: int) -> None:
        self.sock = sock
        self._size = size
        self._buffer = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The pieces that became whole."""
        buffer = self._buffer + data if self._buffer else data
        whole = len(buffer) - len(buffer) % self._size
        self._buffer = buffer[whole:]
        return [buffer[at : at + self._size] for at in range(0, whole, self._size)]


def connect(port: int, timeout: float, receive_buffer: int | None = None) -> socket.socket:
    """A blocking connection to 127.0.0.1. Raises OSError."""
    sock = socket.socket()
    try:
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(timeout)
        sock.connect(("127.0.0.1", port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return sock
