"""Clients of `trivet.bench.floor_server`: the least that a server can do for as many bytes."""

from typing import Final

from trivet.bench.client import Reader, Role
from trivet.bench.sockets import (
    TEXT,
    ChunkReader,
    FrameReader,
    Violation,
    client_frame,
    connect,
    server_frame,
    upgrade_request,
)

NUMBER_WIDTH: Final = 10


class FloorFanout:
    """Events are frames of `size` bytes with a number in them. Calls are counted there, and not answered."""

    answers = 0
    events_per_call = 1

    def __init__(self, size: int) -> None:
        self._padding = b"x" * max(0, size - NUMBER_WIDTH - (2 if size < 128 else 4))

    def opening(self, role: Role) -> bytes:
        return upgrade_request(f"/{role}")

    def greeting(self, role: Role) -> bytes:
        return b""

    def welcomes(self, role: Role) -> int:
        return 0

    def call(self, number: int) -> bytes:
        return client_frame(TEXT, b"%010d" % number)

    def event_frame(self, number: int) -> bytes:
        """What each subscriber gets."""
        return server_frame(TEXT, b"%010d%b" % (number, self._padding))

    @property
    def event_bytes(self) -> int:
        return len(self.event_frame(0))

    def is_event(self, number: int, message: bytes) -> bool:
        return message == b"%010d%b" % (number, self._padding)

    def check_answer(self, number: int, message: bytes) -> None:
        raise Violation("a floor answers nothing")

    def heartbeat(self, message: bytes) -> bytes | None:
        return None


class FloorCalls:
    """Requests are `size` bytes, and are sent back."""

    ordered = True

    def __init__(self, size: int) -> None:
        self._padding = b"x" * max(0, size - NUMBER_WIDTH)

    def connect(self, port: int, timeout: float, name: int) -> Reader:
        reader = FrameReader(connect(port, timeout))
        reader.sock.sendall(upgrade_request("/caller"))
        reader.read_head()
        return ChunkReader(reader.sock, len(self.request(0)))

    def request(self, number: int) -> bytes:
        return b"%010d%b" % (number, self._padding)

    def answered(self, message: bytes) -> int | None:
        number = int(message[:NUMBER_WIDTH])
        if message != self.request(number):
            raise Violation(f"a request came back as {message[:200]!r}")
        return number
