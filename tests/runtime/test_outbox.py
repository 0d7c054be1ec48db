"""The way out of a connection: order, coalescing, partial writes, bounds, closing."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from tests.runtime.support import FORMAT, FakeTransport, settled
from trivet import Limits
from trivet.runtime.backlog import Backlog
from trivet.runtime.flush import Flusher, FlushTask
from trivet.runtime.outbox import Outbox
from trivet.runtime.scope import TaskScope
from trivet.runtime.timers import Timers

LIMITS = Limits(
    outbox_soft_messages=4,
    outbox_soft_bytes=100,
    outbox_soft_time=5,
    outbox_hard_messages=10,
    outbox_hard_bytes=1000,
    outbox_total_bytes=10_000,
)


@attrs.define
class Bench:
    """Outboxes as a host has them."""

    timers: Timers
    flusher: Flusher
    backlog: Backlog
    nursery: trio.Nursery
    ended: list[Outbox] = attrs.field(factory=list[Outbox])
    broken: list[Outbox] = attrs.field(factory=list[Outbox])

    def outbox(self, transport: FakeTransport, *, resumable: bool = False) -> Outbox:
        def too_slow() -> None:
            self.ended.append(box)
            box.abandon(b"too slow\n")

        box = Outbox(
            transport,
            FORMAT,
            flusher=self.flusher,
            backlog=self.backlog,
            timers=self.timers,
            scope=TaskScope(self.nursery),
            on_too_slow=too_slow,
            dropped_frame=lambda event, count: f"dropped {event} {count}\n".encode(),
            on_broken=(lambda: self.broken.append(box)) if resumable else None,
        )
        return box


@asynccontextmanager
async def bench(limits: Limits = LIMITS) -> AsyncGenerator[Bench]:
    async with trio.open_nursery() as nursery:
        timers, flushes = Timers(), FlushTask()
        nursery.start_soon(timers.run)
        nursery.start_soon(flushes.run)
        yield Bench(timers, Flusher(flushes), Backlog(limits), nursery)
        nursery.cancel_scope.cancel()


async def test_what_gathers_before_the_emitter_waits_is_one_send() -> None:
    async with bench() as on:
        transport = FakeTransport()
        box = on.outbox(transport)
        for index in range(4):
            box.put(f"{index}\n".encode())
        assert transport.sends == 0
        await settled()
        assert transport.lines == ["0", "1", "2", "3"]
        assert transport.sends == 1


async def test_nothing_is_sent_inside_an_actors_own_turn_until_it_leaves() -> None:
    async with bench() as on:
        transport = FakeTransport()
        box = on.outbox(transport)
        on.flusher.inline = True
        box.put(b"0\n")
        await settled()
        assert transport.sends == 0
        on.flusher.leave_inline()
        await settled()
        assert transport.lines == ["0"]


async def test_what_the_transport_does_not_take_follows_in_order() -> None:
    async with bench() as on:
        transport = FakeTransport(room=3)
        box = on.outbox(transport)
        box.put(b"one\n")
        box.put(b"two\n")
        await settled()
        assert transport.received == b"one"
        assert box.statistics().queued_messages == 2
        assert box.statistics().queued_bytes == 5
        box.put(b"three\n")
        transport.read(2)
        await settled()
        assert transport.received == b"one\nt"
        transport.read()
        await settled()
        assert transport.lines == ["one", "two", "three"]
        assert box.statistics().sent_messages == 3
        assert on.backlog.bytes == 0


async def test_a_long_burst_is_flushed_before_its_emitter_waits() -> None:
    async with bench(Limits()) as on:
        transport = FakeTransport()
        box = on.outbox(transport)
        for _ in range(3):
            box.put(b"x" * 40_000 + b"\n")
        assert len(transport.received) == 80_002
        await settled()
        assert len(transport.lines) == 3


async def test_over_the_hard_bound_after_a_flush_is_too_slow_at_once() -> None:
    async with bench() as on:
        transport = FakeTransport(room=0)
        box = on.outbox(transport)
        for index in range(11):
            box.put(f"{index}\n".encode())
        assert on.ended == []
        await settled()
        assert on.ended == [box]
        assert box.put(b"late\n") is False


async def test_what_was_sent_whole_and_is_not_acknowledged_is_held_to_the_hard_bound_of_bytes_too() -> None:
    async with bench(attrs.evolve(LIMITS, outbox_soft_messages=100, outbox_hard_messages=100)) as on:
        silent, good = on.outbox(FakeTransport(), resumable=True), on.outbox(FakeTransport(), resumable=True)
        for count in range(1, 12):
            assert on.ended == []
            for box in (silent, good):
                box.put(b"x" * 99 + b"\n")
            await settled()
            assert good.acknowledge(count)
        assert on.ended == [silent]
        assert on.backlog.bytes == 0


async def test_over_the_soft_bound_is_too_slow_only_when_it_stays_so(autojump_clock: trio.abc.Clock) -> None:
    async with bench() as on:
        transport = FakeTransport(room=0)
        box = on.outbox(transport)
        for index in range(6):
            box.put(f"{index}\n".encode())
        await trio.sleep(4)
        transport.read(12)
        await trio.sleep(4)
        assert on.ended == []
        for index in range(6):
            box.put(f"{index}\n".encode())
        await trio.sleep(4.9)
        assert on.ended == []
        await trio.sleep(0.2)
        assert on.ended == [box]


async def test_a_burst_that_the_client_reads_hurts_nobody(autojump_clock: trio.abc.Clock) -> None:
    async with bench() as on:
        transport = FakeTransport()
        box = on.outbox(transport)
        for index in range(2000):
            box.put(f"{index}\n".encode())
        await trio.sleep(10)
        assert on.ended == []
        assert transport.lines == [str(index) for index in range(2000)]


async def test_abandoning_keeps_a_frame_that_was_begun_whole(autojump_clock: trio.abc.Clock) -> None:
    async with bench() as on:
        transport = FakeTransport(room=2)
        box = on.outbox(transport)
        for index in range(12):
            box.put(f"frame {index}\n".encode())
        await settled()
        assert on.ended == [box]
        transport.read()
        await settled()
        assert transport.lines[-1] == "too slow"
        assert transport.lines[0] == "frame 0"
        assert transport.finished
        assert on.backlog.bytes == 0


async def test_the_largest_ends_when_all_together_hold_too_much() -> None:
    async with bench(attrs.evolve(LIMITS, outbox_total_bytes=150)) as on:
        small, large = on.outbox(FakeTransport(room=0)), on.outbox(FakeTransport(room=0))
        small.put(b"x" * 60)
        large.put(b"x" * 95)
        await settled()
        assert on.ended == [large]
        assert on.backlog.bytes < 150


async def test_closing_sends_what_was_queued_then_the_close_frame_then_finishes() -> None:
    async with bench() as on:
        transport = FakeTransport()
        box = on.outbox(transport)
        box.put(b"last\n")
        box.close(b"close\n")
        assert box.closing
        assert box.put(b"late\n") is False
        await settled()
        assert transport.lines == ["last", "close"]
        assert transport.finished
        assert len(on.timers) == 0


async def test_a_close_that_its_client_does_not_read_is_aborted(autojump_clock: trio.abc.Clock) -> None:
    async with bench() as on:
        transport = FakeTransport(room=0)
        on.outbox(transport).close(b"close\n")
        await trio.sleep(Limits().close_timeout + 0.1)
        assert transport.aborted


async def test_a_broken_transport_drops_everything_and_aborts() -> None:
    async with bench() as on:
        transport = FakeTransport(room=1)
        box = on.outbox(transport)
        box.put(b"frame\n")
        await settled()
        transport.broken = True
        transport.read()
        await settled()
        assert transport.aborted
        assert box.statistics().queued_bytes == 0
        assert on.backlog.bytes == 0
        assert box.put(b"late\n") is False


async def test_as_a_send_channel_it_waits_for_room_and_raises_when_closed() -> None:
    async with bench() as on:
        transport = FakeTransport(room=0)
        box = on.outbox(transport)
        for index in range(5):
            await box.send(f"{index}\n".encode())
        with pytest.raises(trio.WouldBlock):
            box.send_nowait(b"5\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(box.send, b"5\n")
            await settled()
            assert box.statistics().queued_messages == 5
            transport.read()
        await settled()
        assert transport.lines == [str(index) for index in range(6)]
        await box.aclose()
        assert transport.aborted
        with pytest.raises(trio.ClosedResourceError):
            await box.send(b"6\n")


async def test_a_flush_of_many_lets_others_run(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench() as on:
        boxes = [on.outbox(FakeTransport()) for _ in range(200)]
        on.flusher.inline = True
        for box in boxes:
            box.put(b"x\n")
        now = trio.current_time()
        ticks = iter(range(1_000_000))
        monkeypatch.setattr("trivet.runtime.flush.trio.current_time", lambda: now + next(ticks))
        others_ran = 0

        async def other() -> None:
            nonlocal others_ran
            while True:
                others_ran += 1
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            await on.flusher.flush()
            nursery.cancel_scope.cancel()
        monkeypatch.undo()
        assert others_ran >= 3
        assert all(isinstance(box.transport, FakeTransport) and box.transport.lines == ["x"] for box in boxes)
