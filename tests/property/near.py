"""Clients directly at the runtime: they speak in messages, read WebSocket frames, and say themselves when they read."""

from collections import Counter
from typing import Any, Final, Protocol, TypeAlias

import attrs
import trio

from tests.property.model import Arrival, Entry, Record, Sent, Trace
from tests.property.room import LIMITS, Op
from trivet.protocol import extension
from trivet.protocol.messages import ActionRequest, ActionResponse, Error, Init, SubscriptionRequest, ToServer
from trivet.protocol.messages import Event as EventMessage
from trivet.raw import Request
from trivet.runtime.host import Host
from trivet.runtime.instance import Instance
from trivet.runtime.session import Session
from trivet.server.frames import FORMATS

REQUEST: Final = Request("GET", "http://127.0.0.1/connect")
PLENTY: Final = 1 << 30

_CLOSE: Final = 0x88
_BINARY: Final = 0x82

ToServerMessage: TypeAlias = ToServer | extension.ExtensionToServer


class Setting(Protocol):
    """What a client needs of the machine that it is in."""

    nursery: trio.Nursery
    host: Host

    @property
    def journal(self) -> list[Entry]:
        """What the actors did so far."""
        ...

    @property
    def occurred(self) -> Counter[str]:
        """What happened so far."""
        ...


class Line:
    """One transport. It holds `capacity` bytes, which the client takes out as soon as it reads."""

    def __init__(self, client: "NearClient", capacity: int) -> None:
        self._client = client
        self._capacity = capacity
        self._buffer = bytearray()
        self._changed = trio.Event()
        self.held = client.held
        self.broken = False

    def send_nowait(self, data: bytes) -> int:
        if self.broken:
            raise trio.BrokenResourceError
        taken = min(len(data), self._capacity - len(self._buffer))
        self._buffer += data[:taken]
        if taken < len(data):
            self._client.trace.impaired = True
            self._client.setting.occurred["partial write"] += 1
        if not self.held:
            self.read()
        return taken

    async def send_all(self, data: bytes) -> None:
        while True:
            data = data[self.send_nowait(data) :]
            if not data:
                await trio.lowlevel.checkpoint()
                return
            if self.held:
                self._changed = trio.Event()
                await self._changed.wait()
            else:
                await trio.lowlevel.checkpoint()

    def hold(self, held: bool) -> None:
        self.held = held
        if not held and not self.broken:
            self.read()
        self._changed.set()

    def read(self, at_most: int = PLENTY) -> None:
        """The client takes so many bytes out."""
        data = self._buffer[:at_most]
        del self._buffer[:at_most]
        self._client.read(data)

    def lose(self, read_first: int) -> None:
        """What is on its way is gone, but for so many bytes."""
        self.read(read_first)
        self.broken = True
        self._buffer.clear()
        self._changed.set()

    def finish(self) -> None:
        """The close frame is in the buffer, or was read."""

    def abort(self) -> None:
        if not self.broken:
            self.broken = True
            self._client.was_cut_off(self)
            self._changed.set()


@attrs.define(eq=False)
class NearClient:
    """One client. `extended`: it speaks trivet's extension, so that its session outlives its line."""

    setting: Setting
    record: Record
    encoding: str
    extended: bool
    capacity: int
    held: bool = False
    away_since: float = 0
    gone: bool = False
    """It will not come back."""
    trace: Trace = attrs.field(init=False)
    line: Line | None = None
    _session: Session = attrs.field(init=False)
    _token: str = ""
    _ready: bool = True
    """Messages may be sent: it is known what had arrived before."""
    _received: int = 0
    _acknowledged: int = 0
    _out: list[ToServerMessage] = attrs.field(factory=list["ToServerMessage"])
    _unread: bytearray = attrs.field(factory=bytearray)
    _wanted: dict[str, None] = attrs.field(factory=dict[str, None])

    # -- its sessions -------------------------------------------------------------------------------------------------

    async def open(self, instance: Instance, ops: list[Op]) -> None:
        """A new session. It subscribes to what the one before had, and waits for no Init."""
        moment = len(self.setting.journal)
        self._received = self._acknowledged = 0
        self._token = ""
        self._ready = True
        self._out.clear()
        self._unread.clear()
        self.line = Line(self, self.capacity)
        params: Any = {"label": self.record.label, "ops": [list(op) for op in ops]}
        self._session = instance.open_session(
            self.line, FORMATS[self.encoding], params=params, request=REQUEST, extended=self.extended
        )
        self.trace = Trace(self._session.conn.id, moment, len(self.record.sent), impaired=self.held)
        self.record.traces.append(self.trace)
        await self.setting.nursery.start(self._enter, self._session)
        for event in self._wanted:
            self._subscribe(event, self.trace.first)

    @staticmethod
    async def _enter(session: Session, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await session.__aenter__()

    async def come_back(self) -> bool:
        """Resume the session, or learn that it has ended. False when there has to be a new one."""
        if self.line is not None:
            return True
        if not self.trace.live:
            return False
        session = self.setting.host.sessions.get(self._token)
        if session is not None and session.farewell is not None:
            self._closed(session.farewell[0])
            return False
        self.line = Line(self, self.capacity)
        replayed = self._session.statistics().queued_messages
        self._ready = False
        if session is not None and session.resume(self.line, FORMATS[self.encoding], self._received):
            self.setting.occurred["resume"] += 1
            self.setting.occurred["resume with a replay"] += replayed > 0
            return True
        self.line = None
        self.trace.live = False
        window = self.setting.host.limits.resume_window
        self.trace.left = self.trace.left or trio.current_time() >= self.away_since + window
        self.setting.occurred["gap"] += 1
        return False

    async def break_(self, read_first: int) -> None:
        """The line breaks. Of what was on its way the client has read so many bytes."""
        line, self.line = self.line, None
        if line is None:
            return
        line.lose(read_first)
        self._unread.clear()
        if self.trace.live:
            self.away_since = trio.current_time()
            self.trace.impaired = True
            if self.trace.left or not self._token:  # there is no session to come back to
                self.trace.left, self.trace.live = True, False
        await self._session.leave(line)

    async def leave(self) -> None:
        """Be gone without a word."""
        self.gone = True
        if self.trace.live:
            self.trace.left, self.trace.live = True, False
        await self.break_(0)

    def close(self) -> None:
        """Say goodbye, and wait for the answer."""
        if self.trace.live:
            self.trace.left = True
            self.trace.live = self.line is not None
        if self.line is not None and self.trace.live:
            if self.extended:
                self._session.receive_extension(extension.Bye())
            self._session.end(1000, "")
        self.gone = True

    def was_cut_off(self, line: Line) -> None:
        """The server has ended the line."""
        if line is not self.line:
            return
        self.line = None
        self.away_since = trio.current_time()
        if self.held:
            self.trace.impaired = True
        if self.trace.live and (self.trace.left or not self._token):
            self.trace.live = False
        self.setting.nursery.start_soon(self._session.leave, line)

    def hold(self, held: bool) -> None:
        """Read nothing until told otherwise."""
        self.held = held
        if self.line is not None:
            self.trace.impaired = self.trace.impaired or held
            self.line.hold(held)

    # -- what it sends ------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> list[Sent]:
        """Its calls in this session that are not answered."""
        answered = {one.number for one in self.trace.arrived if one.what in ("answer", "error")}
        return [sent for sent in self.record.sent[self.trace.start :] if sent.call >= 0 and sent.call not in answered]

    def call(self, call: int, action: str, ops: list[Op], deadline: float | None = None) -> None:
        if not self.trace.live:
            return
        self.record.sent.append(Sent(len(self.setting.journal), call))
        if self.extended and deadline is not None:
            self._post(extension.Timeout(call, deadline))
        self._post(ActionRequest(call, action, [call, [list(op) for op in ops]]))

    def cancel(self, sent: Sent) -> None:
        if self.extended and self.trace.live:
            sent.cancelled = True
            self._post(extension.Cancel(sent.call))

    def subscribe(self, event: str) -> None:
        if self.trace.live:
            self._subscribe(event, self.record.sent)

    def _subscribe(self, event: str, into: list[Sent]) -> None:
        sent = Sent(len(self.setting.journal), event=event, wanted=True)
        sent.refused = event == "forbidden"
        into.append(sent)
        if event != "forbidden":
            self._wanted[event] = None
        self._post(extension.Subscribe(len(self._out), event) if self.extended else SubscriptionRequest(event, True))

    def unsubscribe(self, event: str) -> None:
        if self.trace.live:
            self._wanted.pop(event, None)
            self.record.sent.append(Sent(len(self.setting.journal), event=event))
            self._post(SubscriptionRequest(event, False))

    def _post(self, message: ToServerMessage) -> None:
        self._out.append(message)
        if self.line is not None and self._ready:
            self._deliver(message)

    async def _repeat(self, line: Line | None, received: int) -> None:
        """Send again what had not arrived on the line before."""
        await trio.lowlevel.checkpoint()
        if line is not None and line is self.line:
            self._ready = True
            for missed in self._out[received:]:
                self._deliver(missed)

    def _deliver(self, message: ToServerMessage) -> None:
        if isinstance(message, (ActionRequest, SubscriptionRequest)):
            self._session.receive(message)
        else:
            self._session.receive_extension(message)

    def acknowledge(self) -> None:
        """Now and then it says how much it has."""
        if self.extended and self.line is not None and self._ready and self._received >= self._acknowledged + 5:
            self._acknowledged = self._received
            self._session.receive_extension(extension.Ack(self._received))

    # -- what it gets -------------------------------------------------------------------------------------------------

    def read(self, data: bytes | bytearray) -> None:
        """Take whole frames out of what was read."""
        unread = self._unread
        unread += data
        while len(unread) >= 2:
            size, begin = unread[1], 2
            if size == 126:
                size, begin = int.from_bytes(unread[2:4]), 4
            if len(unread) < begin + size or len(unread) < begin:
                return
            opcode, payload = unread[0], bytes(unread[begin : begin + size])
            del unread[: begin + size]
            self._take(opcode, payload)

    def _take(self, opcode: int, payload: bytes) -> None:
        codec = FORMATS[self.encoding].codec
        message: Any
        if opcode == _CLOSE:
            self._closed(int.from_bytes(payload[:2]))
            return
        if self.extended and (opcode == _BINARY) != codec.binary:
            message = extension.decode_to_client(payload)
        else:
            message = codec.decode_to_client(payload)
        self._received += extension.is_counted(message)
        if self.extended and self._received > self._acknowledged + LIMITS.outbox_hard_messages / 2:
            self.trace.impaired = True  # the actor has to keep what may be asked for again, within its bounds
        self._receive(message)

    def _closed(self, code: int) -> None:
        self.trace.arrived.append(Arrival("close", code))
        self.trace.live = False
        self.setting.occurred[f"close {code}"] += 1
        if self.line is not None:
            self.line.abort()

    def _receive(self, message: Any) -> None:
        arrived = self.trace.arrived
        match message:
            case Init():
                arrived.append(Arrival("init"))
            case EventMessage("trivet.dropped", [{"event": str(event), "count": int(count)}]):
                arrived.append(Arrival("dropped", count, event))
            case EventMessage(_, [int(number), _]):
                arrived.append(Arrival("event", number))
            case ActionResponse(call):
                arrived.append(Arrival("answer", call))
            case Error(code=code, action_id=int(call)):
                arrived.append(Arrival("error", call, code))
            case Error():
                pass  # the close frame says the same
            case extension.Dropped(event, count):
                arrived.append(Arrival("dropped", count, event))
            case extension.SessionOpened(token):
                self._token = token
            case extension.Resumed(received):
                self.setting.nursery.start_soon(self._repeat, self.line, received)
            case _:
                assert isinstance(message, (extension.Subscribed, extension.Refused, extension.Ack)), message
