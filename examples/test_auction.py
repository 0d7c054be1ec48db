"""How to test what survives: the auction of auction.py, with a server that is killed and a clock that jumps.

python -m pytest examples/test_auction.py
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

import trivet
from examples import auction
from examples.auction import MINUTE, Auction, Bid, Lot, registry
from trivet import ActorError, MemoryStore
from trivet.testing import World


@asynccontextmanager
async def auction_room(store: MemoryStore) -> AsyncGenerator[tuple[World, trivet.Handle[Auction]]]:
    async with World(registry, store=store, real=False) as world:
        client = await world.client()
        yield world, client.get_or_create(Auction, "vase", input=Lot("a vase", least=10, patience=MINUTE))


async def test_the_program(autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]) -> None:
    await auction.main()
    assert capsys.readouterr().out.splitlines() == [
        "  the auction wakes",
        "Bid(bidder='ann', amount=10)",
        "half an hour passes",
        "  the auction sleeps",
        "  the auction wakes",
        "bob may not bid 10: user.too_low: Bid 11 or more",
        "Bid(bidder='bob', amount=12)",
        "the server is killed, and started ten minutes later",
        "ann waits for the hammer",
        "  the auction wakes",
        "the best bid is Bid(bidder='bob', amount=12)",
        "sold: Bid(bidder='bob', amount=12)",
        "that was 50 minutes later",
        "  the auction sleeps",
        "done",
    ]


async def test_a_bid_that_was_answered_survives_a_crash_at_once_after_it(autojump_clock: MockClock) -> None:
    async with auction_room(MemoryStore(durable=True)) as (world, vase):
        await vase.call(Auction.bid, "ann", 10)
        await world.crash_server()
        await world.restart_server()
        async with vase.connect() as room:
            assert await room.call(Auction.best) == Bid("ann", 10)


async def test_the_hammer_falls_once_also_where_nobody_was_there_when_it_was_due(autojump_clock: MockClock) -> None:
    async with auction_room(MemoryStore(durable=True)) as (world, vase):
        await vase.call(Auction.bid, "ann", 10)
        await world.crash_server()
        await trio.sleep(10 * MINUTE)
        await world.restart_server()
        await trio.sleep(MINUTE)
        async with vase.connect() as room:
            with pytest.raises(ActorError, match="The auction is over"):
                await room.call(Auction.bid, "bob", 20)
            assert await room.call(Auction.best) == Bid("ann", 10)


async def test_every_bid_raises_the_hammer_again(autojump_clock: MockClock) -> None:
    async with auction_room(MemoryStore()) as (_, vase):
        async with vase.connect() as room, room.events(Auction.sold) as sold:
            for amount in (10, 11, 12):
                await trio.sleep(0.9 * MINUTE)
                await room.call(Auction.bid, "ann", amount)
            last = trio.current_time()
            assert await anext(sold) == Bid("ann", 12)
            assert trio.current_time() - last == pytest.approx(MINUTE, abs=1)


async def test_clients_cannot_let_the_hammer_fall(autojump_clock: MockClock) -> None:
    async with auction_room(MemoryStore()) as (_, vase):
        async with vase.connect() as room:
            for caller in (vase, room):
                with pytest.raises(ActorError, match="action_not_found"):
                    await caller.call(Auction.fall)
            assert await room.call(Auction.bid, "ann", 10) == Bid("ann", 10)
