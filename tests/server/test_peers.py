"""What one address may have, in virtual time."""

import ipaddress
import json
import math
from collections.abc import AsyncGenerator, Generator
from contextlib import ExitStack, asynccontextmanager, contextmanager

import attrs
import pytest
import trio
import trio.testing
from wsproto.events import Ping

from tests.server.support import REGISTRY, HttpPeer, WebSocketPeer, read_to_end, to
from trivet.limits import Limits
from trivet.runtime.host import open_host
from trivet.server.connection import serve_wire
from trivet.server.gateway import Gateway
from trivet.server.origins import Origins
from trivet.server.peers import BURST, REMEMBERED, Peers, Visit
from trivet.server.wire import Wire

ADDRESS = "192.0.2.1"
NONE = Limits(peer_connections=math.inf, peer_connection_rate=math.inf, peer_message_rate=math.inf)


@attrs.frozen
class Crowd:
    """A server, and connections to it from any address."""

    gateway: Gateway
    nursery: trio.Nursery

    def stream(self, address: str | None = ADDRESS) -> trio.abc.Stream:
        ours, theirs = trio.testing.memory_stream_pair()
        self.nursery.start_soon(serve_wire, self.gateway, Wire(theirs, peer=address))
        return ours

    def http(self, address: str | None = ADDRESS) -> HttpPeer:
        return HttpPeer(self.stream(address))

    async def websocket(self, rest: str = "/connect", address: str | None = ADDRESS) -> WebSocketPeer:
        return await WebSocketPeer(self.stream(address)).open(to(rest))


@asynccontextmanager
async def crowd(limits: Limits) -> AsyncGenerator[Crowd, None]:
    async with open_host(REGISTRY, limits) as host, trio.open_nursery() as nursery:
        yield Crowd(Gateway(host, Origins()), nursery)
        nursery.cancel_scope.cancel()


@contextmanager
def connection(peers: Peers, address: str) -> Generator[Visit, None, None]:
    """One connection of an address that is limited."""
    visit = peers.enter(address)
    assert visit is not None
    try:
        yield visit
    finally:
        visit.leave()


async def health(peer: HttpPeer) -> int:
    return (await peer.request("GET", "/health")).status


# -- connections ------------------------------------------------------------------------------------------------------


async def test_connections_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async with crowd(attrs.evolve(NONE, peer_connections=2)) as world:
        first = world.http()
        assert await health(first) == 200
        second = await world.websocket()
        assert "Init" in await second.next_text()

        reply = await world.http().request("GET", "/health")
        assert (reply.status, json.loads(reply.body)["code"]) == (429, "rate_limit")
        assert (reply.headers["retry-after"], reply.headers["connection"]) == ("1", "close")
        refused = await world.websocket()
        code, reason = await refused.next_close()
        assert (code, reason.partition("#")[0]) == (1013, "guard.rate_limit")

        assert await health(world.http("192.0.2.2")) == 200  # others are not concerned
        assert await health(first) == 200  # nor are those that were there before
        await first.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert await health(world.http()) == 200


async def test_new_connections_in_a_second(autojump_clock: trio.testing.MockClock) -> None:
    async with crowd(attrs.evolve(NONE, peer_connection_rate=1)) as world:
        for _ in range(int(BURST)):
            assert await health(world.http()) == 200
        assert await health(world.http()) == 429
        assert await health(world.http("192.0.2.2")) == 200
        await trio.sleep(1)
        assert await health(world.http()) == 200
        assert await health(world.http()) == 429
        await trio.sleep(BURST)
        for _ in range(int(BURST)):
            assert await health(world.http()) == 200


async def test_who_does_not_listen_is_not_told_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    async with crowd(attrs.evolve(NONE, peer_connections=0)) as world:
        answers = [await world.http().request("GET", "/health") for _ in range(50)]
        assert {answer.status for answer in answers} == {429}
        assert await read_to_end(world.stream()) == b""
        await trio.sleep(5)  # which is longer than it takes to see that they do not listen
        assert world.gateway.statistics().connections == 0


# -- messages ---------------------------------------------------------------------------------------------------------


async def test_requests_of_all_connections_of_an_address_count_together(autojump_clock: trio.testing.MockClock) -> None:
    async with crowd(attrs.evolve(NONE, peer_message_rate=1)) as world:
        first, second = world.http(), world.http()
        for _ in range(int(BURST) // 2):
            assert await health(first) == 200
            assert await health(second) == 200
        reply = await first.request("POST", to("/action/say"), b'{"args":["hi"]}')
        assert (reply.status, json.loads(reply.body)["group"]) == (429, "guard")
        assert list(world.gateway.host.instances()) == []
        await trio.sleep(1)
        assert await health(second) == 200


@pytest.mark.parametrize("rest", ["/connect", "/websocket/echo"])
async def test_messages_over_the_rate_close_1013(autojump_clock: trio.testing.MockClock, rest: str) -> None:
    async with crowd(attrs.evolve(NONE, peer_message_rate=1)) as world:
        peer = await world.websocket(rest)  # which is a request
        other = await world.websocket(rest, "192.0.2.2")
        for _ in range(int(BURST) - 1):
            await peer.send(Ping(payload=b"x"))
        await peer.send_text('{"body":{"tag":"SubscriptionRequest","val":{"eventName":"said","subscribe":true}}}')
        assert await peer.next_close() == (1013, "guard.rate_limit")
        await trio.testing.wait_all_tasks_blocked()
        assert world.gateway.statistics().websockets == 1
        await other.send(Ping(payload=b"x"))
        assert "Pong" in repr([await other.next_event() for _ in range(2 if rest == "/connect" else 1)])


async def test_who_keeps_to_the_rate_is_never_refused(autojump_clock: trio.testing.MockClock) -> None:
    async with crowd(attrs.evolve(NONE, peer_message_rate=20)) as world:
        peer = await world.websocket("/websocket/echo")
        for number in range(600):
            await peer.send_text(str(number))
            assert await peer.next_text() == str(number)
            await trio.sleep(0.05)


# -- whom it concerns -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", [None, "127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
async def test_programs_of_this_machine_are_not_limited(address: str | None) -> None:
    limits = attrs.evolve(NONE, peer_connections=1, peer_connection_rate=0, peer_message_rate=0)
    async with crowd(limits) as world:
        peers = [world.http(address) for _ in range(30)]
        assert [await health(peer) for peer in peers] == [200] * 30
        assert len(world.gateway.peers) == 0


@pytest.mark.parametrize(
    ("one", "another", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
    ],
)
async def test_which_addresses_are_one_peer(one: str, another: str, same: bool) -> None:
    peers = Peers(attrs.evolve(NONE, peer_connections=1))
    with connection(peers, one), connection(peers, another):
        assert len(peers) == (1 if same else 2)


async def test_a_reached_limit_is_logged_but_not_each_time(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    peers = Peers(attrs.evolve(NONE, peer_connections=0))
    for _ in range(100):
        with connection(peers, ADDRESS):
            await trio.sleep(0.11)
    assert [record.getMessage()[:48] for record in caplog.records] == [
        "an address has reached Limits.peer_connections ="
    ] * 2


# -- memory -----------------------------------------------------------------------------------------------------------


async def test_addresses_are_forgotten(autojump_clock: trio.testing.MockClock) -> None:
    peers = Peers(Limits())
    base = int(ipaddress.ip_address("198.18.0.0"))
    for number in range(3 * REMEMBERED):
        with connection(peers, str(ipaddress.ip_address(base + number))) as visit:
            visit.check()
    assert len(peers) <= REMEMBERED
    await trio.sleep(BURST)
    with connection(peers, ADDRESS):
        pass
    assert len(peers) == 1


async def test_an_address_that_is_connected_is_not_forgotten() -> None:
    peers = Peers(attrs.evolve(NONE, peer_connections=1))
    base = int(ipaddress.ip_address("198.18.0.0"))
    with ExitStack() as stack:
        stack.enter_context(connection(peers, ADDRESS))
        for number in range(2 * REMEMBERED):
            with connection(peers, str(ipaddress.ip_address(base + number))):
                pass
        visit = stack.enter_context(connection(peers, ADDRESS))
        with pytest.raises(Exception, match=r"guard\.rate_limit"):
            visit.check()


async def test_coming_again_does_not_fill_a_bucket(autojump_clock: trio.testing.MockClock) -> None:
    peers = Peers(attrs.evolve(NONE, peer_message_rate=1))
    taken = 0
    for _ in range(100):
        with connection(peers, ADDRESS) as visit:
            taken += visit.take()
    assert taken == BURST
