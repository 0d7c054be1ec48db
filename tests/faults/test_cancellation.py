"""Whatever is cancelled, wherever it is: no task is left, nobody hangs, and those that were not cancelled go on."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import lockstep_stream_pair, memory_stream_pair

from tests.faults.steps import CancelAfter, at_every_step
from tests.faults.support import (
    CLOSE,
    CONTINUATION,
    LOCALHOST,
    TEXT,
    EndOfStream,
    Frame,
    Peer,
    action_request,
    client_frame,
    close_payload,
    logged,
    subscription,
    to,
)
from trivet import (
    Actor,
    ActorError,
    Client,
    Conn,
    ConnectionLost,
    Event,
    Limits,
    Registry,
    Request,
    Response,
    WebSocket,
    action,
    open_client,
    open_local,
)
from trivet.runtime.host import open_host
from trivet.server import serve, serve_stream


class Busy(Actor[dict[str, int], None, object]):
    """Suspends wherever it can."""

    said = Event(str)

    async def on_wake(self) -> None:
        await trio.lowlevel.checkpoint()

    async def run(self) -> None:
        await trio.sleep_forever()

    async def on_before_connect(self, params: object) -> None:
        await trio.lowlevel.checkpoint()

    async def on_connect(self, conn: Conn[None, object]) -> None:
        await trio.lowlevel.checkpoint()
        self.state["connected"] = self.state.get("connected", 0) + 1

    async def on_disconnect(self, conn: Conn[None, object]) -> None:
        await trio.lowlevel.checkpoint()
        self.state["disconnected"] = self.state.get("disconnected", 0) + 1

    async def on_state_change(self) -> None:
        await trio.lowlevel.checkpoint()

    @said.can_subscribe
    async def may_hear(self, conn: object) -> bool:
        await trio.lowlevel.checkpoint()
        return True

    @action
    async def say(self, text: str) -> str:
        self.broadcast(self.said, text)
        await trio.lowlevel.checkpoint()
        self.broadcast(self.said, text + "!")
        return text

    @action
    def counts(self) -> list[int]:
        return [self.state.get("connected", 0), self.state.get("disconnected", 0), len(self.conns)]

    @action(concurrent=True)
    async def take_turns(self) -> int:
        async with self.turn():
            await trio.lowlevel.checkpoint()
        return 1

    @action
    async def ask(self, key: str) -> str:
        async with self.client().get_or_create(Busy, key).connect() as other:
            return await other.call(Busy.say, "asked")

    async def on_request(self, request: Request) -> Response:
        await trio.lowlevel.checkpoint()
        return Response(request.body)

    async def on_websocket(self, websocket: WebSocket) -> None:
        async for message in websocket:
            await websocket.send(message)


REGISTRY = Registry(Busy)


async def everything(client: Client) -> None:
    """All that a client can do with an actor."""
    busy = client.get_or_create(Busy, "k")
    assert await busy.call(Busy.say, "hi") == "hi"
    heard: list[str] = []
    async with busy.connect() as room:
        room.on(Busy.said, heard.append)
        async with room.events(Busy.said) as events:
            assert await room.call(Busy.say, "a") == "a"
            assert [await anext(events), await anext(events)] == ["a", "a!"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(room.actions.take_turns)
            nursery.start_soon(room.actions.say, "b")
        assert await room.call(Busy.ask, "other") == "asked"
    assert heard == ["a", "a!", "b", "b!"]
    assert (await busy.fetch("/x", method="POST", body=b"body")).body == b"body"
    async with busy.websocket() as websocket:
        await websocket.send("hi")
        assert await websocket.receive() == "hi"


def test_everything_local_can_be_cancelled_at_every_step(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(canceller: CancelAfter) -> None:
        with canceller.armed():
            async with open_local(REGISTRY) as client:
                await everything(client)

    assert at_every_step(scenario) > 100
    assert logged(caplog.records) == []


def test_a_client_can_be_cancelled_at_every_step_and_the_actor_lives_on(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(canceller: CancelAfter) -> None:
        async with open_local(REGISTRY) as client, client.get_or_create(Busy, "k").connect() as other:
            with canceller.armed():
                await everything(client)
            # Those that had been let in have left: what is posted for them is in front of the next call.
            connected, disconnected, present = await other.call(Busy.counts)
            assert present == 1
            assert disconnected == connected - 1
            assert await other.call(Busy.say, "still here") == "still here"
            await everything(client)

    assert at_every_step(scenario) > 100
    assert logged(caplog.records) == []


@pytest.mark.parametrize("kind", ["connected", "stateless", "concurrent", "nested"])
def test_a_call_can_be_cancelled_at_every_step_and_its_connection_goes_on(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(canceller: CancelAfter) -> None:
        async with open_local(REGISTRY) as client:
            busy = client.get_or_create(Busy, "k")
            async with busy.connect() as room:
                heard: list[str] = []
                room.on(Busy.said, heard.append)
                await room.call(Busy.counts)
                with canceller.armed():
                    if kind == "connected":
                        await room.call(Busy.say, "x")
                    elif kind == "stateless":
                        await busy.call(Busy.say, "x")
                    elif kind == "concurrent":
                        await room.call(Busy.take_turns)
                    else:
                        await room.call(Busy.ask, "other")
                assert await room.call(Busy.say, "y") == "y"
                # The cancelled call ran not at all, to where its cancellation met it, or whole; never after the next.
                assert heard in (["y", "y!"], ["x", "y", "y!"], ["x", "x!", "y", "y!"])
                await room.call(Busy.take_turns)

    assert at_every_step(scenario) > 5
    assert logged(caplog.records) == []


# -- a server's connection, over streams ------------------------------------------------------------------------------


async def _talk(stream: trio.abc.Stream) -> None:
    """A client that says everything at once, and reads strictly to the end, whichever it is."""
    peer = Peer(stream)
    try:
        await peer.open(to("/connect", "busy"))
        if (await peer.frame()).opcode == CLOSE:
            return
        sent = [subscription("said"), *(action_request(n, "say", ["x" * 100]) for n in range(3))]
        await stream.send_all(b"".join(client_frame(TEXT, message) for message in sent))
        await peer.send(TEXT, action_request(9, "counts", [])[:10], fin=False)
        await peer.send(CONTINUATION, action_request(9, "counts", [])[10:])
        for _ in range(3 * 3 + 1):
            frame = await peer.frame()
            if frame.opcode == CLOSE:
                return
            json.loads(frame.payload)
        await peer.send(CLOSE, close_payload(1000))
        assert await peer.frame() == Frame(CLOSE, close_payload(1000))
        await peer.ended()
    except (EndOfStream, trio.BrokenResourceError):
        pass
    finally:
        await trio.aclose_forcefully(stream)


@pytest.mark.parametrize("pair", [memory_stream_pair, lockstep_stream_pair])
def test_a_servers_connection_can_be_cancelled_at_every_step(
    pair: Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]], caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(canceller: CancelAfter) -> None:
        async with open_host(REGISTRY) as host, trio.open_nursery() as nursery:
            ours, theirs = pair()
            nursery.start_soon(_talk, ours)
            with canceller.armed():
                await serve_stream(host, theirs)
            instance, _ = await host.get_or_create("default", "busy", ("k",))
            output: Any = await instance.call("counts", [], request=Request("POST", "/"))
            assert output[1] == output[0] - 1
            assert output[2] == 1  # the call's own
            assert host.statistics().queued_bytes == 0

    assert at_every_step(scenario) > 20
    assert logged(caplog.records) == []


class _InPieces(trio.abc.Stream):
    """Sends as a socket does: what is cancelled has sent a part."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        for at in range(0, len(data), 5000):
            await self._stream.send_all(bytes(data[at : at + 5000]))

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()


def test_a_send_can_be_cancelled_at_every_step_and_no_frame_follows_half_of_one() -> None:
    """The peer gets the frame and what follows it, what follows alone, or an end instead of one or both."""

    async def scenario(canceller: CancelAfter) -> None:
        class Sender(Actor):
            async def on_websocket(self, websocket: WebSocket) -> None:
                with canceller.armed():
                    await websocket.send("x" * 100_000)
                await websocket.send("after")

        seen: list[str] = []

        async def read(stream: trio.abc.Stream) -> None:
            peer = Peer(stream)
            try:
                await peer.open(to("/websocket/", "sender"))
                while (frame := await peer.frame()).opcode != CLOSE:
                    seen.append(frame.payload.decode())
                await peer.send(CLOSE, frame.payload)
                await peer.ended()
            except EndOfStream:
                pass
            await trio.aclose_forcefully(stream)

        async with open_host(Registry(Sender)) as host, trio.open_nursery() as nursery:
            ours, theirs = memory_stream_pair()
            nursery.start_soon(read, ours)
            await serve_stream(host, _InPieces(theirs))
        whole = "x" * 100_000
        assert seen in ([], [whole], ["after"], [whole, "after"])
        outcomes.add(len(seen))

    outcomes: set[int] = set()
    assert at_every_step(scenario) > 20
    assert {0, 2} <= outcomes


def test_a_server_can_be_cancelled_at_every_step_of_its_stop(caplog: pytest.LogCaptureFixture) -> None:
    """The nursery that it runs in is cancelled while it serves and stops: nothing hangs."""

    async def scenario(canceller: CancelAfter) -> None:
        async with trio.open_nursery() as nursery:
            with canceller.armed():
                async with open_host(REGISTRY) as host:
                    ours, theirs = memory_stream_pair()
                    nursery.start_soon(_talk, ours)
                    async with trio.open_nursery() as connections:
                        connections.start_soon(_serve, host, theirs)
                        await host.get_or_create("default", "busy", ("k",))
                        await host.stop()

    assert at_every_step(scenario) > 20
    assert logged(caplog.records) == []


async def _serve(host: Any, stream: trio.abc.Stream) -> None:
    await serve_stream(host, stream)


# -- both sides, over real sockets ------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["client", "server"])
async def test_over_sockets_either_side_can_be_cancelled_at_any_step(
    who: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A sample of the steps: how many there are differs from run to run here."""
    limits = Limits(close_timeout=2.0)
    listening = await trio.open_tcp_listeners(0, host=LOCALHOST)
    port = listening[0].socket.getsockname()[1]
    await listening[0].aclose()
    before = trio.lowlevel.current_statistics().tasks_living
    step, completed = 1, False
    with trio.fail_after(60):
        while not completed:
            canceller = CancelAfter(step)
            async with trio.open_nursery() as nursery:
                if who == "client":
                    await nursery.start(_start_server, port, limits)
                    with canceller.armed():
                        async with open_client(f"http://{LOCALHOST}:{port}", limits=limits) as client:
                            await everything(client)
                    async with open_client(f"http://{LOCALHOST}:{port}", limits=limits) as client:
                        async with client.get_or_create(Busy, "k").connect() as room:
                            assert await room.call(Busy.say, "still here") == "still here"
                else:
                    nursery.start_soon(_use, port, limits)
                    with canceller.armed():
                        async with trio.open_nursery() as serving:
                            await serving.start(_start_server, port, limits)
                            await trio.sleep(0.2)
                            serving.cancel_scope.cancel()
                nursery.cancel_scope.cancel()
            assert trio.lowlevel.current_statistics().tasks_living == before
            completed = not canceller.fired
            step = step + 1 + step // 3
    assert logged(caplog.records) == []


async def _start_server(port: int, limits: Limits, *, task_status: trio.TaskStatus[Any]) -> None:
    await serve(REGISTRY, port=port, limits=limits, task_status=task_status)


async def _use(port: int, limits: Limits) -> None:
    try:
        async with open_client(f"http://{LOCALHOST}:{port}", limits=limits) as client:
            async with client.get_or_create(Busy, "k").connect() as room:
                while True:
                    await room.call(Busy.say, "hi")
    except (ActorError, ConnectionLost):
        pass  # Its server has gone, which is the point.
