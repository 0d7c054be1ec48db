"""Servers on real sockets: how they start, serve and stop."""

import errno
import json
import os
import socket
import ssl
from collections.abc import AsyncGenerator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import h11
import pytest
import trio
import trio.testing
from trio_websocket import open_websocket_url
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from wsproto.events import CloseConnection

from tests.conftest import Certificate
from tests.server.support import REGISTRY, HttpPeer, WebSocketPeer, to
from trivet.actor import Actor, action
from trivet.limits import Limits
from trivet.registry import Registry
from trivet.server import Server, serve, serve_stream
from trivet.server.descriptors import raise_descriptor_limit

CALL = '{"body":{"tag":"ActionRequest","val":{"id":%d,"name":"%s","args":[%s]}}}'


async def start(nursery: trio.Nursery, registry: Registry = REGISTRY, **options: Any) -> Server:
    server: Server = await nursery.start(partial(serve, registry, port=0, **options))
    return server


class Dialer:
    """Opens connections, which are closed after the test."""

    def __init__(self) -> None:
        self.streams: list[trio.SocketStream] = []

    async def tcp(self, server: Server) -> trio.SocketStream:
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        self.streams.append(stream)
        return stream

    async def http(self, server: Server) -> HttpPeer:
        return HttpPeer(await self.tcp(server))


@pytest.fixture
async def dial() -> AsyncGenerator[Dialer, None]:
    dialer = Dialer()
    yield dialer
    for stream in dialer.streams:
        stream.socket.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what another task, or the network, brings about."""
    for _ in range(1000):
        if condition():
            return
        await trio.sleep(0.01)
    raise AssertionError("it did not happen")


# -- starting ---------------------------------------------------------------------------------------------------------


async def test_a_server_says_where_it_listens(nursery: trio.Nursery, dial: Dialer) -> None:
    server = await start(nursery)
    assert server.port > 0
    assert server.urls == (f"http://127.0.0.1:{server.port}",)
    assert server.url == server.urls[0]
    assert server.addresses == (("127.0.0.1", server.port),)
    peer = await dial.http(server)
    assert (await peer.request("POST", to("/action/say"), b'{"args":["hi"]}')).body == b'{"output":"hi"}'
    statistics = server.statistics()
    assert (statistics.gateway.connections, statistics.gateway.requests, statistics.host.actors) == (1, 1, 1)


async def test_the_peers_address_is_known_to_actors(nursery: trio.Nursery, dial: Dialer) -> None:
    peer = await dial.http(await start(nursery))
    reply = await peer.request("POST", to("/action/whoami"), b"{}")
    assert json.loads(reply.body)["output"].endswith(" 127.0.0.1")


async def test_a_port_in_use_is_a_plain_oserror(nursery: trio.Nursery) -> None:
    server = await start(nursery)
    with pytest.raises(OSError) as caught:
        await serve(REGISTRY, port=server.port)
    assert caught.value.errno == errno.EADDRINUSE


async def test_what_is_no_origin_is_a_plain_valueerror() -> None:
    with pytest.raises(ValueError, match="is no origin"):
        await serve(REGISTRY, port=0, allowed_origins=["example.com"])


async def test_it_can_listen_on_given_listeners(nursery: trio.Nursery, tmp_path: Path) -> None:
    unix = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    await unix.bind(str(tmp_path / "socket"))
    unix.listen()
    server = await start(nursery, listeners=[trio.SocketListener(unix)])
    assert server.urls == ()
    for attribute in ("url", "port"):
        with pytest.raises(RuntimeError, match="TCP"):
            getattr(server, attribute)
    stream = await trio.open_unix_socket(str(tmp_path / "socket"))
    peer = HttpPeer(stream)
    reply = await peer.request("POST", to("/action/whoami"), b"{}")
    assert json.loads(reply.body)["output"].endswith(" None")
    await stream.aclose()
    await server.stop()


async def test_a_wildcard_address_has_a_url_of_this_machine() -> None:
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        (listener,) = listeners
        listener.socket.getsockname = lambda: ("::", 6420, 0, 0)  # type: ignore[method-assign]
        server = await start(nursery, listeners=listeners)
        assert server.url == "http://[::1]:6420"
        nursery.cancel_scope.cancel()


async def test_an_accept_that_fails_is_a_plain_error() -> None:
    class Broken(trio.abc.Listener[trio.abc.Stream]):
        async def accept(self) -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            raise OSError(errno.EBADF, "gone")

        async def aclose(self) -> None:
            await trio.lowlevel.checkpoint()

    with pytest.raises(OSError, match="gone"):
        await serve(REGISTRY, listeners=[Broken()])


async def test_two_errors_stay_a_group() -> None:
    class Broken(trio.abc.Listener[trio.abc.Stream]):
        def __init__(self, error: Exception) -> None:
            self.error = error

        async def accept(self) -> trio.abc.Stream:
            raise self.error

        async def aclose(self) -> None:
            pass

    with pytest.RaisesGroup(ValueError, KeyError, flatten_subgroups=True):
        await serve(REGISTRY, listeners=[Broken(ValueError()), Broken(KeyError())])


# -- serving ----------------------------------------------------------------------------------------------------------


async def test_another_websocket_client_understands_it(nursery: trio.Nursery) -> None:
    server = await start(nursery)
    url = f"ws://127.0.0.1:{server.port}{to('/connect')}"

    def talk() -> tuple[str | None, list[str], tuple[int, str]]:
        with connect(url, subprotocols=["rivet", "rivet_encoding.json"], compression="deflate") as websocket:  # type: ignore[list-item]  # plain strings are fine
            received = [str(websocket.recv())]
            websocket.send(CALL % (1, "say", '"hi"'))
            received.append(str(websocket.recv()))
            websocket.send("{")
            with pytest.raises(ConnectionClosed) as closed:
                websocket.recv()
            assert closed.value.rcvd is not None
            return websocket.subprotocol, received, (closed.value.rcvd.code, closed.value.rcvd.reason)

    subprotocol, received, closed = await trio.to_thread.run_sync(talk)
    assert subprotocol == "rivet"
    assert '"Init"' in received[0]
    assert '"output":"hi"' in received[1]
    assert closed == (1011, "actor.invalid_request")


async def test_a_client_that_reads_late_gets_everything(nursery: trio.Nursery) -> None:
    server = await start(nursery)
    url = f"ws://127.0.0.1:{server.port}{to('/connect')}"
    async with open_websocket_url(url, subprotocols=["rivet"], max_message_size=2**21) as websocket:
        for number in range(10):
            await websocket.send_message(CALL % (number, "fill", 500_000 + number))
        await trio.sleep(0.2)
        sizes = [len(json.loads(await websocket.get_message())["body"]["val"].get("output", "")) for _ in range(11)]
        assert sizes == [0, *range(500_000, 500_010)]


async def test_tls(nursery: trio.Nursery, dial: Dialer, certificate: Certificate) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.chain)
    server = await start(nursery, ssl_context=context)
    assert server.url == f"https://127.0.0.1:{server.port}"
    trust = ssl.create_default_context(cafile=str(certificate.authority))

    async def connect_tls() -> trio.SSLStream[trio.SocketStream]:
        stream = await dial.tcp(server)
        return trio.SSLStream(stream, trust, server_hostname="localhost", https_compatible=True)

    reply = await HttpPeer(await connect_tls()).request("POST", to("/action/whoami"), b"{}")
    assert json.loads(reply.body)["output"].startswith("POST https://localhost:6420/")
    assert json.loads(reply.body)["output"].endswith(" 127.0.0.1")
    peer = await WebSocketPeer(await connect_tls()).open(to("/websocket/x"))
    await peer.send_text("hi")
    assert await peer.next_text() == "hi"
    await peer.send(CloseConnection(1000))
    assert await peer.next_event() == CloseConnection(1000, "")
    # One that does not speak TLS harms nobody.
    plain = await dial.tcp(server)
    await plain.send_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    assert b"HTTP" not in await _drained(plain)
    await server.stop()


async def _drained(stream: trio.abc.Stream) -> bytes:
    data = b""
    try:
        while piece := await stream.receive_some():
            data += piece
    except trio.BrokenResourceError:
        pass
    return data


async def test_a_tls_handshake_has_a_deadline(autojump_clock: trio.testing.MockClock, certificate: Certificate) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.chain)
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        server = await start(nursery)
        await serve_stream(server, trio.SSLStream(theirs, context, server_side=True, https_compatible=True))
        assert trio.current_time() == pytest.approx(10)
        assert await ours.receive_some() == b""
        nursery.cancel_scope.cancel()


async def test_a_bug_on_one_connection_stays_there(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, dial: Dialer
) -> None:
    server = await start(nursery)
    healthy = await dial.http(server)
    assert (await healthy.request("GET", "/health")).status == 200

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("bug")

    with monkeypatch.context() as patch:
        patch.setattr("trivet.server.connection.HttpConnection", fail)
        assert await _drained(await dial.tcp(server)) == b""
    assert "bug" in caplog.text
    assert (await healthy.request("GET", "/health")).status == 200


async def test_far_too_many_connections_are_closed_unanswered(nursery: trio.Nursery, dial: Dialer) -> None:
    server = await start(nursery, limits=Limits(connections=1))
    first = await dial.http(server)
    assert (await first.request("GET", "/health")).status == 200
    streams: list[trio.abc.Stream] = []
    for _ in range(64):
        peer = await dial.http(server)
        assert (await peer.request("GET", "/health")).status == 503
        streams.append(peer.stream)
    assert await _drained(await dial.tcp(server)) == b""
    for stream in streams:
        await stream.aclose()
    await until(lambda: server.statistics().gateway.connections <= 1)
    assert (await first.request("GET", "/health")).status == 200


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
async def test_connections_that_come_and_go_leave_no_descriptor(nursery: trio.Nursery) -> None:
    server = await start(nursery)

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    farewells: list[Callable[[trio.SocketStream], Any]] = [
        lambda stream: stream.send_all(b"GET / HT"),
        lambda stream: stream.send_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"),
        lambda stream: WebSocketPeer(stream).open(to("/connect")),
        lambda stream: stream.send_eof(),
        lambda stream: stream.wait_send_all_might_not_block(),
    ]

    async def rush(count: int) -> None:
        for index in range(count):
            stream = await trio.open_tcp_stream("127.0.0.1", server.port)
            await farewells[index % len(farewells)](stream)
            await stream.aclose()

    await rush(10)
    before = descriptors()
    async with trio.open_nursery() as rushes:
        for _ in range(10):
            rushes.start_soon(rush, 100)
    await until(lambda: server.statistics().gateway.connections == 0)
    assert descriptors() <= before
    assert server.statistics().host.connections == 0


# -- stopping ---------------------------------------------------------------------------------------------------------


class Slow(Actor):
    """Has an action that takes as long as the test wants."""

    @action
    async def wait(self) -> str:
        STARTED[-1].set()
        await RELEASE[-1].wait()
        return "done"


STARTED: list[trio.Event] = []
RELEASE: list[trio.Event] = []


def new_work() -> None:
    STARTED.append(trio.Event())
    RELEASE.append(trio.Event())


async def begin_call(peer: HttpPeer) -> None:
    """Call the action, and return once it runs."""
    await peer.begin("POST", to("/action/wait", "slow"), [("content-length", "2")])
    await peer.send(h11.Data(data=b"{}"))
    await peer.send(h11.EndOfMessage())
    with trio.fail_after(5):
        await STARTED[-1].wait()


async def test_stopping_lets_work_end_and_tells_everyone(dial: Dialer) -> None:
    new_work()
    async with trio.open_nursery() as nursery:
        server = await start(nursery, Registry(Slow))
        connected = await WebSocketPeer((await dial.http(server)).stream).open(to("/connect", "slow"))
        assert '"Init"' in await connected.next_text()
        calling = await dial.http(server)
        await begin_call(calling)
        async with trio.open_nursery() as stopping:
            stopping.start_soon(server.stop)
            stopping.start_soon(server.stop)
            await trio.testing.wait_all_tasks_blocked()
            # New sockets are still accepted, and told why nobody can serve them.
            late = await dial.http(server)
            reply = await late.request("POST", to("/action/wait", "slow"), b"{}")
            assert (reply.status, json.loads(reply.body)["code"]) == (503, "stopping")
            refused = await WebSocketPeer((await dial.http(server)).stream).open(to("/connect", "slow"))
            code, reason = await refused.next_close()
            assert (code, reason.partition("#")[0]) == (1011, "actor.stopping")
            RELEASE[-1].set()
            assert (await calling.reply()).body == b'{"output":"done"}'
            assert await connected.next_close() == (1001, "ws.going_away")
            await connected.stream.aclose()
        with pytest.raises(OSError):
            await dial.http(server)


async def test_what_does_not_end_in_time_is_cancelled(dial: Dialer) -> None:
    new_work()
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            server = await start(nursery, Registry(Slow), limits=Limits(shutdown_grace=0.2))
            calling = await dial.http(server)
            await begin_call(calling)
            await server.stop()


async def test_cancelling_ends_everything_at_once(dial: Dialer) -> None:
    new_work()
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            server = await start(nursery, Registry(Slow))
            await WebSocketPeer((await dial.http(server)).stream).open(to("/connect", "slow"))
            await begin_call(await dial.http(server))
            nursery.cancel_scope.cancel()
        await server.stop()


# -- descriptors ------------------------------------------------------------------------------------------------------


def test_a_limit_of_files_below_the_connections_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    resource = pytest.importorskip("resource")
    limits = [(1000, 4000)]

    def get(_: int) -> tuple[int, int]:
        return limits[-1]

    def set_(_: int, new: tuple[int, int]) -> None:
        limits.append(new)

    monkeypatch.setattr(resource, "getrlimit", get)
    monkeypatch.setattr(resource, "setrlimit", set_)
    raise_descriptor_limit(3000)
    assert limits[-1] == (4000, 4000)
    assert not caplog.records
    raise_descriptor_limit(4000)
    assert "4000 files" in caplog.text


def test_a_limit_that_cannot_be_raised_is_taken_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    resource = pytest.importorskip("resource")

    def refuse(*_: object) -> None:
        raise ValueError("no")

    def get(_: int) -> tuple[int, int]:
        return 256, resource.RLIM_INFINITY

    monkeypatch.setattr(resource, "getrlimit", get)
    monkeypatch.setattr(resource, "setrlimit", refuse)
    raise_descriptor_limit(3000)
    assert "256 files" in caplog.text
