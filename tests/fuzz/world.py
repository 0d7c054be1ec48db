"""A server that is attacked, somebody on it who is not to notice, and what must be true afterwards."""

import logging
import re
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import attrs
import trio
import trio.testing

from tests.faults.support import CLOSE, PING, PONG, TEXT, Frames, Peer, subscription
from tests.fuzz.grammar import CODECS, Attack
from trivet import Actor, Event, Limits, Registry, Response, UserError, WebSocket, action
from trivet import Request as RawRequest
from trivet.protocol import extension
from trivet.runtime.host import Host, open_host
from trivet.server.connection import serve_wire
from trivet.server.gateway import Gateway
from trivet.server.origins import Origins
from trivet.server.wire import Wire
from trivet.testing.network import Link
from trivet.testing.scheduling import seed_scheduler

LIMITS: Final = Limits(
    incoming_message=2048,
    outgoing_message=4096,
    raw_message=1024,
    http_body=2500,
    http_bodies=10_000,
    http_header=2048,
    params=100,
    input=200,
    connections=6,
    actors=10,
    action_timeout=5,
    unanswered_calls=3,
    inbox=4,
    subscriptions=3,
    resume_window=4,
    ping_interval=10_000,
    ping_timeout=20_000,
    http_idle_timeout=5,
    http_header_timeout=5,
    http_body_timeout=5,
    close_timeout=2,
    outbox_hard_bytes=8192,
)
"""Small ones, so that they are reached."""

OVER: Final = 60.0
"""Virtual seconds after which everything that an attack began has ended."""


class Room(Actor[None, None, Any]):
    ticked = Event(int)
    filled = Event(str)
    hidden = Event(int)
    slow = Event(int)

    def __init__(self) -> None:
        self.ticks = 0

    @hidden.can_subscribe
    def may_see(self, conn: object) -> bool:
        return False

    @slow.can_subscribe
    async def may_see_later(self, conn: object) -> bool:
        await trio.sleep(0.5)
        return True

    async def on_before_connect(self, params: Any) -> None:
        await trio.lowlevel.checkpoint()
        if params == "refuse":
            raise UserError("not you", code="refused")

    @action
    def echo(self, text: str) -> str:
        return text

    @action
    def mirror(self, value: Any) -> Any:
        return value

    @action
    def tick(self) -> int:
        self.ticks += 1
        self.broadcast(self.ticked, self.ticks)
        return self.ticks

    @action
    async def wait(self, seconds: float) -> None:
        await trio.sleep(min(max(seconds, 0), 1))

    @action(concurrent=True, abandoned="cancel")
    async def wait_beside(self, seconds: float) -> None:
        await trio.sleep(max(seconds, 0))

    @action(concurrent=True)
    async def answer_later(self) -> int:
        await trio.sleep(0.2)
        return self.ticks

    @action
    def kick_me(self) -> None:
        self.conn.disconnect("kicked")

    @action
    def fill(self, size: int) -> None:
        self.broadcast(self.filled, "x" * min(size, 3000))

    @action
    def fail(self) -> None:
        raise UserError("no", code="my_code", metadata={"a": 1})

    async def on_request(self, request: RawRequest) -> Response:
        await trio.lowlevel.checkpoint()
        return Response(request.body)

    async def on_websocket(self, websocket: WebSocket) -> None:
        if "idle" in self.request.url:
            await trio.sleep(30)
        if "bye" in self.request.url:
            await websocket.aclose(4001, "bye")
        async for message in websocket:
            await websocket.send(message)


REGISTRY: Final = Registry(Room)


class Innocent:
    """Calls and listens, on the attacked server and the attacked actor."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._seen: list[int] = []

    async def begin(self) -> None:
        await self._peer.send(TEXT, subscription("ticked"))
        await self.check()

    async def check(self) -> None:
        """A call is answered, and the events so far are all that there were, in order."""
        number = await self._peer.call("tick")
        for tag, val in self._peer.passed_over:
            if tag == "Event" and val["name"] == "ticked":
                self._seen += val["args"]
        self._peer.passed_over.clear()
        assert self._seen == list(range(self._seen[0], number + 1)), self._seen


class Transcript:
    """Everything that one attacker was sent, which has to be well formed whatever he sent."""

    def __init__(self, attack: Attack) -> None:
        self._attack = attack
        self._data = bytearray()

    def hear(self, data: bytes) -> None:
        self._data += data

    def tokens(self) -> list[str]:
        """Those of the sessions that were opened."""
        return [token.decode() for token in re.findall(rb'\["session","([^"]+)"', bytes(self._data))]

    def outcomes(self) -> Generator[str]:
        """What came of it, in words. Raises AssertionError for what no server may send."""
        data = bytes(self._data)
        head, end, rest = data.partition(b"\r\n\r\n")
        if not data:
            yield "nothing"
        elif head.startswith(b"HTTP/1.1 101 "):
            assert end
            yield "101"
            yield from self._messages(head, rest)
        else:
            yield from _answers(data)

    def _messages(self, head: bytes, data: bytes) -> Generator[str]:
        frames = Frames()
        frames.buffer += data
        offered = self._attack.opening.subprotocols if self._attack.opening is not None else ()
        encoding = next((name.partition(".")[2] for name in offered if name.startswith("rivet_encoding.")), "json")
        codec = CODECS.get(encoding)
        while (frame := frames.next()) is not None:
            if frame.opcode == CLOSE:
                code, reason = frame.close
                yield f"close {code} {reason.partition('#')[0]}"
                assert not frames.buffer, "bytes after a close frame"
            elif frame.opcode in (PING, PONG):
                yield f"control {frame.opcode}"
            elif "/connect" not in (self._attack.opening.target if self._attack.opening is not None else ""):
                yield "raw message"
            elif codec is not None and codec.binary == (frame.opcode != TEXT):
                message = codec.decode_to_client(frame.payload if codec.binary else frame.payload.decode())
                error = getattr(message, "code", "")
                assert error != "internal_error", message
                yield f"message {type(message).__name__} {error}".rstrip()
            else:
                assert b"trivet.1" in head, "an extension frame for a client that does not speak it"
                yield f"extension {extension.decode_to_client(frame.payload).kind}"


def _answers(data: bytes) -> Generator[str]:
    assert data.startswith(b"HTTP/1.1 "), data[:100]
    for status in re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", data):
        yield f"status {status.decode()}"
        assert status != b"500", data
    for error in re.findall(rb"x-rivet-error: ([\w.]+)", data):
        yield f"error {error.decode()}"


class _Failures(logging.Handler):
    """Collects what is logged as an error: there is none that a client could cause."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(f"{record.getMessage()} {record.exc_info[1] if record.exc_info else ''!r}")


@contextmanager
def no_failure_is_logged() -> Generator[None]:
    """AssertionError for an error in trivet's log."""
    handler = _Failures()
    logger = logging.getLogger("trivet")
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
    assert handler.found == [], handler.found


@attrs.frozen
class _Remains:
    connections: int
    websockets: int
    conns: int
    sessions: int
    queued_bytes: int
    unanswered_bytes: int
    tasks: int


def _remains(host: Host, gateway: Gateway) -> _Remains:
    counted, instances = gateway.statistics(), list(host.instances())
    return _Remains(
        counted.connections,
        counted.websockets,
        sum(len(instance.conns) for instance in instances),
        len(host.sessions),
        host.statistics().queued_bytes,
        sum(instance.call_bytes for instance in instances),
        trio.lowlevel.current_statistics().tasks_living - len(instances),  # each of which has one
    )


async def _attack(gateway: Gateway, attack: Attack, transcripts: list[Transcript]) -> None:
    link = Link("attacker")
    link.partial_writes(attack.piece)
    stream, theirs = link.open_pair()
    transcript = Transcript(attack)
    tokens = [token for earlier in transcripts for token in earlier.tokens()]
    transcripts.append(transcript)
    async with trio.open_nursery() as nursery:

        async def hear() -> None:
            try:
                while data := await stream.receive_some():
                    transcript.hear(bytes(data))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass

        nursery.start_soon(serve_wire, gateway, Wire(theirs, peer="192.0.2.1"))
        if not attack.deaf:
            nursery.start_soon(hear)
        try:
            with trio.move_on_after(20):
                if attack.opening is not None:
                    await stream.send_all(attack.opening.render(tokens))
                for step in attack.steps:
                    if isinstance(step, bytes):
                        await stream.send_all(step)
                    else:
                        await trio.sleep(step)
                await trio.testing.wait_all_tasks_blocked()
                if attack.ending == "stay":
                    await trio.sleep(8)
                elif attack.ending == "close":
                    await stream.send_eof()
                    await trio.sleep(8)
        except trio.BrokenResourceError:
            pass  # the server has had enough
        if attack.ending == "abort":
            link.break_()
        stream.close()


async def _besiege(attacks: Sequence[Attack], together: bool) -> list[Transcript]:
    transcripts: list[Transcript] = []
    async with open_host(REGISTRY, LIMITS) as host, trio.open_nursery() as everything:
        gateway = Gateway(host, Origins())
        ours, theirs = Link("innocent").open_pair()
        everything.start_soon(serve_wire, gateway, Wire(theirs, peer="192.0.2.2"))
        target = "/gateway/room/connect?rvt-namespace=default&rvt-method=getOrCreate&rvt-runner=default&rvt-key=k"
        peer = await (await Peer(ours).open(target)).init()
        innocent = Innocent(peer)
        await innocent.begin()
        await trio.testing.wait_all_tasks_blocked()
        before = _remains(host, gateway)

        async with trio.open_nursery() as nursery:
            for attack in attacks:
                if together:
                    nursery.start_soon(_attack, gateway, attack, transcripts)
                else:
                    await _attack(gateway, attack, transcripts)
                await innocent.check()
        await innocent.check()
        await trio.sleep(OVER)
        await innocent.check()
        await trio.testing.wait_all_tasks_blocked()
        after = _remains(host, gateway)
        assert after == before, f"before {before}, after {after}"
        gateway._budget.take(LIMITS.http_bodies, None)  # they are all free again
        everything.cancel_scope.cancel()
    return transcripts


def besiege(attacks: Sequence[Attack], together: bool, outcomes: Counter[str], schedule: int = 0) -> None:
    """Attack a server; count what came of it. Raises AssertionError for what must not have been."""
    seed_scheduler(schedule)
    with no_failure_is_logged():
        transcripts = trio.run(_besiege, attacks, together, clock=trio.testing.MockClock(autojump_threshold=0))
    for transcript in transcripts:
        outcomes.update(transcript.outcomes())
