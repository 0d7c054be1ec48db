"""The server token, on every way in."""

import json
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import ClassVar

import attrs
import pytest
import trio
import trio.testing

from tests.server.support import REGISTRY, HttpPeer, WebSocketPeer, to
from trivet.actor import Actor, action
from trivet.client import open_client
from trivet.client.endpoint import parse_endpoint
from trivet.errors import ActorError, ConnectionLost
from trivet.event import Event
from trivet.limits import Limits
from trivet.raw import Request, Response, WebSocket
from trivet.registry import Registry
from trivet.runtime.host import Host, open_host
from trivet.server import Server, serve, serve_stream
from trivet.server.access import ServerToken
from trivet.server.connection import serve_wire
from trivet.server.gateway import Gateway
from trivet.server.http import Head, HttpError
from trivet.server.origins import Origins
from trivet.server.wire import Wire

TOKEN = "s3cr/et+tok~en="
IN_QUERY = "s3cr%2Fet%2Btok~en%3D"

Headers = Sequence[tuple[str, str]]


@attrs.frozen
class Guarded:
    """A server with a token, on streams in memory."""

    host: Host
    gateway: Gateway
    nursery: trio.Nursery

    def stream(self) -> trio.abc.Stream:
        ours, theirs = trio.testing.memory_stream_pair()
        self.nursery.start_soon(serve_wire, self.gateway, Wire(theirs))
        return ours

    def http(self) -> HttpPeer:
        return HttpPeer(self.stream())


@asynccontextmanager
async def guarded(token: str = TOKEN) -> AsyncGenerator[Guarded, None]:
    async with open_host(REGISTRY, Limits()) as host, trio.open_nursery() as nursery:
        pages = {"/page": Response("a page")}
        yield Guarded(host, Gateway(host, Origins(), pages, token=ServerToken(token)), nursery)
        nursery.cancel_scope.cancel()


SAY = to("/action/say")
BODY = b'{"args":["hi"]}'


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        (SAY, [("authorization", f"Bearer {TOKEN}")]),
        (SAY, [("Authorization", f"bearer  {TOKEN}")]),
        (SAY, [("x-rivet-token", TOKEN)]),
        (f"{SAY}&rvt-token={IN_QUERY}", []),
        # An actor may want credentials of its own beside the server's.
        (SAY, [("authorization", "Bearer of an actor"), ("x-rivet-token", TOKEN)]),
        (f"{SAY}&rvt-token=another", [("x-rivet-token", TOKEN)]),
    ],
)
async def test_a_request_is_let_in_with_the_token_wherever_it_stands(target: str, headers: Headers) -> None:
    async with guarded() as server:
        reply = await server.http().request("POST", target, BODY, headers)
        assert (reply.status, json.loads(reply.body)) == (200, {"output": "hi"})


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        ("POST", SAY, []),
        ("POST", SAY, [("authorization", TOKEN)]),
        ("POST", SAY, [("authorization", "Basic " + TOKEN)]),
        ("POST", SAY, [("authorization", f"Bearer {TOKEN}x")]),
        ("POST", SAY, [("x-rivet-token", "")]),
        ("POST", f"{SAY}&rvt-token=", []),
        ("POST", f"/gateway/some-id@{TOKEN[:-1]}/action/say", []),
        ("GET", "/actors?name=echo&namespace=default", []),
        ("GET", f"/actors?name=echo&namespace=default&rvt-token={IN_QUERY}", []),
        ("GET", "/actors/names", []),
        ("PUT", "/actors?namespace=default", []),
        ("POST", "/actors?namespace=default", []),
        ("DELETE", "/actors/some-id?namespace=default", []),
        ("GET", to("/request/"), []),
        ("GET", "/nothing/here", []),
        # To name an actor in a header makes it a request to the actor.
        ("GET", "/metadata", [("x-rivet-target", "actor"), ("x-rivet-actor", "some-id")]),
    ],
)
async def test_without_it_nothing_is_done_and_nothing_is_told(method: str, target: str, headers: Headers) -> None:
    async with guarded() as server:
        body = BODY if method in ("POST", "PUT") else b""
        reply = await server.http().request(method, target, body, headers)
        assert (reply.status, json.loads(reply.body)["group"], json.loads(reply.body)["code"]) == (
            401,
            "api",
            "unauthorized",
        )
        assert reply.headers["www-authenticate"] == "Bearer"
        assert server.host.instances() is not None
        assert list(server.host.instances()) == []


async def test_what_says_nothing_of_actors_is_open() -> None:
    async with guarded() as server:
        peer = server.http()
        for target in ("/", "/metadata?namespace=default", "/health", "/page"):
            assert (await peer.request("GET", target)).status == 200
        preflight = [("origin", "http://localhost:3000"), ("access-control-request-headers", "x-rivet-token")]
        assert (await peer.request("OPTIONS", SAY, headers=preflight)).status == 204


async def test_a_page_may_read_that_it_is_not_let_in() -> None:
    async with guarded() as server:
        reply = await server.http().request("POST", SAY, BODY, [("origin", "http://localhost:3000")])
        assert reply.status == 401
        assert reply.headers["access-control-allow-origin"] == "http://localhost:3000"


async def test_the_token_in_the_path_of_an_actors_id() -> None:
    async with guarded() as server:
        instance, _ = await server.host.get_or_create("default", "echo", ("k",))
        for token in (TOKEN, IN_QUERY):
            target = f"/gateway/{instance.actor_id}@{token.replace('/', '%2F')}/action/say"
            assert (await server.http().request("POST", target, BODY)).status == 200


async def test_websockets_are_let_in_with_the_token() -> None:
    async with guarded("plain-token") as server:
        instance, _ = await server.host.get_or_create("default", "echo", ("k",))
        by_header = ["rivet", "rivet_target.actor", f"rivet_actor.{instance.actor_id}", "rivet_token.plain-token"]
        for target, offered, headers in (
            (to("/connect") + "&rvt-token=plain-token", ["rivet"], ()),
            (f"/gateway/{instance.actor_id}@plain-token/connect", ["rivet"], ()),
            ("/connect", by_header, ()),
            (to("/connect"), ["rivet"], [(b"x-rivet-token", b"plain-token")]),
        ):
            peer = await WebSocketPeer(server.stream()).open(target, offered, headers)
            assert "Init" in await peer.next_text()


@pytest.mark.parametrize("rest", ["/connect", "/websocket/echo"])
async def test_websockets_are_refused_without_it(rest: str) -> None:
    async with guarded() as server:
        for target, offered in (
            (to(rest), ["rivet"]),
            (to(rest) + "&rvt-token=wrong", ["rivet", "rivet_token.wrong"]),
        ):
            peer = await WebSocketPeer(server.stream()).open(target, offered)
            code, reason = await peer.next_close()
            assert (code, reason.partition("#")[0]) == (1011, "api.unauthorized")
        assert list(server.host.instances()) == []


async def test_a_session_is_not_gone_on_with_without_the_token() -> None:
    async with guarded("plain-token") as server:
        offered = ["rivet", "rivet_encoding.json", "trivet.1"]
        peer = await WebSocketPeer(server.stream()).open(to("/connect") + "&rvt-token=plain-token", offered)
        assert "Init" in await peer.next_text()
        (session,) = server.host.sessions
        thief = await WebSocketPeer(server.stream()).open(to("/connect"), [*offered, f"trivet_session.{session}.0"])
        code, reason = await thief.next_close()
        assert (code, reason.partition("#")[0]) == (1011, "api.unauthorized")
        heir = await WebSocketPeer(server.stream()).open(
            to("/connect") + "&rvt-token=plain-token", [*offered, f"trivet_session.{session}.0"]
        )
        assert "resumed" in str(await heir.next_event())


class Door(Actor[None, None, object]):
    """Writes down what its hooks see of whoever comes."""

    seen: ClassVar[list[tuple[object, ...]]] = []
    opened = Event(int)

    @opened.can_subscribe
    def may_subscribe(self, conn: object) -> bool:
        return self._note("can_subscribe", self.conn.params)

    def on_before_connect(self, params: object) -> None:
        self._note("on_before_connect", params)

    def create_conn_state(self, params: object) -> None:
        self._note("create_conn_state", params)

    def on_connect(self, conn: object) -> None:
        self._note("on_connect", self.conn.params)

    @action
    def knock(self) -> bool:
        return self._note("action", self.conn.params)

    def on_request(self, request: Request) -> Response:
        self._note("on_request", self.conn.params)
        return Response("x")

    async def on_websocket(self, websocket: WebSocket) -> None:
        self._note("on_websocket", self.conn.params)

    def _note(self, hook: str, params: object) -> bool:
        headers = self.request.headers
        self.seen.append((hook, params, headers["authorization"], headers["origin"], self.request.peer))
        return True


async def test_hooks_see_headers_params_origin_and_address_of_whoever_comes() -> None:
    Door.seen.clear()
    whoever = [("authorization", "Bearer mine"), ("origin", "http://localhost:3000")]
    raw = [(name.encode(), value.encode()) for name, value in whoever]
    async with open_host(Registry(Door), Limits()) as host, trio.open_nursery() as nursery:

        def stream() -> trio.abc.Stream:
            ours, theirs = trio.testing.memory_stream_pair()
            nursery.start_soon(partial(serve_stream, host, theirs, peer="192.0.2.7"))
            return ours

        in_header = [*whoever, ("x-rivet-conn-params", '{"a":1}')]
        http = HttpPeer(stream())
        assert (await http.request("POST", to("/action/knock", "door"), b'{"args":[]}', in_header)).status == 200
        assert (await http.request("GET", to("/request/", "door"), headers=in_header)).status == 200
        offered = ["rivet", "rivet_conn_params.%7B%22a%22%3A1%7D"]
        events = await WebSocketPeer(stream()).open(to("/connect", "door"), offered, raw)
        assert "Init" in await events.next_text()
        subscription = {"tag": "SubscriptionRequest", "val": {"eventName": "opened", "subscribe": True}}
        await events.send_text(json.dumps({"body": subscription}))
        await (await WebSocketPeer(stream()).open(to("/websocket/", "door"), offered, raw)).next_close()
        nursery.cancel_scope.cancel()
    admission = {"on_before_connect", "create_conn_state", "on_connect"}
    assert {hook for hook, *_ in Door.seen} == {*admission, "can_subscribe", "action", "on_request", "on_websocket"}
    assert sum(hook == "on_before_connect" for hook, *_ in Door.seen) == 4  # on each of the four ways
    for _, *seen in Door.seen:
        assert seen == [{"a": 1}, "Bearer mine", "http://localhost:3000", "192.0.2.7"]


@pytest.mark.parametrize("token", ["", " ", "with space", "a,b", "caf\xe9", "line\n"])
async def test_what_no_client_could_present_is_no_token(token: str) -> None:
    with pytest.raises(ValueError, match="server token") as raised:
        await serve(REGISTRY, port=0, token=token)
    assert not token.strip() or token not in str(raised.value)


@pytest.mark.parametrize("encoding", ["bare", "cbor", "json"])
async def test_trivets_client_gets_in_with_the_token_and_not_without(nursery: trio.Nursery, encoding: str) -> None:
    server: Server = await nursery.start(partial(serve, REGISTRY, port=0, token=TOKEN))
    async with open_client(server.url, token=TOKEN, encoding=encoding) as client:  # type: ignore[arg-type]  # one of three
        echo = client.get_or_create("echo", "k")
        assert await echo.call("say", "hi") == "hi"
        # A key that no path can carry is looked up over the control API first.
        assert await client.get_or_create("echo", ["a,b"]).call("say", "hi") == "hi"
        async with echo.connect() as connection:
            assert await connection.call("say", "hi") == "hi"
        assert (await echo.fetch("/x")).status == 200
        async with echo.websocket("/x") as websocket:
            await websocket.send("hi")
            assert await websocket.receive() == "hi"
    for token in (None, "wrong"):
        async with open_client(server.url, token=token, encoding=encoding) as client:  # type: ignore[arg-type]  # one of three
            echo = client.get_or_create("echo", "k")
            with pytest.raises(ActorError, match=r"api\.unauthorized"):
                await echo.call("say", "hi")
            with pytest.raises(ActorError, match=r"api\.unauthorized"):
                await echo.resolve()
            with pytest.raises(ActorError, match=r"api\.unauthorized"):
                async with echo.connect():
                    pass
    await server.stop()


async def test_the_token_is_in_no_log_and_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    answers: list[bytes] = []
    async with guarded() as server:
        instance, _ = await server.host.get_or_create("default", "echo", ("k",))
        by_id = f"/gateway/{instance.actor_id}@{IN_QUERY}"
        for method, target, headers in (
            ("POST", f"{to('/action/crash')}&rvt-token={IN_QUERY}", []),
            ("POST", f"{by_id}/action/crash", []),
            ("POST", f"{by_id}/action/none", []),
            ("POST", f"{by_id}/nothing", []),
            ("POST", f"/gateway/none@{IN_QUERY}/action/say", []),
            ("GET", f"{by_id}/request/bad-header", []),
            ("POST", to("/action/whoami"), [("x-rivet-token", TOKEN)]),
            ("POST", f"{by_id}/action/whoami", []),
            ("GET", "/actors?limit=x", [("authorization", f"Bearer {TOKEN}")]),
        ):
            reply = await server.http().request(method, target, b'{"args":[]}' if method == "POST" else b"", headers)
            answers.append(str(reply.headers).encode() + reply.body)
        server.host.by_id = None  # type: ignore[method-assign,assignment]  # so that every request fails unexpectedly
        assert (await server.http().request("POST", f"{by_id}/action/say", BODY)).status == 500
    for text in (TOKEN, IN_QUERY):
        assert text not in caplog.text
        assert text.encode() not in b"".join(answers)
    assert "failed" in caplog.text
    assert TOKEN not in repr(ServerToken(TOKEN))


async def test_the_token_is_in_no_error_of_a_client_that_gets_no_answer() -> None:
    async def connect(host: str, port: int) -> trio.abc.Stream:
        ours, theirs = trio.testing.memory_stream_pair()
        await theirs.aclose()
        return ours

    limits = Limits(connect_timeout=0)
    async with open_client("http://here:1", token="s3cr-et", limits=limits, connect=connect) as client:
        client._backend._endpoint = parse_endpoint("http://here:1", "s3cr-et")  # type: ignore[attr-defined]  # as if found
        for handle in (client.get_or_create("echo", "k"), client.get_for_id("echo", "some-id")):
            with pytest.raises(ConnectionLost, match="http://here:1/gateway/") as raised:
                await handle.call("say", "hi")
            assert "s3cr-et" not in str(raised.value)


@pytest.mark.parametrize("token", [None, "s3cret"])
async def test_a_listener_that_others_reach_is_warned_of_once(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture, token: str | None
) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    listeners += await trio.open_tcp_listeners(0, host="127.0.0.1")
    for listener in listeners:
        listener.socket.getsockname = lambda: ("0.0.0.0", 6420)  # type: ignore[method-assign]
    await nursery.start(partial(serve, REGISTRY, listeners=listeners, token=token))
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    if token is None:
        (warning,) = warnings
        assert warning.startswith("this server listens on 0.0.0.0 without a token")
    else:
        assert warnings == []
    nursery.cancel_scope.cancel()


def test_a_token_beyond_ascii_is_wrong_and_no_more() -> None:
    with pytest.raises(HttpError, match=r"api\.unauthorized"):
        ServerToken(TOKEN).check(Head("GET", "/actors", {"x-rivet-token": "caf\xe9"}), None)
