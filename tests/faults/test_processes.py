"""What the machine does to a server: it stands still, it runs out of descriptors, its clock is set."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from tests.faults.short_server import LIMITS
from tests.faults.support import Peer, dial, read_all, running, to, until
from trivet.client import open_client
from trivet.errors import Gap

ROOT = Path(__file__).parent.parent.parent

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits of POSIX")

LONG = bool(os.environ.get("TRIVET_LONG"))

MINUTES = 60 * (20 if LONG else 2)
"""How long a machine may take that has much else to do: nothing here waits for so long of itself."""


@attrs.frozen
class Program:
    """A server in a process of its own."""

    process: trio.Process
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def seconds_of_cpu(self) -> float:
        """What it has used so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def peer(self, key: str = "k") -> Peer:
        return await (await Peer(await dial(self.port)).open(to("/connect", "counter", key))).init()


@asynccontextmanager
async def program(files: int = 0) -> AsyncGenerator[Program]:
    command = [sys.executable, "-m", "tests.faults.short_server", str(files)]
    process = await trio.lowlevel.open_process(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL if files else None, cwd=ROOT
    )
    assert process.stdout is not None
    try:
        with trio.fail_after(MINUTES):
            line = b""
            while not line.endswith(b"\n"):
                piece = await process.stdout.receive_some()
                assert piece, "the server did not start"
                line += piece
            yield Program(process, int(line))
    finally:
        if process.returncode is None:
            process.kill()  # which ends a stopped one too
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stdout.aclose()


# -- standing still ---------------------------------------------------------------------------------------------------


async def test_a_server_that_stood_still_goes_on_with_every_session() -> None:
    """Longer than its clients believe in it: they come back to their sessions, and have missed and repeated nothing."""
    rounds = 30 if LONG else 1
    async with program() as server, open_client(server.url, limits=LIMITS) as client:
        seen: list[int] = []
        errors: list[Exception] = []
        closed = 0

        def note_close(_: object) -> None:
            nonlocal closed
            closed += 1

        connection = client.get_or_create("counter", "k").connect()
        connection.on("counted", seen.append)
        connection.on_error(errors.append)
        connection.on_close(note_close)
        async with connection as room:
            calls = 0
            for _ in range(rounds):
                before = closed
                for _ in range(5):
                    calls += 1
                    assert await room.call("add", calls) == calls
                server.signal(signal.SIGSTOP)
                answers: list[int] = []
                async with trio.open_nursery() as nursery:

                    async def add(number: int, answers: list[int] = answers) -> None:
                        answers.append(await room.call("add", number))

                    for _ in range(5):
                        calls += 1
                        nursery.start_soon(add, calls)

                    def given_up(before: int = before) -> bool:
                        return closed > before

                    await until(given_up, "the client gives the server up")
                    assert answers == []
                    server.signal(signal.SIGCONT)
                assert sorted(answers) == list(range(calls - 4, calls + 1))
            assert seen == list(range(1, calls + 1))
            assert not any(isinstance(error, Gap) for error in errors)


async def test_a_server_that_stood_still_does_not_give_up_who_stayed() -> None:
    """It has not listened for longer than it would let a client be silent, which is not the client's fault."""
    async with program() as server:
        peers = [await server.peer(f"k{number}") for number in range(8)]
        for _ in range(30 if LONG else 1):
            server.signal(signal.SIGSTOP)
            await trio.sleep(1.25 * LIMITS.ping_timeout)
            calls = [await peer.act("add", 7) for peer in peers]
            server.signal(signal.SIGCONT)
            for peer, call in zip(peers, calls, strict=True):
                assert await peer.answer(call) == 7


# -- no descriptors left ----------------------------------------------------------------------------------------------


async def test_without_descriptors_connections_go_on_and_new_ones_wait_for_room() -> None:
    async with program(files=48) as server, trio.open_nursery() as nursery:
        innocent = await server.peer("innocent")
        calls = 0

        async def keep_calling() -> None:
            nonlocal calls
            while True:
                calls += 1
                assert await innocent.call("add", calls) == calls
                await trio.sleep(0.1)

        nursery.start_soon(keep_calling)
        crowd: list[trio.SocketStream] = []
        # Until one is not served, since the server cannot accept it; it waits in the kernel's queue.
        while True:
            stream = await dial(server.port)
            crowd.append(stream)
            await stream.send_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
            with trio.move_on_after(3):
                assert b" 200 OK" in bytes(await stream.receive_some())
                continue
            break
        assert 10 < len(crowd) < 48

        began, used, before = time.monotonic(), server.seconds_of_cpu(), calls
        await until(lambda: calls >= before + 5)
        # What it does while it cannot accept is to wait: a loop that tried again at once would take all of the time.
        assert server.seconds_of_cpu() - used < 0.6 * (time.monotonic() - began)

        waiting = crowd.pop()
        for stream in crowd:
            await stream.aclose()
        assert b" 200 OK" in bytes(await waiting.receive_some())
        await waiting.aclose()
        newcomer = await server.peer("newcomer")
        assert await newcomer.call("add", 7) == 7
        nursery.cancel_scope.cancel()


# -- clocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [-1e9, -3600.0, 3600.0, 1e9])
async def test_a_step_of_the_wall_clock_ends_nothing_and_fires_nothing(
    monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    async with running() as server:
        peer = await (await Peer(await dial(server.port)).open(to("/connect"))).init()
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + step)
        for number in range(10):
            assert await peer.call("echo", str(number)) == str(number)
        stream = await dial(server.port)
        await stream.send_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        assert (await read_all(stream)).startswith(b"HTTP/1.1 200 OK")
        assert server.statistics().host.connections == 1
        another = await (await Peer(await dial(server.port)).open(to("/connect"))).init()
        assert await another.call("echo", "hi") == "hi"


# -- half-open peers --------------------------------------------------------------------------------------------------


async def test_who_has_ended_its_side_still_gets_its_answer() -> None:
    async with running() as server:
        stream = await dial(server.port)
        body = b'{"args":["hi"]}'
        head = f"POST {to('/action/echo')} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
        await stream.send_all(head.encode() + body)
        await stream.send_eof()
        assert b'{"output":"hi"}' in await read_all(stream)


async def test_a_connection_that_can_only_listen_ends() -> None:
    async with running() as server:
        peer = await (await Peer(await dial(server.port)).open(to("/connect"))).init()
        assert isinstance(peer.stream, trio.SocketStream)
        await peer.stream.send_eof()
        await peer.ended()
        await until(lambda: not server.statistics().host.connections)
