"""An auction: bids survive a crash, the hammer falls on time, and nothing runs while nobody bids.

python examples/auction.py                    the auction of a vase, in virtual time: an hour and a half in a moment
trivet serve examples.auction:registry        the auction alone, its bids in trivet-data/
"""

import attrs
import trio
import trio.testing

import trivet
from trivet import Actor, Event, MemoryStore, Options, Registry, UserError, action
from trivet.testing import World

MINUTE = 60


@attrs.frozen
class Lot:  # what an auction is created with
    name: str
    least: int = 1
    patience: float = 60 * MINUTE
    """So many seconds after the last bid the hammer falls."""


@attrs.frozen
class Bid:
    bidder: str
    amount: int


@attrs.define
class AuctionState:
    lot: Lot
    best: Bid | None = None
    hammer: str | None = None
    """The id of the schedule; None once the hammer has fallen."""


class Auction(Actor[AuctionState]):
    options = Options(sleep_after=60)  # with nobody there and nothing to do

    bid_placed = Event(Bid)
    sold = Event[Bid | None]()

    def create_state(self, input: Lot) -> AuctionState:
        return AuctionState(input)

    def on_create(self, input: Lot) -> None:
        self.raise_hammer()

    def on_wake(self) -> None:
        print("  the auction wakes")

    def on_sleep(self) -> None:
        print("  the auction sleeps")

    @action
    def bid(self, bidder: str, amount: int) -> Bid:
        if self.state.hammer is None:
            raise UserError("The auction is over", code="over")
        best = self.state.best
        least = self.state.lot.least if best is None else best.amount + 1
        if amount < least:
            raise UserError(f"Bid {least} or more", code="too_low", metadata={"least": least})
        self.state.best = Bid(bidder, amount)
        self.raise_hammer()
        # The event and the result leave once the bid and the new time of the hammer are saved, in one commit.
        self.broadcast(self.bid_placed, self.state.best)
        return self.state.best

    @action(readonly=True)
    def best(self) -> Bid | None:
        return self.state.best

    @action(internal=True)
    def fall(self) -> None:
        """The hammer. Only time lets it fall: clients cannot call what is internal."""
        self.state.hammer = None
        self.broadcast(self.sold, self.state.best)

    def raise_hammer(self) -> None:
        if self.state.hammer is not None:
            self.schedule.cancel(self.state.hammer)
        self.state.hammer = self.schedule.after(self.state.lot.patience, Auction.fall)


registry = Registry(Auction)


async def visit(world: World, name: str) -> trivet.Handle[Auction]:
    """Somebody who looks in, without staying."""
    client = await world.client(name)
    return client.get_or_create(Auction, "vase", input=Lot("a vase", least=10))


async def main() -> None:
    # With `trivet.serve` and a store of `open_sqlite_store("directory")` it is the same in real time, and on a disk.
    async with World(registry, store=MemoryStore(durable=True), real=False) as world:
        ann = await visit(world, "ann")
        print(await ann.call(Auction.bid, "ann", 10))
        print("half an hour passes")
        await trio.sleep(30 * MINUTE)

        bob = await visit(world, "bob")
        try:
            await bob.call(Auction.bid, "bob", 10)
        except trivet.ActorError as error:
            print(f"bob may not bid 10: {error}")
        print(await bob.call(Auction.bid, "bob", 12))

        print("the server is killed, and started ten minutes later")
        await world.crash_server()
        await trio.sleep(10 * MINUTE)
        await world.restart_server()
        print("ann waits for the hammer")
        began = trio.current_time()
        async with ann.connect() as room, room.events(Auction.sold) as sold:
            print(f"the best bid is {await room.call(Auction.best)}")
            print(f"sold: {await anext(sold)}")
        print(f"that was {(trio.current_time() - began) / MINUTE:g} minutes later")
    print("done")


if __name__ == "__main__":
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
