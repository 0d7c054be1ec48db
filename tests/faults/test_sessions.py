"""Sessions over real sockets: transports that break under load, and clients that are killed."""

import os
import random
import signal
import socket
import struct
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Final

import pytest
import trio

import trivet
from trivet import Actor, Conn, ConnectionLost, Event, Limits, Registry, action

LONG: Final = os.environ.get("TRIVET_LONG") == "1"
SESSIONS: Final = 20
BREAKS: Final = 200 if LONG else 50
EVENTS_A_SECOND: Final = 1000 if LONG else 400
SECONDS: Final = 60 if LONG else 5


class Ticker(Actor):
    tick = Event(int)

    def __init__(self) -> None:
        self.left: list[str] = []
        self.somebody_left = trio.Event()
        self.next = 0

    def on_disconnect(self, conn: Conn) -> None:
        if conn.kind == "events":
            self.left.append(conn.id)
            self.somebody_left.set()

    @action(concurrent=True)
    async def run_for(self, seconds: float) -> int:
        """Emit at a steady rate."""
        began = trio.current_time()
        while (elapsed := trio.current_time() - began) < seconds:
            while self.next < elapsed * EVENTS_A_SECOND:
                self.broadcast(self.tick, self.next)
                self.next += 1
            await trio.sleep(0.005)
        return self.next

    @action
    def number(self, n: int) -> int:
        return n

    @action(concurrent=True)
    async def wait_until_left(self) -> list[str]:
        await self.somebody_left.wait()
        return self.left


class Cable:
    """A way to the server that can be cut: everything that goes through it breaks at once, mid-frame or not."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._pairs: dict[trio.SocketStream, trio.SocketStream] = {}

    async def serve(self, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(partial(trio.serve_tcp, self._carry, 0, host="127.0.0.1"))
            task_status.started(listeners[0].socket.getsockname()[1])

    async def _carry(self, near: trio.SocketStream) -> None:
        try:
            async with await trio.open_tcp_stream("127.0.0.1", self._port) as far:
                self._pairs[near] = far
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._forward, near, far)
                    await self._forward(far, near)
                    nursery.cancel_scope.cancel()
        except* OSError:
            pass
        finally:
            self._pairs.pop(near, None)

    async def _forward(self, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        try:
            async for data in source:
                await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    def cut(self, choose: random.Random) -> None:
        """Break one connection that is open now, with whatever of it is on its way."""
        if self._pairs:
            near = choose.choice(list(self._pairs))
            for stream in (near, self._pairs[near]):
                if stream.socket.fileno() >= 0:  # the other end may have ended it a moment ago
                    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    stream.socket.close()


@pytest.mark.timeout(600)
async def test_every_session_sees_every_event_once_and_in_order_however_often_its_transport_breaks() -> None:
    choose = random.Random(7)
    async with trio.open_nursery() as nursery:
        # A machine that cannot keep up with so many events shall take its time: here nobody is too slow.
        limits = Limits(
            outbox_soft_time=300, outbox_hard_messages=1_000_000, outbox_hard_bytes=1 << 30, resume_window=120
        )
        server: trivet.Server = await nursery.start(partial(trivet.serve, Registry(Ticker), port=0, limits=limits))
        cable = Cable(server.port)
        port: int = await nursery.start(cable.serve)
        seen: list[list[int]] = [[] for _ in range(SESSIONS)]
        answers: list[list[int]] = [[] for _ in range(SESSIONS)]
        gaps: list[object] = []
        done = trio.Event()
        ready = 0

        async def session(index: int) -> None:
            nonlocal ready
            async with trivet.open_client(f"http://127.0.0.1:{port}") as client:
                async with client.get_or_create(Ticker, "t").connect() as room:
                    room.on(Ticker.tick, seen[index].append)
                    room.on_error(gaps.append)
                    await room.sync()
                    ready += 1
                    number = 0
                    while not done.is_set():
                        answers[index].append(await room.call(Ticker.number, number))
                        number += 1
                        with trio.move_on_after(0.2):
                            await done.wait()
                    await room.sync()

        async def breaks() -> None:
            for _ in range(BREAKS):
                await trio.sleep(SECONDS / BREAKS * choose.uniform(0.5, 1.3))
                cable.cut(choose)

        with trio.fail_after(SECONDS + 500):
            async with trio.open_nursery() as sessions:
                for index in range(SESSIONS):
                    sessions.start_soon(session, index)
                async with trivet.open_client(server.url) as control:
                    ticker = control.get_or_create(Ticker, "t")
                    while ready < SESSIONS:
                        await ticker.call(Ticker.number, 0)
                        await trio.sleep(0.05)  # which leaves them the processor
                    sessions.start_soon(breaks)
                    emitted = await ticker.call(Ticker.run_for, SECONDS)
                    done.set()
        assert emitted >= EVENTS_A_SECOND * SECONDS * 0.5
        for index in range(SESSIONS):
            assert seen[index] == list(range(emitted))
            assert answers[index] == list(range(len(answers[index])))
        assert gaps == []
        nursery.cancel_scope.cancel()


CLIENT: Final = """
import sys, trio, trivet
async def main():
    async with trivet.open_client(sys.argv[1]) as client:
        async with client.get_or_create("ticker", "t").connect() as room:
            room.on("tick", lambda n: None)
            print(room.conn_id, flush=True)
            await trio.sleep_forever()
trio.run(main)
"""


async def test_a_killed_client_is_gone_after_the_window_and_on_disconnect_has_run_once() -> None:
    limits = Limits(resume_window=1)
    async with trio.open_nursery() as nursery:
        server: trivet.Server = await nursery.start(partial(trivet.serve, Registry(Ticker), port=0, limits=limits))
        process = await trio.lowlevel.open_process(
            [sys.executable, "-c", CLIENT, server.url], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
        )
        assert process.stdout is not None
        with trio.fail_after(60):
            conn_id = (await process.stdout.receive_some()).decode().strip()
            async with trivet.open_client(server.url) as client:
                ticker = client.get_or_create(Ticker, "t")
                assert len(server.host.sessions) == 1
                process.send_signal(signal.SIGKILL)
                await process.wait()
                left = await ticker.call(Ticker.wait_until_left)
                assert left == [conn_id]
                assert server.host.sessions == {}
                assert server.host.statistics().connections == 0
        await process.stdout.aclose()
        nursery.cancel_scope.cancel()


async def test_a_session_whose_window_was_exceeded_is_told_of_its_gap() -> None:
    limits = Limits(resume_window=0.2)
    async with trio.open_nursery() as nursery:
        server: trivet.Server = await nursery.start(partial(trivet.serve, Registry(Ticker), port=0, limits=limits))
        cable = Cable(server.port)
        port: int = await nursery.start(cable.serve)
        told: list[Exception] = []
        with trio.fail_after(60):
            async with trivet.open_client(f"http://127.0.0.1:{port}") as client:
                async with client.get_or_create(Ticker, "t").connect() as room:
                    before = room.conn_id
                    room.on(Ticker.tick, lambda n: None)
                    room.on_error(told.append)
                    again = trio.Event()
                    await room.sync()
                    session = next(iter(server.host.sessions.values()))
                    room.on_open(again.set)
                    session.give_up()  # as the timer does at the end of the window
                    cable.cut(random.Random(0))
                    await again.wait()
                    assert room.conn_id != before
                    assert [type(error).__name__ for error in told] == ["Gap"]
                    assert not any(isinstance(error, ConnectionLost) for error in told)
        nursery.cancel_scope.cancel()
