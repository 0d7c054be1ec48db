"""Whatever breaks the transport, and wherever: every call runs once, every event comes once, in order."""

from functools import partial
from typing import Any, get_args

import attrs
import pytest
import trio
from hypothesis import event, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.client.fake import CutShort, FakeServer, Peer, StreamEnded
from trivet.actor import Actor, action
from trivet.client import open_client
from trivet.errors import TrivetError
from trivet.event import Event
from trivet.nurseries import open_quiet_nursery
from trivet.protocol.codec import Encoding
from trivet.protocol.extension import Resumed, Subscribe, Subscribed, encode, is_counted
from trivet.protocol.messages import ActionRequest, ActionResponse
from trivet.protocol.messages import Event as EventMessage
from trivet.registry import Registry
from trivet.server.serving import serve

GONE = (StreamEnded, CutShort, trio.BrokenResourceError, trio.ClosedResourceError)


class BreakingStream(trio.abc.Stream):
    """Carries so many bytes in each direction after the handshake, and then breaks: also in the middle of a frame."""

    def __init__(self, inner: trio.abc.Stream, sends: int, receives: int) -> None:
        self._inner = inner
        self._sends = sends
        self._receives = receives
        self._open = False

    async def _break(self) -> None:
        await trio.aclose_forcefully(self._inner)
        raise trio.BrokenResourceError

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if not self._open:
            await self._inner.send_all(data)
            return
        await self._inner.send_all(data[: self._sends])
        self._sends -= len(data)
        if self._sends <= 0:
            await self._break()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if not self._open:
            data = await self._inner.receive_some(max_bytes)
            self._open = b"\r\n\r\n" in data
            return data
        if self._receives <= 0:
            await self._break()
        data = await self._inner.receive_some(min(max_bytes or 65536, self._receives))
        self._receives -= len(data)
        return data

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._inner.aclose()


@attrs.define
class Model:
    """A session as it is specified, without bounds: all that was received, and all that is to be sent."""

    runs: list[str] = attrs.field(factory=list[str])
    received: int = 0
    sent: list[bytes] = attrs.field(factory=list[bytes])
    sessions: int = 0
    resumed: int = 0

    async def serve(self, server: FakeServer) -> None:
        while True:
            peer = await server.accept()
            try:
                if peer.claim is None:
                    self.sessions += 1
                    await peer.init()
                else:
                    self.resumed += 1
                    await peer.send_raw(peer.framed_extension(Resumed(self.received)))
                    await peer.send_raw(b"".join(self.sent[peer.claim.received :]))
                while True:
                    await self._handle(peer, await peer.hear())
            except GONE:
                await peer.drop()

    async def _handle(self, peer: Peer, message: Any) -> None:
        self.received += is_counted(message)
        answer = b""
        if isinstance(message, Subscribe):
            answer = self._keep(peer.framed_extension(Subscribed(message.id)))
        elif isinstance(message, ActionRequest):
            self.runs.append(message.name)
            answer = self._keep(peer.framed(EventMessage("ran", [message.name])))
            answer += self._keep(peer.framed(ActionResponse(message.id, message.name)))
        else:
            assert encode(message)
        await peer.send_raw(answer)

    def _keep(self, frame: bytes) -> bytes:
        self.sent.append(frame)
        return frame


breaks = st.lists(st.tuples(st.integers(1, 500), st.integers(1, 500)), max_size=6)


@settings(deadline=None, max_examples=30)
@given(breaks, st.integers(1, 12), st.sampled_from(get_args(Encoding)))
def test_calls_and_events_are_once_and_in_order(breaks: list[tuple[int, int]], count: int, encoding: Encoding) -> None:
    names = [f"call-{n}" for n in range(count)]
    events: list[str] = []
    outputs: list[str] = []
    problems: list[TrivetError] = []
    model = Model()

    async def scenario() -> None:
        async with open_quiet_nursery() as nursery:
            server = FakeServer(nursery)
            server.extended = True
            nursery.start_soon(model.serve, server)
            remaining = iter(breaks)
            dialled = 0

            async def connect(host: str, port: int) -> trio.abc.Stream:
                nonlocal dialled
                dialled += 1
                stream = await server.connect(host, port)
                # The first is for the metadata; the second has to come to a session, or there is nothing to resume.
                plan = None if dialled < 2 else next(remaining, None)
                if plan is None:
                    return stream
                return BreakingStream(stream, plan[0], plan[1] + 250 * (dialled == 2))

            async with open_client("http://fake:1", connect=connect, encoding=encoding) as client:
                connection = client.get_or_create("counter").connect()
                connection.on_gap(problems.append)
                connection.on("ran", events.append)
                with trio.move_on_after(200):
                    async with connection as room, trio.open_nursery() as callers:

                        async def call(name: str) -> None:
                            outputs.append(await room.call(name))

                        for name in names:
                            callers.start_soon(call, name)
                            await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()

    trio.run(scenario, clock=MockClock(autojump_threshold=0))
    assert sorted(model.runs) == sorted(names)
    assert events == model.runs
    assert sorted(outputs) == sorted(names)
    assert problems == []
    assert model.sessions == 1
    event(f"resumed {model.resumed} times")


class Counter(Actor[dict[str, int]]):
    counted = Event(int)

    def create_state(self, input: object) -> dict[str, int]:
        return {"n": 0}

    @action
    def count(self) -> int:
        self.state["n"] += 1
        self.broadcast(self.counted, self.state["n"])
        return self.state["n"]


@pytest.mark.parametrize("encoding", get_args(Encoding))
async def test_trivets_server_goes_on_with_sessions(encoding: Encoding) -> None:
    """Over real sockets, of which each breaks after some kilobytes."""
    dialled = 0
    registry = Registry(Counter)

    async def connect(host: str, port: int) -> trio.abc.Stream:
        nonlocal dialled
        dialled += 1
        stream = await trio.open_tcp_stream(host, port)
        return BreakingStream(stream, 1500 + 700 * dialled, 2500 + 1300 * dialled) if dialled > 1 else stream

    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, registry, port=0))
        with trio.fail_after(30):
            async with open_client(server.url, encoding=encoding, connect=connect) as client:
                connection = client.get_or_create(Counter).connect()
                gaps: list[TrivetError] = []
                events: list[int] = []
                results: list[int] = []
                connection.on_gap(gaps.append)
                async with connection as room:
                    room.on(Counter.counted, events.append)

                    async def caller() -> None:
                        for _ in range(20):
                            results.append(await room.call(Counter.count))  # noqa: PERF401 - as they come

                    async with trio.open_nursery() as callers:
                        for _ in range(10):
                            callers.start_soon(caller)
                    await room.sync()
                    assert events == list(range(1, 201))
                    assert sorted(results) == events
                    assert gaps == []
                    assert dialled > 2
        nursery.cancel_scope.cancel()
