"""A network in memory: streams with the bounds of a socket's buffers, and with everything that goes wrong on a wire."""

import math
import operator
from collections import deque
from typing import Final

import trio

BUFFER: Final = 64 * 1024
"""Bytes on their way in each direction of a stream: about what the buffers of a socket hold."""

_READS_A_SECOND: Final = 20
"""Into so many reads a second a slow reader divides its rate."""


class _Way:
    """One direction of one stream."""

    def __init__(self, link: "Link", *, to_client: bool) -> None:
        self._link = link
        self._to_client = to_client
        self._chunks: deque[tuple[float, bytes]] = deque()  # when each arrives
        self._arrives = -math.inf
        self._not_before = -math.inf
        self._arrived = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()
        self.pending = 0
        self.silent = False
        self.broken = False
        self.sender_closed = False
        self.receiver_closed = False

    def wake(self) -> None:
        """Something is different: let both sides look again."""
        self._arrived.unpark_all()
        self._room.unpark_all()

    def fall_silent(self) -> None:
        self.silent = True
        self._chunks.clear()
        self.pending = 0
        self.wake()

    def end(self) -> None:
        """No more will be sent."""
        if not self.sender_closed:
            self.sender_closed = True
            if not self.silent:
                self._put(b"")
            self.wake()

    def _put(self, data: bytes) -> None:
        # No byte overtakes one that was sent while the link was slower.
        self._arrives = max(self._arrives, trio.current_time() + self._link.latency)
        self._chunks.append((self._arrives, data))
        self.pending += len(data)
        self._arrived.unpark_all()

    def check_sendable(self) -> None:
        if self.sender_closed:
            raise trio.ClosedResourceError
        if self.broken or (self.receiver_closed and not self.silent):
            raise trio.BrokenResourceError("the network is broken" if self.broken else "the peer has closed")

    async def wait_for_room(self) -> None:
        self.check_sendable()
        while self.pending >= self._link.buffer:
            await self._room.park()
            self.check_sendable()

    async def send(self, data: memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self.check_sendable()
        while data and not self.silent:
            await self.wait_for_room()
            piece = min(self._link.buffer - self.pending, len(data), self._link.piece)
            self._put(bytes(data[:piece]))
            data = data[piece:]
            if data and self._link.piece < BUFFER:
                await trio.lowlevel.checkpoint()  # the receiver sees a part

    async def receive(self, at_most: int) -> bytes:
        await trio.lowlevel.checkpoint()
        while True:
            if self.receiver_closed:
                raise trio.ClosedResourceError
            if self.broken:
                raise trio.BrokenResourceError("the network is broken")
            due = math.inf
            if self._chunks and not (self._to_client and self._link.reading_stopped):
                due = max(self._chunks[0][0], self._not_before)
                if due <= trio.current_time():
                    return self._take(at_most)
            with trio.move_on_at(due):
                await self._arrived.park()

    def _take(self, at_most: int) -> bytes:
        now = trio.current_time()
        at_most = min(at_most, self._link.piece)
        rate = self._link.rate if self._to_client else math.inf
        if rate < math.inf:
            at_most = min(at_most, max(1, int(rate / _READS_A_SECOND)))
        taken = bytearray()
        while self._chunks and len(taken) < at_most and self._chunks[0][0] <= now:
            arrives, chunk = self._chunks[0]
            if not chunk:  # the end is told by itself, each time it is asked for
                break
            room = at_most - len(taken)
            taken += chunk[:room]
            if len(chunk) > room:
                self._chunks[0] = (arrives, chunk[room:])
            else:
                self._chunks.popleft()
        self.pending -= len(taken)
        if rate < math.inf:
            self._not_before = now + len(taken) / rate
        self._room.unpark_all()
        return bytes(taken)

    @property
    def readable(self) -> bool:
        if self.receiver_closed or self.broken:
            return True
        if not self._chunks or (self._to_client and self._link.reading_stopped):
            return False
        return max(self._chunks[0][0], self._not_before) <= trio.current_time()


class _OneTask:
    """Refuses a second task."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._busy = False

    def __enter__(self) -> None:
        if self._busy:
            raise trio.BusyResourceError(f"another task is {self._what} on this stream")
        self._busy = True

    def __exit__(self, *_: object) -> None:
        self._busy = False


class MemoryStream(trio.abc.HalfCloseableStream):
    """One end of a stream on a Link. As on a socket, another task's `aclose` makes the others raise."""

    def __init__(self, link: "Link", out: _Way, into: _Way) -> None:
        self._link = link
        self._out = out
        self._into = into
        self._sending = _OneTask("sending")
        self._receiving = _OneTask("receiving")

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Wait for room until all is on its way. When cancelled, a part may be."""
        with self._sending:
            await self._out.send(memoryview(data))

    async def wait_send_all_might_not_block(self) -> None:
        with self._sending:
            await trio.lowlevel.checkpoint()
            await self._out.wait_for_room()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What has arrived, at least one byte; nothing at the end."""
        if max_bytes is None:
            max_bytes = BUFFER
        elif operator.index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        with self._receiving:
            return await self._into.receive(max_bytes)

    def is_readable(self) -> bool:
        """Whether `receive_some` would return or raise at once, as for a socket."""
        return self._into.readable

    async def send_eof(self) -> None:
        """What was sent still arrives, and then the end. Idempotent."""
        with self._sending:
            if self._into.receiver_closed:
                raise trio.ClosedResourceError
            self._out.end()
            await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """What was sent still arrives; the peer's sends fail from now on."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """`aclose` without a checkpoint."""
        self._out.end()
        self._into.receiver_closed = True
        self._into.wake()
        self._link.forget(self)


class Link:
    """The network between one client and the server: each of the client's streams, and what goes wrong with them.

    Faults are set at any time, and act on open streams at once. Those that say so last until they are taken back, and
    new streams have them too; `break_` and `half_open` concern the streams that are open.
    """

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.latency = 0.0
        self.rate = math.inf
        self.piece = BUFFER
        self.buffer = BUFFER
        self.reading_stopped = False
        self.is_down = False
        self._streams: dict[MemoryStream, tuple[_Way, _Way]] = {}

    def __repr__(self) -> str:
        return f"<Link {self.name}, {len(self._streams)} streams>"

    # -- faults -------------------------------------------------------------------------------------------------------

    def break_(self) -> None:
        """Break every open stream, as when a cable is pulled and both sides notice: what is on its way is lost, and
        sending and receiving raise trio.BrokenResourceError at both ends. New streams can be opened.
        """
        for ways in list(self._streams.values()):
            for way in ways:
                way.broken = True
                way.wake()
        self._streams.clear()

    def half_open(self) -> None:
        """Lose every byte of the open streams from now on, both ways, without anybody being told. Sending succeeds,
        nothing arrives, not even the end: only pings find out. New streams work.
        """
        for ways in self._streams.values():
            for way in ways:
                way.fall_silent()

    def delay(self, seconds: float) -> None:
        """Let every byte take so long, both ways and in order, until set again. 0 is the default."""
        if not 0 <= seconds < math.inf:
            raise ValueError(f"a delay is a number of seconds, not {seconds!r}")
        self.latency = seconds

    def slow_reader(self, bytes_per_second: float | None) -> None:
        """Let the client read no faster than this. None: as fast as it can, the default."""
        if bytes_per_second is not None and not bytes_per_second > 0:
            raise ValueError("to read nothing at all, use stop_reading()")
        self.rate = math.inf if bytes_per_second is None else bytes_per_second
        self._wake()

    def stop_reading(self) -> None:
        """The client reads nothing until `resume_reading`: the buffers between fill up, then the server has to wait."""
        self.reading_stopped = True

    def resume_reading(self) -> None:
        """The client reads again."""
        self.reading_stopped = False
        self._wake()

    def partial_writes(self, max_bytes: int | None) -> None:
        """Let bytes arrive in pieces of at most `max_bytes`, both ways. None: no such limit, the default."""
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("a piece has at least one byte")
        self.piece = BUFFER if max_bytes is None else min(max_bytes, BUFFER)

    def small_buffers(self, max_bytes: int | None) -> None:
        """Let no more than `max_bytes` be on their way in each direction of a stream, so that a sender soon has to wait
        for who does not read. None: 64 KiB, the default.
        """
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("a buffer has room for at least one byte")
        self.buffer = BUFFER if max_bytes is None else max_bytes
        self._wake()

    def down(self) -> None:
        """Break every open stream, and let no new one be opened until `up`: connecting raises OSError."""
        self.is_down = True
        self.break_()

    def up(self) -> None:
        """New streams can be opened again."""
        self.is_down = False

    # -- streams ------------------------------------------------------------------------------------------------------

    def open_pair(self) -> tuple[MemoryStream, MemoryStream]:
        """A new stream: the client's end and the server's. Raises OSError while the link is down."""
        if self.is_down:
            raise OSError("the network is down")
        up, down = _Way(self, to_client=False), _Way(self, to_client=True)
        client, server = MemoryStream(self, up, down), MemoryStream(self, down, up)
        self._streams[client] = self._streams[server] = (up, down)
        return client, server

    def forget(self, stream: MemoryStream) -> None:
        """One end was closed."""
        self._streams.pop(stream, None)

    @property
    def open_streams(self) -> int:
        """How many streams have an end that is open."""
        return len({id(ways) for ways in self._streams.values()})

    @property
    def pending(self) -> int:
        """Bytes on their way, of all streams and both directions."""
        ways = {id(way): way.pending for pair in self._streams.values() for way in pair if not way.receiver_closed}
        return sum(ways.values())

    @property
    def is_impaired(self) -> bool:
        """Whether what was sent may not arrive, though no stream is broken: nobody reads, or bytes get lost."""
        return self.reading_stopped or any(way.silent for pair in self._streams.values() for way in pair)

    def _wake(self) -> None:
        for ways in self._streams.values():
            for way in ways:
                way.wake()
