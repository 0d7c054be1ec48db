"""An actor that does what its clients say and keeps a journal, and clients at the level of protocol messages."""

import struct
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, Final, Literal, TypeAlias, cast

import trio

from tests.property.model import NEVER, Emit, Entry, Mark, Sent, Trace, Violation
from trivet import Actor, Conn, Event, UserError, action
from trivet.protocol.codec import ENCODINGS, Codec, Encoding, codec_for
from trivet.protocol.messages import ActionRequest, ActionResponse, Error, Init, SubscriptionRequest, ToServer
from trivet.protocol.messages import Event as EventMessage
from trivet.raw import Request
from trivet.runtime.instance import Instance
from trivet.runtime.session import Session

Op: TypeAlias = Sequence[str | int]
"""One thing for the actor to do, `[name, *arguments]`: see `Room.obey`."""


class Room(Actor[None, None, dict[str, Any]]):
    """Does the ops that an action, a connection's params or the machine bring, and writes down what it did."""

    alpha = Event(int)
    beta = Event(int)
    slow = Event(int)
    """A subscription to it takes its time."""
    forbidden = Event(int)

    def __init__(self) -> None:
        self.journal: list[Entry] = []
        self.occurred: Counter[str] = Counter()
        self.running = 0
        self._send_ops, self._ops = trio.open_memory_channel[list[Op]](100)

    @slow.can_subscribe
    async def take_your_time(self, conn: Conn[None, dict[str, Any]]) -> bool:
        await trio.sleep(0.005)
        return True

    @forbidden.can_subscribe
    def refuse(self, conn: Conn[None, dict[str, Any]]) -> bool:
        return False

    # -- what clients call --------------------------------------------------------------------------------------------

    @action
    def act(self, call: int, ops: list[Any]) -> int:
        for _ in self.as_call(call, ops, serial=True):
            pass  # a sync action cannot pause
        return call

    @action
    async def act_async(self, call: int, ops: list[Any]) -> int:
        for pause in self.as_call(call, ops, serial=True):
            await trio.sleep(pause)
        return call

    @action(concurrent=True)
    async def act_beside(self, call: int, ops: list[Any]) -> int:
        for pause in self.as_call(call, ops, serial=False):
            await trio.sleep(pause)
        return call

    def do_in_background(self, ops: list[Op]) -> None:
        """Have the actor's `run` do it."""
        self._send_ops.send_nowait(ops)

    # -- hooks --------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        while True:
            await self._obey_and_pause(await self._ops.receive())

    async def on_connect(self, conn: Conn[None, dict[str, Any]]) -> None:
        label = label_of(conn)
        self.journal.append(Mark("connect", label))
        try:
            await self._obey_and_pause(conn.params["ops"])
        except UserError:
            self.journal.append(Mark("refused", label))
            raise
        self.journal.append(Mark("admitted", label))

    async def on_disconnect(self, conn: Conn[None, dict[str, Any]]) -> None:
        self.journal.append(Mark("disconnect", label_of(conn)))
        await self._obey_and_pause([["others", "beta"], ["pause", 1], ["one", label_of(conn)]])
        self.journal.append(Mark("disconnected", label_of(conn)))

    # -- doing and writing down ---------------------------------------------------------------------------------------

    def as_call(self, call: int, ops: Iterable[Op], *, serial: bool) -> Generator[float]:
        label = label_of(self.conn)
        self.journal.append(Mark("call", label, call, serial))
        self.running += 1
        if self.running > 1:
            self.occurred["overlapping calls"] += 1
        try:
            yield from self.obey(ops)
        finally:
            self.running -= 1
            self.journal.append(Mark("return", label, call, serial))
            if self.conn.id not in self.conns:
                self.occurred["call that outlived its connection"] += 1

    async def _obey_and_pause(self, ops: Iterable[Op]) -> None:
        for pause in self.obey(ops):
            await trio.sleep(pause)

    def obey(self, ops: Iterable[Op]) -> Generator[float]:
        """Do them; yields the seconds of each pause."""
        for op in ops:
            match op:
                case ["all", str(event)]:
                    self._emit(event, lambda conn: True)
                case ["others", str(event)]:
                    own = self.conn_or_none
                    self._emit(event, is_not(own), exclude=() if own is None else own)
                case ["where", str(event), int(rest)]:
                    odd_or_even = is_odd_or_even(rest)
                    self._emit(event, odd_or_even, where=odd_or_even)
                case ["one", int(label)]:
                    self._send(label)
                case ["kick", int(label)]:
                    if (conn := self._find(label)) is not None:
                        self.journal.append(Mark("kick", label))
                        self.occurred["kick with calls waiting"] += conn.statistics().unanswered_calls > 0
                        conn.disconnect("out")
                case ["later", int(pause), str(event)]:
                    later: list[Op] = [["pause", pause], ["all", event]]
                    self.start_soon(self._obey_and_pause, later)
                case ["pause", int(pause)]:
                    yield pause / 1000
                case ["fail"]:
                    raise UserError("as told")
                case _:
                    raise AssertionError(op)

    def _emit(self, event: str, meant: Callable[[Any], bool], **kwargs: Any) -> None:
        conns = self.conns.values()
        entry = Emit(event, frozenset(label_of(c) for c in conns if meant(c)), frozenset(map(label_of, conns)))
        self.journal.append(entry)
        entry.count = self.broadcast(getattr(self, event), len(self.journal) - 1, **kwargs).recipients
        if entry.count > 1:
            self.occurred["event to several"] += 1

    def _send(self, label: int) -> None:
        entry = Emit(None, frozenset(), frozenset(map(label_of, self.conns.values())))
        if (conn := self._find(label)) is not None:
            entry.to = frozenset({label})
            self.journal.append(entry)
            entry.count = conn.send(self.alpha, len(self.journal) - 1)

    def _find(self, label: int) -> Conn[None, dict[str, Any]] | None:
        return self.conns.find(lambda conn: label_of(conn) == label)


def label_of(conn: Conn[None, dict[str, Any]]) -> int:
    return int(conn.params["label"])


def is_not(own: Conn[None, dict[str, Any]] | None) -> Callable[[Conn[None, dict[str, Any]]], bool]:
    return lambda conn: conn is not own


def is_odd_or_even(rest: int) -> Callable[[Conn[None, dict[str, Any]]], bool]:
    return lambda conn: label_of(conn) % 2 == rest


# -- clients ----------------------------------------------------------------------------------------------------------

_HEADER: Final = struct.Struct(">BI")
MESSAGE: Final = 0
CLOSE: Final = 1


def parse_frame(data: bytes | bytearray) -> tuple[int, bytes]:
    """The kind and the content of the frame at the beginning of `data`. Raises IndexError when more is needed."""
    if len(data) < _HEADER.size:
        raise IndexError
    kind, length = _HEADER.unpack_from(data)
    if len(data) < _HEADER.size + length:
        raise IndexError
    return kind, bytes(data[_HEADER.size : _HEADER.size + length])


class MemoryFormat:
    """Frames of a kind and a length."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec

    def frame(self, payload: bytes) -> bytes:
        return _HEADER.pack(MESSAGE, len(payload)) + payload

    def extension_frame(self, payload: bytes) -> bytes:
        raise AssertionError("these clients speak RivetKit's protocol alone")

    def close_frame(self, code: int, reason: str) -> bytes:
        return _HEADER.pack(CLOSE, 2 + len(reason)) + code.to_bytes(2) + reason.encode()


FORMATS: Final = {name: MemoryFormat(cast("Codec", codec_for(name))) for name in ENCODINGS}

Call: TypeAlias = Literal["act", "actAsync", "actBeside"]


Message: TypeAlias = tuple[Call, list[Op]] | tuple[str, bool]


class Client:
    """One connection: the transport of its session, and what reads from it.

    The transport holds `room` bytes, and is emptied `delay` seconds after something has come, unless the client holds.
    """

    def __init__(
        self, trace: Trace, room: Room, calls: Iterator[int], *, encoding: Encoding, capacity: int, delay: float
    ) -> None:
        self.trace = trace
        self.held = False
        self.ended = False
        self._was_held = False
        self._room = room
        self._calls = calls
        self._format = FORMATS[encoding]
        self._capacity = capacity
        self._delay = delay
        self._buffer = bytearray()  # in the transport
        self._read = bytearray()  # out of it
        self._changed = trio.Event()
        self._drained = trio.Event()
        self._session: Session | None = None

    # -- the transport of the session ---------------------------------------------------------------------------------

    def send_nowait(self, data: bytes) -> int:
        if self.ended:
            raise trio.BrokenResourceError
        taken = min(len(data), self._capacity - len(self._buffer))
        if 0 < taken < len(data):
            self._room.occurred["partial write"] += 1
        self._buffer += data[:taken]
        self._changed.set()
        return taken

    async def send_all(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        while data := data[self.send_nowait(data) :]:
            self._drained = trio.Event()
            await self._drained.wait()

    def finish(self) -> None:
        """The client leaves when it has read the close frame."""

    def abort(self) -> None:
        if not self.ended:
            self.ended = True
            # That a client which reads is cut off is no excuse for the actor.
            self.trace.cut = self.trace.cut or (self._was_held and not self._has_read_close())
            self._changed.set()
            self._drained.set()

    # -- the client ---------------------------------------------------------------------------------------------------

    async def live(self, instance: Instance, ops: list[Op], task_status: trio.TaskStatus[None]) -> None:
        """From the handshake to the end of the transport."""
        params: Any = {"label": self.trace.label, "ops": [list(op) for op in ops]}
        request = Request("GET", "memory:///connect")
        async with instance.open_session(self, self._format, params=params, request=request) as self._session:
            task_status.started()
            while not self.ended:
                await self._changed.wait()
                self._changed = trio.Event()
                if self._delay:
                    await trio.sleep(self._delay)
                if not self.held:
                    self._take()
        if not self.trace.cut and (self._buffer or self._read):
            raise Violation("end", f"bytes after the close frame: {self.trace}")

    @property
    def waits(self) -> bool:
        """Whether a call of its has not been answered."""
        answers = {number for what, number in self.trace.arrived if what in ("answer", "error")}
        return any(sent.call >= 0 and sent.call not in answers for sent in self.trace.sent)

    def hold(self, held: bool) -> None:
        """Read nothing until told otherwise."""
        self.held = held
        self._was_held = self._was_held or held
        self._changed.set()

    def leave(self) -> None:
        """Be gone without a word."""
        if not self.ended:
            self.trace.left = min(self.trace.left, (len(self._room.journal), NEVER))
            self.trace.cut = True
            self.abort()

    def close(self) -> None:
        """Send a close frame and wait for the answer."""
        assert self._session is not None
        if not self.ended:
            moment = len(self._room.journal)
            self.trace.left = min(self.trace.left, (moment, moment))
            self._session.close(1000, "")

    def send(self, *messages: Message) -> None:
        """Calls `(action, ops)` and subscriptions `(event, subscribe)`, at once and in this order."""
        assert self._session is not None
        if self.ended:
            return
        for name, what in messages:
            moment = len(self._room.journal)
            message: ToServer
            if isinstance(what, bool):
                message = SubscriptionRequest(name, what)
                sent = Sent(moment, -1, name, what, slow=what and name in ("slow", "forbidden"))
                self.trace.refused = self.trace.refused or (name == "forbidden" and what)
            else:
                sent = Sent(moment, next(self._calls))
                message = ActionRequest(sent.call, name, [sent.call, [list(op) for op in what]])
            self.trace.sent.append(sent)
            codec = self._format.codec
            self._session.receive(codec.decode_to_server(codec.encode_to_server(message)))

    def _has_read_close(self) -> bool:
        return any(what == "close" for what, _ in self.trace.arrived)

    def _take(self) -> None:
        self._read += self._buffer
        self._buffer.clear()
        self._drained.set()
        while True:
            try:
                kind, content = parse_frame(self._read)
            except IndexError:
                return
            del self._read[: _HEADER.size + len(content)]
            if kind == CLOSE:
                self.trace.arrived.append(("close", int.from_bytes(content[:2])))
                self.abort()
            else:
                self._receive(content)

    def _receive(self, content: bytes) -> None:
        arrived = self.trace.arrived
        match self._format.codec.decode_to_client(content):
            case Init():
                arrived.append(("init", 0))
            case EventMessage(_, [int(number)]):
                arrived.append(("event", number))
            case ActionResponse(call, output):
                assert output == call
                arrived.append(("answer", call))
            case Error(action_id=None):
                pass  # the close frame says the same
            case Error(action_id=int(call)):
                arrived.append(("error", call))
            case message:
                raise AssertionError(message)
