"""Raw requests and WebSockets: admitted like any connection, never reached by events."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

import trivet
from tests.runtime.support import settled
from trivet import (
    Actor,
    Client,
    Conn,
    Event,
    Registry,
    Request,
    Response,
    UserError,
    WebSocket,
    WebSocketClosed,
    action,
)


@attrs.define
class Badge:
    label: str = ""


class Desk(Actor[None, Badge, object]):
    news = Event(str)

    def __init__(self) -> None:
        self.ended: list[str] = []

    def on_before_connect(self, params: object) -> None:
        if params == "stranger":
            raise UserError("who are you?", code="stranger")

    def on_disconnect(self, conn: Conn[Badge]) -> None:
        self.ended.append(conn.kind)

    async def on_request(self, request: Request) -> Response:
        assert self.conn.kind == "raw"
        match request.path:
            case "/hello":
                return Response(f"hello {request.query.get('name', 'you')}")
            case "/echo":
                return Response(request.body, 201, {"x-method": request.method})
            case "/fail":
                raise UserError("bad", code="bad")
            case "/crash":
                raise RuntimeError("secret")
            case "/nothing":
                return None  # type: ignore[return-value]  # what users do by mistake
            case _:
                await trio.sleep_forever()
                raise AssertionError

    async def on_websocket(self, websocket: WebSocket) -> None:
        self.conn.state = Badge("raw")
        await websocket.send("welcome")
        async for message in websocket:
            if message == "fail":
                raise UserError("bad", code="bad")
            await websocket.send(message)

    @action
    def announce(self, text: str) -> int:
        for conn in self.conns.values():
            if conn.kind == "raw":
                assert conn.send(self.news, text) is False
        return self.broadcast(self.news, text).recipients

    @action
    def hang_up(self) -> None:
        for conn in self.conns.values():
            if conn.kind == "raw":
                conn.disconnect("enough")

    @action
    def kinds(self) -> list[str]:
        return [conn.kind for conn in self.conns.values()]

    @action
    def who_ended(self) -> list[str]:
        return self.ended


class Closed(Actor):
    @action
    def ping(self) -> str:
        return "pong"


@asynccontextmanager
async def desk() -> AsyncGenerator[tuple[Client, Any]]:
    async with trivet.open_local(Registry(Desk, Closed)) as client:
        yield client, client.get_or_create(Desk, "d")


async def test_a_request_is_answered_by_the_actors_own_handler() -> None:
    async with desk() as (_, handle):
        response = await handle.fetch("/hello?name=ann")
        assert (response.status, response.text()) == (200, "hello ann")
        response = await handle.fetch("/echo", method="PUT", body=b"\x00\x01")
        assert (response.status, response.body, response.header("X-Method")) == (201, b"\x00\x01", "PUT")
        assert await handle.call(Desk.kinds) == ["call"]
        assert await handle.call(Desk.who_ended) == ["raw", "raw", "call"]


@pytest.mark.parametrize(
    ("path", "status", "code", "message"),
    [
        ("/fail", 400, "bad", "bad"),
        ("/crash", 500, "internal_error", "An internal error occurred"),
        ("/nothing", 500, "invalid_response", "onRequest handler must return a Response"),
    ],
)
async def test_a_handler_that_fails_is_answered_with_its_error(path: str, status: int, code: str, message: str) -> None:
    async with desk() as (_, handle):
        response = await handle.fetch(path)
        assert response.status == status
        assert (response.parse_json()["code"], response.parse_json()["message"]) == (code, message)


async def test_a_handler_that_answers_something_else_is_told_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with desk() as (_, handle):
        await handle.fetch("/nothing")
    assert "on_request returned NoneType; return trivet.Response(...)" in caplog.text


async def test_a_handler_over_its_time_is_answered(autojump_clock: trio.abc.Clock) -> None:
    async with desk() as (_, handle):
        began = trio.current_time()
        assert (await handle.fetch("/slow")).parse_json()["code"] == "callback_timed_out"
        assert trio.current_time() - began == pytest.approx(60)


async def test_an_actor_without_handlers_says_so() -> None:
    async with desk() as (client, _):
        closed = client.get_or_create(Closed)
        assert (await closed.fetch("/")).status == 404
        async with closed.websocket("/") as websocket:
            with pytest.raises(WebSocketClosed) as info:
                await websocket.receive()
            assert (info.value.code, info.value.reason) == (1011, "actor.no_websocket_handler")


async def test_admission_decides_on_raw_connections_too() -> None:
    async with desk() as (client, _):
        stranger = client.get_or_create(Desk, "d", params="stranger")
        assert (await stranger.fetch("/hello")).parse_json()["code"] == "stranger"
        async with stranger.websocket("/") as websocket:
            with pytest.raises(WebSocketClosed) as info:
                await websocket.receive()
            assert (info.value.code, info.value.reason) == (1011, "user.stranger")


async def test_a_raw_websocket_gets_its_handlers_messages_and_no_events() -> None:
    async with desk() as (_, handle), handle.connect() as room, room.events(Desk.news) as news:
        async with handle.websocket("/chat") as websocket:
            assert await websocket.receive() == "welcome"
            assert await room.call(Desk.kinds) == ["events", "raw"]
            assert await room.call(Desk.announce, "today") == 1
            assert await news.__anext__() == "today"
            for message in ("text", b"bytes"):
                await websocket.send(message)
                assert await websocket.receive() == message
        await settled()
        assert await room.call(Desk.kinds) == ["events"]
        assert await room.call(Desk.who_ended) == ["raw"]


async def test_a_raw_websocket_can_be_ended_by_the_actor() -> None:
    async with desk() as (_, handle), handle.websocket("/") as websocket:
        await websocket.receive()
        await handle.call(Desk.hang_up)
        with pytest.raises(WebSocketClosed) as info:
            await websocket.receive()
        assert (info.value.code, info.value.reason) == (1000, "enough")


async def test_a_handler_of_a_websocket_that_fails_closes_it_with_the_errors_name() -> None:
    async with desk() as (_, handle), handle.websocket("/") as websocket:
        await websocket.receive()
        await websocket.send("fail")
        with pytest.raises(WebSocketClosed) as info:
            await websocket.receive()
        assert (info.value.code, info.value.reason) == (1011, "user.bad")
