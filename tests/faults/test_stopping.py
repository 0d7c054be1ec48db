"""A server that is told to stop while it works: everybody is answered or told, and it ends in time."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.faults.support import (
    CLOSE,
    TEXT,
    EndOfStream,
    Peer,
    action_request,
    client_frame,
    close_payload,
    dial,
    read_all,
    subscription,
    to,
)

ROOT = Path(__file__).parents[2]


class Program:
    """The server as a process of its own."""

    def __init__(self, process: trio.Process, port: int) -> None:
        self.process = process
        self.port = port
        self.signalled = 0.0

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.signalled = time.monotonic()
        self.process.send_signal(number)

    async def ended(self, within: float) -> int:
        """The exit status."""
        with trio.fail_after(within - (time.monotonic() - self.signalled)):
            return await self.process.wait()

    async def peer(self, rest: str = "/connect", key: str = "k") -> Peer:
        peer = await Peer(await dial(self.port)).open(to(rest, "worker", key))
        return await peer.init() if rest == "/connect" else peer

    async def post(self, action: str, args: str) -> trio.SocketStream:
        """A stateless call on its way."""
        stream = await dial(self.port)
        body = f'{{"args":[{args}]}}'
        head = f"POST {to(f'/action/{action}', 'worker')} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
        await stream.send_all(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
        return stream


@asynccontextmanager
async def program(grace: float) -> AsyncGenerator[Program]:
    command = [sys.executable, "-m", "tests.faults.stopping_server", str(grace)]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    try:
        with trio.fail_after(60):
            line = b""
            while not line.endswith(b"\n"):
                piece = await process.stdout.receive_some()
                assert piece, "the server did not start"
                line += piece
            yield Program(process, int(line))
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stdout.aclose()


async def _started(peer: Peer) -> None:
    """Once this is answered, so were or have begun all that it asked for before."""
    await peer.send(TEXT, subscription("ticked"))
    await peer.call("workBeside", 0)


async def _rest(peer: Peer) -> None:
    """To the end, whatever comes before it."""
    try:
        while True:
            await peer.frame()
    except EndOfStream:
        pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_under_load_everything_is_answered_or_told(number: signal.Signals) -> None:
    async with program(grace=20) as server:
        idle = [await server.peer(key=f"k{index % 5}") for index in range(50)]
        raw = await server.peer("/websocket/")
        silent = await server.peer("/websocket/")  # It will not answer a close frame.
        busy = await server.peer()
        await _started(busy)
        beside = await busy.act("workBeside", 1.5)
        tag, val = await busy.message()
        while (tag, val.get("args")) != ("Event", [1]):
            tag, val = await busy.message()
        queued = [await busy.act("work", 0.1) for _ in range(5)]
        stateless = [await server.post("work", "0.1") for _ in range(5)]
        # All of it has arrived when a later message of another connection is answered.
        witness = await server.peer()
        await witness.call("work", 0)
        running = await server.post("workBeside", "2.0")
        await witness.send(TEXT, subscription("ticked"))
        more = await witness.act("work", 0.5)
        answers: dict[int, object] = {}
        tag, val = await busy.message()
        while (tag, val.get("args")) != ("Event", [1]):
            if tag == "ActionResponse":
                answers[int(val["id"][1])] = val["output"]
            tag, val = await busy.message()
        server.stop(number)

        outcomes: dict[str, object] = {}

        async def read_busy() -> None:
            while (frame := await busy.frame()).opcode != CLOSE:
                if frame.opcode == TEXT:
                    body = json.loads(frame.payload)["body"]
                    if body["tag"] == "ActionResponse":
                        answers[int(body["val"]["id"][1])] = body["val"]["output"]
            await busy.send(CLOSE, frame.payload)
            await busy.ended()
            outcomes["busy"] = (answers, frame.close)

        async def read_idle(peer: Peer, index: int) -> None:
            outcomes[f"idle {index}"] = await peer.closed()

        async def read_witness() -> None:
            assert await witness.answer(more) == 0.5
            outcomes["witness"] = await witness.closed()

        async def read_raw() -> None:
            outcomes["raw"] = (await raw.closed())[0]

        async def read_http(name: str, stream: trio.SocketStream) -> None:
            outcomes[name] = await read_all(stream)

        async def come_late() -> None:
            """Whoever comes while it stops is told so, until there is nobody to come to."""
            told = 0
            try:
                while True:
                    peer = await Peer(await dial(server.port)).open(to("/connect", "worker"))
                    code, reason = await peer.closed()
                    assert (code, reason.partition("#")[0]) == (1011, "actor.stopping") or told == 0
                    told += reason.startswith("actor.stopping")
                    await peer.stream.aclose()
            except (OSError, trio.BrokenResourceError, EndOfStream):
                outcomes["late"] = told

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_busy)
            nursery.start_soon(read_witness)
            nursery.start_soon(read_raw)
            nursery.start_soon(come_late)
            for index, peer in enumerate(idle):
                nursery.start_soon(read_idle, peer, index)
            for index, stream in enumerate(stateless):
                nursery.start_soon(read_http, f"stateless {index}", stream)
            nursery.start_soon(read_http, "running", running)
        assert await server.ended(within=60) == 0

        going_away = (1001, "ws.going_away")
        assert outcomes.pop("busy") == ({beside: 1.5} | dict.fromkeys(queued, 0.1), going_away)
        assert outcomes.pop("witness") == going_away
        assert outcomes.pop("raw") in (1000, 1001)
        assert isinstance(late := outcomes.pop("late"), int)
        assert late > 0
        running_answer = outcomes.pop("running")
        assert isinstance(running_answer, bytes)
        assert running_answer.startswith(b"HTTP/1.1 200 ")
        assert running_answer.partition(b"\r\n\r\n")[2] in (b'{"output":2}', b'{"output":2.0}')
        for index in range(50):
            assert outcomes.pop(f"idle {index}") == going_away
        for index in range(5):
            answer = outcomes.pop(f"stateless {index}")
            assert isinstance(answer, bytes)
            assert answer.endswith(b'{"output":0.1}')
        assert outcomes == {}
        await silent.stream.aclose()


async def test_what_does_not_end_is_cut_off_within_the_grace() -> None:
    async with program(grace=2) as server:
        peer = await server.peer()
        await _started(peer)
        call = await peer.act("work", 1000)
        stateless = await server.post("workBeside", "1000")
        while (await peer.message())[1].get("args") != [1]:
            pass
        server.stop()
        tag, val = await peer.message()
        assert (tag, val["actionId"], val["code"]) == ("Error", ["$BigInt", str(call)], "shutdown_timeout")
        assert await peer.closed() == (1001, "ws.going_away")
        answer = await read_all(stateless)
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert b'"shutdown_timeout"' in answer
        assert await server.ended(within=40) == 0


async def test_a_second_signal_ends_it_at_once() -> None:
    async with program(grace=60) as server:
        peer = await server.peer()
        await _started(peer)
        await peer.act("workBeside", 1000)
        while (await peer.message())[1].get("args") != [1]:
            pass
        server.stop()
        # It has begun to stop when newcomers are turned away.
        while True:
            late = await Peer(await dial(server.port)).open(to("/connect", "worker"))
            frame = await late.frame()
            await late.stream.aclose()
            if frame.opcode == CLOSE:
                assert frame.close[1].startswith("actor.stopping")
                break
        server.stop()
        await server.ended(within=40)
        await _rest(peer)


async def test_a_client_that_ignores_its_goodbye_holds_up_nothing_for_long() -> None:
    async with program(grace=20) as server:
        deaf = [await server.peer(key=f"k{index % 3}") for index in range(20)]
        raw = [await server.peer("/websocket/") for _ in range(20)]
        server.stop()
        # The close timeout is one second, whatever their number, and the grace is longer.
        assert await server.ended(within=15) == 0
        for peer in [*deaf, *raw]:
            assert (await peer.frame()).opcode == CLOSE
            await peer.stream.aclose()


async def test_a_burst_at_the_moment_of_the_signal_is_answered_or_told() -> None:
    async with program(grace=20) as server:
        peers = [await server.peer() for _ in range(20)]
        for peer in peers:
            await peer.stream.send_all(b"".join(client_frame(TEXT, action_request(n, "work", [0])) for n in range(20)))
        server.stop()
        for peer in peers:
            answered: list[int] = []
            while (frame := await peer.frame()).opcode != CLOSE:
                body = json.loads(frame.payload)["body"]
                if body["tag"] == "ActionResponse":
                    answered.append(int(body["val"]["id"][1]))
                else:
                    assert (body["tag"], body["val"]["code"]) == ("Error", "stopping")
            assert frame.close == (1001, "ws.going_away")
            assert answered == list(range(len(answered)))
            await peer.send(CLOSE, close_payload(1001))
        assert await server.ended(within=60) == 0
        for peer in peers:
            await peer.stream.aclose()
