"""Clients behind proxies: whose address is believed, and what goes by it."""

import ipaddress
import json
import logging
import math
import socket
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.server.support import REGISTRY, HttpPeer, Reply, WebSocketPeer, read_to_end, to
from trivet.limits import Limits
from trivet.runtime.host import open_host
from trivet.server import Server, proxies, serve
from trivet.server.connection import serve_wire
from trivet.server.gateway import Gateway
from trivet.server.origins import Origins
from trivet.server.peers import BURST
from trivet.server.proxies import TrustedProxies
from trivet.server.wire import Wire

PROXY = "127.0.0.1"
REMOTE_PROXY = "10.0.0.1"
CLIENT, ANOTHER = "203.0.113.5", "203.0.113.6"
NONE = Limits(peer_connections=math.inf, peer_connection_rate=math.inf, peer_message_rate=math.inf)


@attrs.frozen
class Site:
    """A server that believes some proxies, and connections to it from any address."""

    gateway: Gateway
    nursery: trio.Nursery

    def stream(self, address: str | None = PROXY) -> trio.abc.Stream:
        ours, theirs = trio.testing.memory_stream_pair()
        self.nursery.start_soon(serve_wire, self.gateway, Wire(theirs, peer=address))
        return ours

    def http(self, address: str | None = PROXY) -> HttpPeer:
        return HttpPeer(self.stream(address))

    async def websocket(self, client: str, rest: str = "/websocket/echo") -> WebSocketPeer:
        """What the proxy opens for a client."""
        return await WebSocketPeer(self.stream()).open(to(rest), headers=[(b"x-forwarded-for", client.encode())])


@asynccontextmanager
async def open_site(
    limits: Limits = NONE, trusted: Sequence[str] = (PROXY, REMOTE_PROXY)
) -> AsyncGenerator[Site, None]:
    async with open_host(REGISTRY, limits) as host, trio.open_nursery() as nursery:
        yield Site(Gateway(host, Origins(), proxies=TrustedProxies(trusted)), nursery)
        nursery.cancel_scope.cancel()


async def health(peer: HttpPeer, client: str) -> int:
    """The status of a request that the proxy makes for a client."""
    return (await peer.request("GET", "/health", headers=[("x-forwarded-for", client)])).status


async def whoami(peer: HttpPeer, *forwarded: str, scheme: Sequence[str] = ()) -> str:
    """The URL and the address that an actor sees of a request with these X-Forwarded-For and -Proto."""
    headers = [("x-forwarded-for", value) for value in forwarded] + [("x-forwarded-proto", value) for value in scheme]
    reply = await peer.request("POST", to("/action/whoami"), b"{}", headers)
    return str(json.loads(reply.body)["output"])


async def address(peer: HttpPeer, *forwarded: str) -> str:
    return (await whoami(peer, *forwarded)).rpartition(" ")[2]


# -- whom to believe --------------------------------------------------------------------------------------------------

TRUSTED = ("127.0.0.1", "10.0.0.0/8", "2001:db8:ffff::/48", "::1")


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        # what the proxy wrote is believed, and what its client wrote is not
        ("10.0.0.1", CLIENT, CLIENT),
        ("10.0.0.1", f"198.51.100.9, {CLIENT}", CLIENT),
        ("10.0.0.1", f"127.0.0.1, 10.0.0.2, {CLIENT}", CLIENT),
        # proxies in front of proxies
        ("10.0.0.1", f"198.51.100.9, {CLIENT}, 10.0.0.3, 10.0.0.2", CLIENT),
        ("10.0.0.1", f"{CLIENT},2001:db8:ffff::1\t,  10.0.0.2 ", CLIENT),
        ("127.0.0.1", f"{CLIENT}, 10.0.0.2", CLIENT),
        ("127.0.0.1", f"{CLIENT}, 127.0.0.1", CLIENT),
        ("::1", CLIENT, CLIENT),
        # a proxy's own requests, and those of clients that are trusted as proxies are
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "10.0.0.7", "10.0.0.7"),
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        # ports, brackets, and one address in two spellings
        ("10.0.0.1", f"{CLIENT}:4711", CLIENT),
        ("10.0.0.1", "2001:DB8:0::5", "2001:db8::5"),
        ("10.0.0.1", "[2001:db8::5]", "2001:db8::5"),
        # a zone is the proxy's own name for a network
        ("127.0.0.1", "fe80::1%eth0", "fe80::1"),
        ("10.0.0.1", f"{CLIENT}, [2001:db8:ffff::1%eth0]:4711", CLIENT),
        ("10.0.0.1", f"{CLIENT}, [2001:db8:ffff::1]:4711, 10.0.0.2:80", CLIENT),
        ("10.0.0.1", f"::ffff:{CLIENT}", CLIENT),
        ("10.0.0.1", f"{CLIENT}, ::ffff:10.0.0.2", CLIENT),
        ("::ffff:10.0.0.1", CLIENT, CLIENT),
        ("::ffff:10.0.0.1", "junk", "::ffff:10.0.0.1"),
        # an entry that cannot be read hides what stands left of it
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", f"{CLIENT}, unknown", "10.0.0.1"),
        ("10.0.0.1", f"{CLIENT}, _hidden, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", f"{CLIENT}, ", "10.0.0.1"),
        ("10.0.0.1", f"{CLIENT} 10.0.0.2", "10.0.0.1"),
        ("10.0.0.1", f"for={CLIENT}", "10.0.0.1"),
        ("10.0.0.1", "fe80::1%eth 0", "10.0.0.1"),
        ("10.0.0.1", "fe80::1%", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.256", "10.0.0.1"),
        ("10.0.0.1", f"{CLIENT}:", "10.0.0.1"),
        ("10.0.0.1", "2001:db8::5]:80", "10.0.0.1"),
        ("10.0.0.1", "２.2.2.2", "10.0.0.1"),
        ("10.0.0.1", "1" * 100_000, "10.0.0.1"),
        # another machine's loopback address is that machine
        ("10.0.0.1", "127.0.0.1", "10.0.0.1"),
        ("10.0.0.1", "::ffff:127.0.0.2", "10.0.0.1"),
        ("10.0.0.1", f"{CLIENT}, 127.0.0.1", CLIENT),
        ("10.0.0.1", f"{CLIENT}, 127.0.0.2", "10.0.0.1"),
        ("127.0.0.1", "127.0.0.1, 10.0.0.2", "10.0.0.2"),
    ],
)
def test_the_client_is_the_rightmost_that_is_no_proxy(peer: str, forwarded: str | None, client: str) -> None:
    trusted = TrustedProxies(TRUSTED)
    assert trusted.trusts(peer)
    assert trusted.client(peer, forwarded) == client


@pytest.mark.parametrize(
    ("entries", "address", "trusted"),
    [
        ([], "127.0.0.1", False),
        ([], None, False),
        (["10.0.0.1"], "10.0.0.1", True),
        (["10.0.0.1"], "10.0.0.2", False),
        (["10.0.0.0/8"], "10.255.0.1", True),
        (["10.0.0.0/255.0.0.0"], "11.0.0.1", False),
        (["10.0.0.1"], "::ffff:10.0.0.1", True),
        (["::ffff:10.0.0.0/104"], "10.2.3.4", True),
        (["::ffff:10.0.0.0/104"], "11.2.3.4", False),
        (["::/0"], "10.0.0.1", False),
        (["0.0.0.0/0"], "::1", False),
        (["::a00:1"], "10.0.0.1", False),
        (["fe80::/10"], "fe80::1%eth0", True),
        (["10.0.0.1"], "a name", False),
        (["10.0.0.1"], None, False),
        (["unix"], None, True),
        (["unix"], "10.0.0.1", False),
        (["unix", "10.0.0.1"], "10.0.0.1", True),
    ],
)
def test_which_peers_are_trusted(entries: list[str], address: str | None, trusted: bool) -> None:
    assert TrustedProxies(entries).trusts(address) is trusted


@pytest.mark.parametrize(
    ("entry", "advice"),
    [
        ("proxy.example.com", "write it as in 192.0.2.1"),
        ("10.0.0.1:80", "write it as in 192.0.2.1"),
        ("10.0.0.0/33", "write it as in 192.0.2.1"),
        ("*", "write it as in 192.0.2.1"),
        ("", "write it as in 192.0.2.1"),
        ("10.0.0.1/8", r"did you mean 10\.0\.0\.0/8\?"),
    ],
)
async def test_what_is_no_proxy_is_a_plain_valueerror(entry: str, advice: str) -> None:
    with pytest.raises(ValueError, match=f"^'{entry.replace('*', '[*]')}' is no address and no network .*{advice}"):
        await serve(REGISTRY, port=0, trusted_proxies=[PROXY, entry])


def test_a_header_of_any_length_costs_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def count(entry: str) -> object:
        read.append(entry)
        return ipaddress.ip_address(entry)

    trusted = TrustedProxies(TRUSTED)
    monkeypatch.setattr(proxies, "read_address", count)
    assert trusted.client("10.0.0.1", ", ".join([CLIENT] + ["10.0.0.2"] * 100_000)) == "10.0.0.2"
    assert len(read) <= 20
    assert trusted.client("10.0.0.1", "1" * 100_000) == "10.0.0.1"
    assert max(map(len, read)) <= 53


def spell(spelling: str, address: str) -> str:
    return spelling.format(address)


addresses: st.SearchStrategy[str] = st.ip_addresses().map(str)
spellings = st.sampled_from(["{}", " {}", "{}:80", "[{}]", "[{}]:443", "::ffff:{}"])
entries: st.SearchStrategy[str] = st.one_of(
    st.builds(spell, spellings, addresses),
    st.sampled_from(["10.0.0.2", "127.0.0.1", "::1", "[2001:db8:ffff::2]:1", "unknown", "", "[", "::ffff:10.0.0.9"]),
    st.text(max_size=60),
)
headers = st.lists(entries, max_size=30).map(",".join)
strangers = addresses.filter(lambda address: not TrustedProxies(TRUSTED).trusts(address))
chains = st.lists(st.sampled_from(["10.0.0.2", "10.9.9.9:80", "2001:db8:ffff::2", "127.0.0.1", "::1"]), max_size=30)


@given(peer=st.sampled_from(["10.0.0.1", "127.0.0.1", "::1", None]), forwarded=headers)
@settings(deadline=None)
def test_no_header_raises_and_every_address_is_one(peer: str | None, forwarded: str) -> None:
    client = TrustedProxies([*TRUSTED, "unix"]).client(peer, forwarded)
    if client is None:
        assert peer is None
    else:
        ipaddress.ip_address(client)


@given(written=headers, client=strangers, chain=chains)
@example(written="127.0.0.1", client=CLIENT, chain=["10.0.0.2"] * 15)
@example(written="127.0.0.1", client=CLIENT, chain=["10.0.0.2"] * 16)
@settings(deadline=None)
def test_what_a_client_writes_changes_nothing(written: str, client: str, chain: list[str]) -> None:
    trusted = TrustedProxies(TRUSTED)
    honest = ", ".join([client, *chain])
    assert trusted.client("10.0.0.1", f"{written}, {honest}") == trusted.client("10.0.0.1", honest)


# -- what actors see --------------------------------------------------------------------------------------------------


async def start(nursery: trio.Nursery, *trusted: str) -> Server:
    server: Server = await nursery.start(partial(serve, REGISTRY, port=0, trusted_proxies=trusted))
    return server


@pytest.mark.parametrize("trusted", [[], ["192.0.2.1"], ["unix"]])
async def test_by_default_and_from_others_the_header_is_not_believed(nursery: trio.Nursery, trusted: list[str]) -> None:
    server = await start(nursery, *trusted)
    async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        seen = await whoami(HttpPeer(stream), CLIENT, scheme=["https"])
    assert seen.startswith("POST http://")
    assert seen.endswith(" 127.0.0.1")


async def test_actors_see_for_whom_a_trusted_proxy_asks(nursery: trio.Nursery) -> None:
    server = await start(nursery, "127.0.0.0/8", REMOTE_PROXY)
    async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        peer = HttpPeer(stream)
        assert await address(peer, CLIENT) == CLIENT
        assert await address(peer, f"198.51.100.1, {ANOTHER}") == ANOTHER
        assert await address(peer, "198.51.100.1", ANOTHER, REMOTE_PROXY) == ANOTHER  # several fields are one
        assert await address(peer, f"{ANOTHER}, what is this") == "127.0.0.1"
        assert await address(peer) == "127.0.0.1"
    async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        room = await WebSocketPeer(stream).open(to("/connect"), headers=[(b"x-forwarded-for", CLIENT.encode())])
        assert '"Init"' in await room.next_text()
        await room.send_text('{"body":{"tag":"ActionRequest","val":{"id":1,"name":"whoami","args":[]}}}')
        assert f" {CLIENT}" in await room.next_text()


async def test_a_proxy_on_a_unix_socket(nursery: trio.Nursery, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    unix = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    await unix.bind(path)
    unix.listen()
    await nursery.start(partial(serve, REGISTRY, listeners=[trio.SocketListener(unix)], trusted_proxies=["unix"]))
    async with await trio.open_unix_socket(path) as stream:
        peer = HttpPeer(stream)
        assert await address(peer, CLIENT) == CLIENT
        assert await address(peer) == "None"


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        (["https"], "https"),
        (["http , HTTPS"], "https"),
        (["wss"], "https"),
        (["http"], "http"),
        (["https, http"], "http"),  # the last is the proxy's
        (["http", "https"], "https"),
        (["gopher"], "http"),
        ([""], "http"),
        ([], "http"),
    ],
)
async def test_the_scheme_is_the_one_that_the_client_used(said: list[str], seen: str) -> None:
    async with open_site() as site:
        assert (await whoami(site.http(), CLIENT, scheme=said)).startswith(f"POST {seen}://localhost:6420/")


async def test_the_log_names_the_client(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "trivet")
    async with open_site() as site:
        peer = await site.websocket(CLIENT, "/connect")
        await peer.next_text()
        raw = await site.websocket(ANOTHER, "/websocket/url")
        await raw.next_text()
    assert f"events connection from {CLIENT}" in caplog.text
    assert f"raw connection from {ANOTHER}" in caplog.text
    assert PROXY not in caplog.text


# -- what clients may have --------------------------------------------------------------------------------------------


async def test_the_clients_of_one_connection_are_counted_apart(autojump_clock: trio.testing.MockClock) -> None:
    async with open_site(attrs.evolve(NONE, peer_message_rate=1)) as site:
        peer = site.http()
        for _ in range(int(BURST)):
            assert await health(peer, f"{ANOTHER}, {CLIENT}") == 200
        for spoofed in ("", f"{ANOTHER}, ", "127.0.0.1, "):
            assert await health(peer, spoofed + CLIENT) == 429
        assert await health(peer, ANOTHER) == 200  # the connection is still there, and others are not concerned
        assert await health(site.http(), CLIENT) == 429  # nor is it the connection that was refused
        await trio.sleep(1)
        assert await health(peer, CLIENT) == 200


async def test_an_untrusted_peer_is_counted_itself(autojump_clock: trio.testing.MockClock) -> None:
    async with open_site(attrs.evolve(NONE, peer_message_rate=1)) as site:
        peer = site.http("198.51.100.9")
        for number in range(int(BURST)):
            assert await health(peer, f"203.0.113.{number}") == 200
        assert await health(peer, CLIENT) == 429


async def test_websockets_of_a_client_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async with open_site(attrs.evolve(NONE, peer_connections=2)) as site:
        kept = [await site.websocket(CLIENT), await site.websocket(CLIENT, "/connect")]
        refused = await site.websocket(CLIENT)
        code, reason = await refused.next_close()
        assert (code, reason.partition("#")[0]) == (1013, "guard.rate_limit")
        peer = site.http()
        assert await health(peer, CLIENT) == 429
        assert await health(peer, ANOTHER) == 200
        await site.websocket(ANOTHER)
        await kept[0].stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert await health(peer, CLIENT) == 200


async def test_a_request_is_a_connection_until_it_is_answered(autojump_clock: trio.testing.MockClock) -> None:
    async with open_site(attrs.evolve(NONE, peer_connections=1)) as site:
        slow, peer = site.http(), site.http()
        forwarded = [("x-forwarded-for", CLIENT), ("content-length", "2")]
        await slow.begin("POST", to("/action/say"), forwarded)
        await trio.testing.wait_all_tasks_blocked()
        assert await health(peer, CLIENT) == 429
        assert await health(peer, ANOTHER) == 200
        await slow.stream.send_all(b"{}")
        await slow.reply()
        await trio.testing.wait_all_tasks_blocked()
        # What the proxy keeps open for whoever comes next is nobody's.
        assert await health(peer, CLIENT) == 200
        assert site.gateway.statistics().connections == 2


async def test_only_websockets_are_new_connections(autojump_clock: trio.testing.MockClock) -> None:
    async with open_site(attrs.evolve(NONE, peer_connection_rate=1)) as site:
        peer = site.http()
        for _ in range(3 * int(BURST)):
            assert await health(peer, CLIENT) == 200
        for _ in range(int(BURST)):
            await (await site.websocket(CLIENT, "/websocket/url")).next_text()
        assert (await (await site.websocket(CLIENT)).next_close())[0] == 1013
        await (await site.websocket(ANOTHER, "/websocket/url")).next_text()
        assert await health(peer, CLIENT) == 200


async def test_messages_of_all_websockets_of_a_client_count_together(autojump_clock: trio.testing.MockClock) -> None:
    async with open_site(attrs.evolve(NONE, peer_message_rate=1)) as site:
        first, second, other = [await site.websocket(client) for client in (CLIENT, CLIENT, ANOTHER)]
        for _ in range(int(BURST) // 2 - 1):
            for peer in (first, second):
                await peer.send_text("x")
                assert await peer.next_text() == "x"
        await second.send_text("x")
        assert await second.next_close() == (1013, "guard.rate_limit")
        await other.send_text("x")
        assert await other.next_text() == "x"


async def test_a_proxy_is_never_hung_up_on(autojump_clock: trio.testing.MockClock) -> None:
    """It would take the server for broken, and everybody behind it would pay."""
    async with open_site(attrs.evolve(NONE, peer_connections=0)) as site:
        upgrade = (
            f"GET {to('/connect')} HTTP/1.1\r\nhost: localhost\r\nx-forwarded-for: {CLIENT}\r\n"
            "connection: upgrade\r\nupgrade: websocket\r\n"
            "sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        answers: list[bytes] = []
        for _ in range(60):
            stream = site.stream()
            await stream.send_all(upgrade.encode())
            answers.append(bytes(await stream.receive_some()).partition(b"\r\n")[0])
        assert set(answers) == {b"HTTP/1.1 101 Switching Protocols", b"HTTP/1.1 429 Too Many Requests"}
        assert {await health(site.http(), CLIENT) for _ in range(60)} == {429}


@pytest.mark.parametrize("trickles", [False, True])
async def test_who_is_refused_cannot_hold_the_proxys_connection(
    autojump_clock: trio.testing.MockClock, trickles: bool
) -> None:
    async with open_site(attrs.evolve(NONE, peer_connections=0)) as site:
        peer = site.http()
        head = f"POST {to('/action/say')} HTTP/1.1\r\nhost: localhost\r\nx-forwarded-for: {CLIENT}\r\n"
        body = "{" if trickles else "{}"
        await peer.stream.send_all(f"{head}content-length: 2\r\n\r\n{body}".encode())
        answer = bytes(await peer.stream.receive_some())
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert (b"connection: close" in answer) is trickles
        if trickles:
            assert await read_to_end(peer.stream) == b""
            await trio.sleep(5)
            assert site.gateway.statistics().connections == 0
        else:
            assert await health(peer, PROXY) == 200


@pytest.mark.parametrize(
    ("peer", "forwarded", "limited"),
    [
        (PROXY, CLIENT, True),
        (PROXY, None, False),
        (PROXY, "127.0.0.1", False),
        (PROXY, "127.8.9.1", False),
        (PROXY, "junk", False),
        (REMOTE_PROXY, CLIENT, True),
        (REMOTE_PROXY, None, True),
        (REMOTE_PROXY, "127.0.0.1", True),
        (None, CLIENT, True),
        (None, None, False),
    ],
)
async def test_programs_of_this_machine_are_told_by_the_clients_address(
    autojump_clock: trio.testing.MockClock, peer: str | None, forwarded: str | None, limited: bool
) -> None:
    async with open_site(attrs.evolve(NONE, peer_message_rate=1), [PROXY, REMOTE_PROXY, "unix"]) as site:
        connection = site.http(peer)
        headers = [("x-forwarded-for", forwarded)] if forwarded is not None else []
        replies: list[Reply] = [await connection.request("GET", "/health", headers=headers) for _ in range(11)]
        assert [reply.status for reply in replies] == [200] * 10 + [429 if limited else 200]


async def test_nothing_is_left_of_clients_that_are_gone(autojump_clock: trio.testing.MockClock) -> None:
    async with open_site(Limits()) as site:
        peer = site.http()
        for number in range(256):
            assert await health(peer, f"203.0.113.{number}") == 200
        await site.websocket(CLIENT)
        bad = site.http()
        assert (
            await bad.request(
                "GET", "/", headers=[("x-forwarded-for", CLIENT), ("upgrade", "websocket"), ("connection", "upgrade")]
            )
        ).status == 426
    await trio.sleep(BURST)
    visit = site.gateway.peers.enter(CLIENT)
    assert visit is not None
    visit.leave()
    assert len(site.gateway.peers) == 1
