"""What clients may have the server hold: all together, and those of one address, in requests or raw messages."""

import attrs
import h11
import pytest
import trio
import trio.testing
from wsproto.events import BytesMessage, CloseConnection

from tests.server.support import HttpPeer, WebSocketPeer, to
from tests.server.test_peers import NONE, Crowd, crowd
from trivet.limits import KIB
from trivet.server.budget import Budget, Share
from trivet.server.http import HttpError

FREE = 64 * KIB  # what a connection may hold of its own
ROOM = 400 * KIB
OTHER = "192.0.2.2"
LIMITS = attrs.evolve(NONE, http_bodies=ROOM)


def unfinished(size: int, declared: int = 1 << 20) -> bytes:
    """The beginning of a frame: so much of its payload, where it has declared more."""
    return b"\x82\xff" + declared.to_bytes(8) + bytes(4) + b"x" * size


async def settled() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def raw(world: Crowd, address: str) -> WebSocketPeer:
    return await WebSocketPeer(world.stream(address)).open(to("/websocket/x"), ["rivet"])


async def upload(world: Crowd, address: str, size: int) -> HttpPeer:
    peer = world.http(address)
    await peer.begin("POST", to("/request/body"), [("content-length", "1000000")])
    await peer.send(h11.Data(data=b"x" * size))
    await settled()
    return peer


# -- the sums ---------------------------------------------------------------------------------------------------------


def test_little_is_free_and_what_is_over_is_counted_once() -> None:
    budget = Budget(1000)
    with Share(budget, 100) as share:
        share.hold(100)
        budget.take(1000, None)
        budget.give_back(1000, None)
        share.hold(700)
        share.hold(600)
        share.hold(700)
        with pytest.raises(HttpError, match="The server"):
            budget.take(401, None)
        budget.take(400, None)
    budget.give_back(400, None)
    budget.take(1000, None)


def test_an_address_has_a_quarter_and_gives_it_back() -> None:
    budget = Budget(1000)
    with Share(budget, 0) as first, Share(budget, 0) as second, Share(budget, 0) as other:
        for share, owner in ((first, "a"), (second, "a"), (other, "b")):
            share.charge_to(owner)
        first.hold(200)
        with pytest.raises(HttpError, match="this address"):
            second.hold(51)
        second.hold(50)
        other.hold(250)
        first.hold(0)
        second.hold(250)
    assert not budget._taken
    budget.take(1000, None)


# -- of connections ---------------------------------------------------------------------------------------------------


async def test_raw_messages_that_are_not_finished_are_counted_together() -> None:
    async with crowd(LIMITS) as world:
        peers = [await raw(world, OTHER) for _ in range(2)]
        for peer in peers:
            await peer.stream.send_all(unfinished(FREE + 40 * KIB))
        await settled()
        await peers[0].stream.send_all(b"x" * 30 * KIB)
        assert await peers[0].next_event() == CloseConnection(1013, "guard.rate_limit")
        # What it held is free again, and its neighbour may go on.
        await peers[1].stream.send_all(b"x" * 50 * KIB)
        await settled()
        await peers[1].stream.send_all(b"x" * 20 * KIB)
        assert await peers[1].next_event() == CloseConnection(1013, "guard.rate_limit")


async def test_what_nobody_receives_counts_too() -> None:
    async with crowd(LIMITS) as world:
        idle = await WebSocketPeer(world.stream(OTHER)).open(to("/websocket/idle"), ["rivet"])
        for _ in range(2):
            await idle.send(BytesMessage(data=b"x" * 60 * KIB))
        await settled()
        await idle.send(BytesMessage(data=b"x" * 60 * KIB))
        assert await idle.next_event() == CloseConnection(1013, "guard.rate_limit")


async def test_what_was_received_is_free_again() -> None:
    async with crowd(LIMITS) as world:
        echo = await raw(world, OTHER)
        message = BytesMessage(data=b"x" * 150 * KIB)
        for _ in range(5):
            await echo.send(message)
            received = b""
            while len(received) < len(message.data):
                event = await echo.next_event()
                assert isinstance(event, BytesMessage)
                received += event.data
            assert received == message.data


async def test_one_address_takes_no_more_than_its_part() -> None:
    async with crowd(LIMITS) as world:
        first = await upload(world, OTHER, FREE + 90 * KIB)
        refused = await (await upload(world, OTHER, FREE + 20 * KIB)).reply()
        assert (refused.status, refused.headers["x-rivet-error"]) == (429, "guard.rate_limit")
        assert refused.headers["retry-after"] == "1"
        raw_peer = await raw(world, OTHER)
        await raw_peer.stream.send_all(unfinished(FREE + 20 * KIB))
        assert await raw_peer.next_event() == CloseConnection(1013, "guard.rate_limit")
        others = [await upload(world, f"192.0.2.{number}", FREE + 90 * KIB) for number in (3, 4, 5)]
        beyond = await (await upload(world, "192.0.2.6", FREE + 90 * KIB)).reply()
        assert (beyond.status, beyond.headers["x-rivet-error"]) == (503, "guard.service_unavailable")
        for peer in (first, *others):
            await peer.stream.aclose()


async def test_everything_is_given_back_at_the_end() -> None:
    async with crowd(LIMITS) as world:
        peer = await raw(world, OTHER)
        await peer.stream.send_all(unfinished(FREE + 50 * KIB))
        uploading = await upload(world, OTHER, FREE + 40 * KIB)
        assert world.gateway._budget._taken == {OTHER: 90 * KIB}
        await peer.stream.aclose()
        await uploading.stream.aclose()
        await settled()
        assert world.gateway._budget._taken == {}
        world.gateway._budget.take(ROOM, None)


async def test_a_refused_raw_socket_is_not_gathered_for() -> None:
    """An actor that takes none, or whose hooks refuse: nothing is kept of what comes until it is closed."""
    async with crowd(LIMITS) as world:
        peer = await WebSocketPeer(world.stream(OTHER)).open(to("/websocket/", "bare"), ["rivet"])
        assert await peer.next_event() == CloseConnection(1011, "actor.no_websocket_handler")
        await peer.stream.send_all(unfinished(FREE + 90 * KIB))
        await settled()
        assert world.gateway._budget._taken == {}
        await peer.stream.aclose()
