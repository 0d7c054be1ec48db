"""What all outboxes hold together: what is shared counts once, and those end whose ends free most."""

import random

import attrs
import pytest

from tests.runtime.support import FakeTransport, actor_of, settled
from tests.runtime.test_audience import Room, bring_together, world
from tests.runtime.test_outbox import LIMITS, bench
from trivet import Limits
from trivet.runtime.frames import Droppable
from trivet.runtime.outbox import Outbox

REFERENCE = 8


async def test_a_broadcast_counts_once_and_a_reference_for_each_who_holds_it() -> None:
    async with bench() as on:
        frame = b"x" * 50
        boxes = [on.outbox(FakeTransport(room=0)) for _ in range(10)]
        for box in boxes:
            box.put(frame)
        await settled()
        assert on.backlog.bytes == 50 + 10 * REFERENCE
        for box in boxes[1:]:
            box.break_()
        assert on.backlog.bytes == 50 + REFERENCE
        boxes[0].break_()
        assert on.backlog.bytes == 0


async def test_what_is_not_acknowledged_counts_until_it_is() -> None:
    async with bench() as on:
        transport = FakeTransport()
        box = on.outbox(transport, resumable=True)
        box.put(b"x" * 50)
        box.put(b"y" * 30)
        await settled()
        assert transport.lines
        assert on.backlog.bytes == 80 + 2 * REFERENCE
        assert box.acknowledge(1)
        assert on.backlog.bytes == 30 + REFERENCE
        box.detach()
        assert on.backlog.bytes == 30 + REFERENCE
        assert box.attach(FakeTransport(), 2)
        assert on.backlog.bytes == 0
        box.put(b"z" * 40)
        await settled()
        box.close(b"close\n")
        await settled()
        assert on.backlog.bytes == 0


async def test_what_those_together_have_not_acknowledged_counts_once_for_all_of_them() -> None:
    async with world(Limits(), [True] * 5) as (instance, clients):
        shared = await bring_together(instance, clients)
        backlog = instance.host.backlog
        assert backlog.bytes == 0
        actor_of(instance, Room).tell("tick", 1)
        await settled()
        size = sum(map(len, shared._log))
        assert backlog.bytes == size + REFERENCE
        for client in clients[:4]:  # apart, each refers to it, and the audience no longer has to for them
            client.session.send_control(b"ping\n")
        assert backlog.bytes <= size + 5 * REFERENCE + 4 * (len(b"ping\n") + REFERENCE)
        await settled()
        for client in clients:
            client.acknowledge()
        assert backlog.bytes == 0


async def test_a_break_of_all_connections_ends_none_for_what_they_share() -> None:
    async with world(Limits(outbox_total_bytes=4000), [True] * 20) as (instance, clients):
        await bring_together(instance, clients)
        for n in range(5):
            actor_of(instance, Room).tell("tick", n)
            await settled()
        for client in clients:
            await client.session.leave(client.transport)
        assert all(client.session.outbox.detached for client in clients)
        held = sum(client.session.outbox.statistics().queued_bytes for client in clients)
        assert held > 4000
        assert instance.host.backlog.bytes < 2000
        assert not any(client.session.ended for client in clients)


async def test_who_holds_much_alone_ends_before_those_who_hold_more_together() -> None:
    async with bench(attrs.evolve(LIMITS, outbox_total_bytes=400, outbox_hard_bytes=10_000)) as on:
        shared = b"s" * 200
        several = [on.outbox(FakeTransport(room=0)) for _ in range(5)]
        for box in several:
            box.put(shared)
        alone = on.outbox(FakeTransport(room=0))
        alone.put(b"a" * 120)
        await settled()
        assert on.ended == []
        alone.put(b"b" * 60)
        await settled()
        assert on.ended == [alone]


async def test_who_does_not_acknowledge_ends_when_all_together_hold_too_much() -> None:
    limits = attrs.evolve(LIMITS, outbox_soft_messages=100, outbox_hard_messages=100, outbox_soft_bytes=10_000)
    async with bench(attrs.evolve(limits, outbox_hard_bytes=10_000, outbox_total_bytes=1000)) as on:
        silent, good = on.outbox(FakeTransport(), resumable=True), on.outbox(FakeTransport(), resumable=True)
        for n in range(1, 12):
            for box in (silent, good):
                box.put(b"x" * 90 + str(n).encode())
            await settled()
            if not good.closing:
                assert good.acknowledge(n)
        assert on.ended == [silent]
        assert on.backlog.bytes < 200


async def test_who_holds_nothing_stays_when_what_slow_ones_have_begun_is_over_the_limit() -> None:
    limits = attrs.evolve(LIMITS, outbox_soft_bytes=10_000, outbox_hard_bytes=10_000, outbox_total_bytes=1000)
    async with bench(limits) as on:
        idle = [on.outbox(FakeTransport(), resumable=True) for _ in range(3)]
        slow = [on.outbox(FakeTransport(room=1)) for _ in range(15)]
        for number, box in enumerate(slow):  # being sent, and so kept by those that end, until they are broken
            box.put(bytes([number]) * 100)
            await settled()
            assert on.backlog.bytes <= 1000
        assert not any(box in on.ended for box in idle)
        assert not any(box in on.ended for box in slow[-1:])
        assert on.backlog.closing.bytes > 700
        for box in slow:
            box.break_()
        assert (on.backlog.bytes, on.backlog.closing.bytes) == (0, 0)


async def test_what_closing_ones_keep_ends_nobody_and_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = attrs.evolve(LIMITS, outbox_soft_bytes=10_000, outbox_hard_bytes=10_000, outbox_total_bytes=1000)
    async with bench(limits) as on:
        transports = [FakeTransport(room=0) for _ in range(2)]
        for transport in transports:
            box = on.outbox(transport)
            box.put(bytes(450))
            await settled()
            box.close(b"close\n")
            await settled()
        looked = 0

        def look(box: Outbox) -> tuple[list[bytes], float]:
            nonlocal looked
            looked += 1
            return [], 0.0

        monkeypatch.setattr(Outbox, "held", look)
        fresh = on.outbox(FakeTransport(), resumable=True)
        for count in range(1, 4):
            fresh.put(b"x" * 80)
            await settled()
            assert on.backlog.bytes <= 1000
            assert fresh.acknowledge(count)
        assert on.ended == []
        assert looked == 0
        for transport in transports:
            transport.read()
        await settled()
        assert [transport.aborted for transport in transports].count(True) == 1
        assert [transport.finished for transport in transports if not transport.aborted] == [True]
        assert on.backlog.closing.bytes == 0


async def test_what_closing_ones_keep_is_bounded_too() -> None:
    limits = attrs.evolve(LIMITS, outbox_soft_bytes=10_000, outbox_hard_bytes=10_000, outbox_total_bytes=1000)
    async with bench(limits) as on:
        transports = [FakeTransport(room=0) for _ in range(20)]
        for number, transport in enumerate(transports):
            box = on.outbox(transport)
            box.put(bytes([number]) * (200 if number == 0 else 100))
            await settled()
            box.close(b"close\n")
            await settled()
            assert on.backlog.bytes <= 1000
        assert transports[0].aborted
        assert not all(transport.aborted for transport in transports)
        assert on.ended == []


async def test_one_found_broken_while_its_close_frame_is_queued_keeps_nothing() -> None:
    async with bench() as on:
        transport = FakeTransport()
        box = on.outbox(transport, resumable=True)
        for _ in range(4):
            box.put(b"x\n")
        transport.broken = True
        box.close(b"close\n")  # flushes, for the soft bound is reached
        await settled()
        assert box.closing
        assert (on.backlog.bytes, on.backlog.closing.bytes) == (0, 0)


async def test_what_everybody_in_an_audience_has_is_given_up_before_anybody_ends() -> None:
    async with world(Limits(outbox_total_bytes=1500), [True, True]) as (instance, clients):
        await bring_together(instance, clients)
        for n in range(100):
            actor_of(instance, Room).tell("tick", n)
            await settled()
            clients[n % 2].acknowledge()
            clients[1 - n % 2].acknowledge()
        assert not any(client.session.ended for client in clients)
        for n in range(100):  # and now one of them says nothing
            actor_of(instance, Room).tell("tick", n)
            await settled()
            if not clients[0].session.ended:
                clients[0].acknowledge()
        assert [client.session.ended for client in clients] == [False, True]


@pytest.mark.parametrize("seed", range(5))
async def test_of_each_key_one_waits_and_all_others_are_told_of(seed: int) -> None:
    """Whatever has been sent, and however many markers there are."""
    draw = random.Random(seed)
    limits = attrs.evolve(LIMITS, outbox_soft_messages=500, outbox_soft_bytes=100_000, outbox_hard_messages=1000)
    async with bench(attrs.evolve(limits, outbox_hard_bytes=100_000)) as on:
        transport = FakeTransport(room=3)
        box: Outbox = on.outbox(transport, resumable=seed % 2 == 0)
        put = ["kept:first"]
        box.put(b"kept:first\n")
        await settled()
        for n in range(400):
            event, key = draw.choice("ab"), draw.randrange(12)
            put.append(f"{event}{key}:{n}")
            box.put(Droppable(f"{put[-1]}\n".encode(), event, "latest", (key,)))
            if draw.random() < 0.3:
                await settled()
            if draw.random() < 0.1:
                transport.read(draw.randrange(30))
            if draw.random() < 0.05:
                box.put(f"kept:{n}\n".encode())
                put.append(f"kept:{n}")
            box.acknowledge(transport.received.count(b"\n"))
        waiting = box._queue[box._first_free :]
        keys = [(frame.event, frame.key) for frame in waiting if isinstance(frame, Droppable)]
        assert len(keys) == len(set(keys))
        transport.read()
        await settled()
        seen = [line for line in transport.lines if not line.startswith("dropped")]
        dropped = sum(int(line.split()[2]) for line in transport.lines if line.startswith("dropped"))
        assert dropped > 100
        assert len(seen) + dropped == len(put)
        assert seen == [line for line in put if line in set(seen)]
        assert [line for line in put if line.startswith("kept")] == [line for line in seen if line.startswith("kept")]
        last = {line.split(":")[0]: line for line in put}
        assert set(last.values()) <= set(seen)
        box.acknowledge(transport.received.count(b"\n"))
        assert on.backlog.bytes == 0
