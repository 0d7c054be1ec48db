"""Calls and requests over HTTP, and finding the server."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.client.fake import FakeServer, HttpAnswer, HttpRequest, World, open_world
from trivet.client import open_client
from trivet.client.endpoint import parse_endpoint
from trivet.errors import ActorError, ConnectionLost, EncodeError
from trivet.limits import Limits
from trivet.protocol.codec import codec_for
from trivet.protocol.messages import Error
from trivet.protocol.values import UNDEFINED


def error_answer(group: str, code: str, status: int = 400, metadata: Any = None) -> HttpAnswer:
    return HttpAnswer(
        status, json.dumps({"group": group, "code": code, "message": "no", "metadata": metadata}).encode()
    )


def script(world: World, *answers: HttpAnswer | Callable[[HttpRequest], HttpAnswer]) -> list[HttpRequest]:
    """The server gives these answers, the last again and again; returns the requests that asked."""
    asked: list[HttpRequest] = []

    async def handler(request: HttpRequest) -> HttpAnswer:
        if "/metadata" in request.target:
            return HttpAnswer(body=b'{"runtime":"engine"}')
        answer = answers[min(len(asked), len(answers) - 1)]
        asked.append(request)
        return answer if isinstance(answer, HttpAnswer) else answer(request)

    world.server.handler = handler
    return asked


@pytest.mark.parametrize("encoding", ["bare", "cbor", "json"])
async def test_a_call_is_one_post(encoding: str, autojump_clock: MockClock) -> None:
    codec = codec_for(encoding)
    assert codec is not None
    async with open_world(encoding=encoding, token="s3cret", headers={"X-Mine": "1"}) as world:
        asked = script(world, HttpAnswer(body=codec.encode_action_response({"n": 1}), content_type=codec.content_type))
        handle = world.client.get_or_create("chatRoom", "general", params={"who": "bób"})
        assert await handle.call("say", "hi", 2) == {"n": 1}
        assert await handle.actions.nested.add(3) == {"n": 1}
        (first, second) = asked
        assert first.method == "POST"
        assert first.target == (
            "/gateway/chatRoom/action/say?rvt-namespace=default&rvt-method=getOrCreate&rvt-runner=default"
            "&rvt-key=general&rvt-crash-policy=sleep&rvt-token=s3cret"
        )
        assert "/action/nested.add?" in second.target
        assert codec.decode_action_request(first.body) == ["hi", 2]
        assert first.headers["x-rivet-encoding"] == encoding
        assert first.headers["content-type"] == codec.content_type
        assert first.headers["x-rivet-token"] == "s3cret"
        assert json.loads(first.headers["x-rivet-conn-params"]) == {"who": "bób"}
        assert first.headers["x-mine"] == "1"
        assert first.headers["host"] == "fake:6420"
        assert world.server.dials == 1  # kept alive


async def test_errors_of_actors_come_in_their_encoding(autojump_clock: MockClock) -> None:
    codec = codec_for("bare")
    assert codec is not None
    async with open_world() as world:
        error = Error("user", "nope", "no", {"a": 1})
        script(world, HttpAnswer(400, codec.encode_error(error), codec.content_type))
        with pytest.raises(ActorError) as caught:
            await world.handle.call("x")
        assert (str(caught.value), caught.value.metadata, caught.value.ray_id) == ("user.nope: no", {"a": 1}, "ray-1")


async def test_an_answer_that_cannot_be_read_is_an_error(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        script(world, HttpAnswer(502, b"<html>", "text/html"))
        with pytest.raises(ActorError, match=r"(?s)status 502.*<html>"):
            await world.handle.call("x")
        script(world, HttpAnswer(200, b"<html>", "text/html"))
        for use in (world.handle.call("x"), world.handle.resolve(), world.client.get("a").resolve()):
            with pytest.raises(ActorError, match="status 200"):
                await use


async def test_lifecycle_answers_are_asked_again_and_other_errors_are_not(autojump_clock: MockClock) -> None:
    async with open_world(encoding="json") as world:
        ok = HttpAnswer(body=b'{"output":"ok"}')
        asked = script(world, error_answer("actor", "starting"), error_answer("guard", "actor_ready_timeout"), ok)
        assert await world.handle.call("x") == "ok"
        assert len(asked) == 3
        asked = script(world, error_answer("actor", "not_found"))
        with pytest.raises(ActorError, match="not_found"):
            await world.client.get("chatRoom", "x").call("x")
        assert len(asked) == 1
        asked = script(world, error_answer("user", "nope"))
        with pytest.raises(ActorError, match="nope"):
            await world.handle.call("x")
        assert len(asked) == 1


async def test_get_params_is_asked_for_each_call(autojump_clock: MockClock) -> None:
    async with open_world(encoding="json") as world:
        asked = script(world, HttpAnswer(body=b'{"output":null}'))
        count = iter(range(10))
        handle = world.client.get_for_id("chatRoom", "id 1", get_params=lambda: next(count))
        await handle.call("x")
        await handle.call("x")
        assert [request.headers["x-rivet-conn-params"] for request in asked] == ["0", "1"]
        assert asked[0].target == "/gateway/id%201/action/x"
        with pytest.raises(TypeError, match="not both"):
            world.client.get("chatRoom", params=1, get_params=lambda: 1)


async def test_a_broken_connection_says_whether_the_call_may_have_run(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        asked = script(world, HttpAnswer(close=True))
        with pytest.raises(ConnectionLost) as caught:
            await world.handle.call("x")
        assert caught.value.maybe_executed
        assert len(asked) == 1
        world.server.refusing = True
        with pytest.raises(ConnectionLost) as caught:
            await world.handle.call("x")
        assert not caught.value.maybe_executed
        assert len(asked) == 1


async def test_a_call_has_a_deadline(autojump_clock: MockClock) -> None:
    async with open_world(limits=Limits(action_timeout=5, unwind_timeout=1)) as world:

        async def handler(request: HttpRequest) -> HttpAnswer:
            if "/metadata" not in request.target:
                await trio.sleep_forever()
            return HttpAnswer(body=b"{}")

        world.server.handler = handler
        start = trio.current_time()
        with pytest.raises(ConnectionLost) as caught:
            await world.handle.call("x")
        assert caught.value.maybe_executed
        assert trio.current_time() - start == pytest.approx(7)


async def test_what_is_too_large_or_cannot_travel_is_refused_here(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        with pytest.raises(ActorError, match="incoming_too_long"):
            await world.handle.call("x", "y" * 70_000)
        with pytest.raises(EncodeError):
            await world.handle.call("x", object())
        with pytest.raises(TypeError, match="positional"):
            await world.handle.actions.x(a=1)
        with pytest.raises(TypeError, match="not an action"):
            world.handle.actions()
        assert world.server.dials == 0


async def test_actors_are_resolved_and_created(autojump_clock: MockClock) -> None:
    actor = {"actor_id": "id1", "name": "chatRoom", "key": "a\\/b"}
    async with open_world(encoding="json") as world:
        asked = script(world, HttpAnswer(body=json.dumps({"actor": actor, "created": True}).encode()))
        assert await world.client.get_or_create("chatRoom", ["a/b"], input={"x": 1}).resolve() == "id1"
        assert (asked[0].method, asked[0].target) == ("PUT", "/actors?namespace=default")
        assert json.loads(asked[0].body)["key"] == "a\\/b"
        handle = await world.client.create("chatRoom", ["a/b"])
        assert asked[1].method == "POST"
        assert await handle.resolve() == "id1"
        assert len(asked) == 2
        asked = script(world, HttpAnswer(body=json.dumps({"actors": [actor]}).encode()))
        assert await world.client.get("chatRoom", ["a/b"]).resolve() == "id1"
        assert asked[0].target == "/actors?name=chatRoom&key=a%5C%2Fb&namespace=default"
        script(world, HttpAnswer(body=b'{"actors":[]}'))
        with pytest.raises(ActorError, match="not_found"):
            await world.client.get("chatRoom").resolve()
        script(world, error_answer("actor", "duplicate_key", metadata={"existing_actor_id": "id1"}))
        with pytest.raises(ActorError) as caught:
            await world.client.create("chatRoom")
        assert caught.value.metadata == {"existing_actor_id": "id1"}


async def test_a_key_that_a_path_cannot_say_is_resolved_first(autojump_clock: MockClock) -> None:
    actor = json.dumps({"actor": {"actor_id": "id1", "name": "c", "key": None}, "created": True}).encode()
    cases: list[tuple[list[str], object]] = [(["a,b"], UNDEFINED), ([""], UNDEFINED), (["k"], "x" * 5000)]
    for key, given in cases:
        async with open_world(encoding="json") as world:
            asked = script(world, HttpAnswer(body=actor), HttpAnswer(body=b'{"output":1}'))
            assert await world.client.get_or_create("c", key, input=given).call("x") == 1
            assert [(one.method, one.target) for one in asked] == [
                ("PUT", "/actors?namespace=default"),
                ("POST", "/gateway/id1/action/x"),
            ]


async def test_raw_requests_come_back_as_they_are(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        teapot = HttpAnswer(418, b"short and stout", "text/plain")
        asked = script(world, error_answer("actor", "stopping", 503), teapot)
        response = await world.handle.fetch(
            "some path?x=1#part", method="PUT", headers={"X-A": "b"}, body="bödy", params={"p": 1}
        )
        assert (response.status, response.body, response.header("Content-Type")) == (
            418,
            b"short and stout",
            "text/plain",
        )
        assert len(asked) == 2
        assert asked[1].target.startswith("/gateway/chatRoom/request/some%20path?x=1&rvt-namespace=default")
        assert (asked[1].method, asked[1].body, asked[1].headers["x-a"]) == ("PUT", "bödy".encode(), "b")
        assert asked[1].headers["x-rivet-conn-params"] == '{"p":1}'
        script(world, error_answer("user", "nope", 400))
        assert (await world.handle.fetch("/")).status == 400
        script(world, HttpAnswer(400, b"{]"))
        assert (await world.handle.fetch("/")).body == b"{]"
        script(world, error_answer("actor", "restarting", 503))
        assert (await world.client.get_for_id("c", "id").fetch("/")).status == 503
        with pytest.raises(ValueError, match="cannot be sent"):
            await world.handle.fetch("/", headers={"bad": "a\nb"})


async def test_a_response_over_the_limit_is_an_error(autojump_clock: MockClock) -> None:
    async with open_world(limits=Limits(http_body=1000)) as world:
        script(world, HttpAnswer(200, b"x" * 300_000, "text/plain"), HttpAnswer(200, b"ok", "text/plain"))
        with pytest.raises(ActorError, match="outgoing_too_long"):
            await world.handle.fetch("/")
        assert (await world.handle.fetch("/")).body == b"ok"


# -- metadata ----------------------------------------------------------------------------------------------------------


async def test_the_server_may_name_another_endpoint(autojump_clock: MockClock) -> None:
    hosts: list[str] = []
    async with trio.open_nursery() as nursery:
        server = FakeServer(nursery)

        async def handler(request: HttpRequest) -> HttpAnswer:
            hosts.append(request.headers["host"] + request.target.partition("?")[0])
            if "/metadata" in request.target:
                assert request.headers["authorization"] == "Bearer t"
                return HttpAnswer(
                    body=b'{"clientEndpoint":"http://ignored:auth@other:81/x/","clientNamespace":"ns","clientToken":"u"}'
                )
            assert "rvt-namespace=ns" in request.target
            assert request.headers["x-rivet-token"] == "u"
            return HttpAnswer(body=b'{"output":1}')

        server.handler = handler
        async with open_client("http://a%20b:t@first/v1/", encoding="json", connect=server.connect) as client:
            async with trio.open_nursery() as callers:
                for _ in range(5):
                    callers.start_soon(client.get("c").call, "x")
        nursery.cancel_scope.cancel()
    assert hosts == ["first/v1/metadata", *["other:81/x/gateway/c/action/x"] * 5]


@pytest.mark.parametrize(("named", "passed_on"), [("http://first:80/x", True), ("http://first:81", False)])
async def test_headers_are_for_the_server_that_the_user_named(
    named: str, passed_on: bool, autojump_clock: MockClock
) -> None:
    seen: list[bool] = []
    async with trio.open_nursery() as nursery:
        server = FakeServer(nursery)

        async def handler(request: HttpRequest) -> HttpAnswer:
            seen.append(request.headers.get("cookie") == "secret")
            return HttpAnswer(body=b'{"clientEndpoint":"%s","output":1}' % named.encode())

        server.handler = handler
        headers = {"Cookie": "secret"}
        async with open_client("http://first", encoding="json", headers=headers, connect=server.connect) as client:
            assert await client.get("c").call("x") == 1
        nursery.cancel_scope.cancel()
    assert seen == [True, passed_on]


async def test_the_lookup_is_repeated_until_the_server_is_up(autojump_clock: MockClock) -> None:
    async with open_world(encoding="json") as world:
        answers = iter(
            [HttpAnswer(503, b""), HttpAnswer(200, b"<html>"), HttpAnswer(close=True), HttpAnswer(body=b"{}")]
        )

        async def handler(request: HttpRequest) -> HttpAnswer:
            return next(answers) if "/metadata" in request.target else HttpAnswer(body=b'{"output":1}')

        world.server.handler = handler
        assert await world.handle.call("x") == 1


@pytest.mark.parametrize("use", ["call", "resolve", "fetch"])
async def test_a_server_that_is_not_there_is_given_up(use: str, autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.server.refusing = True
        start = trio.current_time()
        with pytest.raises(ConnectionLost, match="no server was found") as caught:
            await getattr(world.handle, use)(*([] if use == "resolve" else ["x"]))
        assert not caught.value.maybe_executed
        assert trio.current_time() - start <= Limits().connect_timeout


async def test_a_refused_lookup_is_an_answer(autojump_clock: MockClock) -> None:
    async with open_world() as world:

        async def handler(request: HttpRequest) -> HttpAnswer:
            return error_answer("api", "unauthorized", 401)

        world.server.handler = handler
        with pytest.raises(ActorError, match="unauthorized"):
            await world.handle.call("x")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost:6420", ("http", "localhost", 6420, "", "default", None, "localhost:6420")),
        ("https://ns:to%2Fken@h/pre/fix/", ("https", "h", 443, "/pre/fix", "ns", "to/ken", "h")),
        ("ws://[::1]:80", ("http", "::1", 80, "", "default", None, "[::1]")),
        ("wss://ns@h", ("https", "h", 443, "", "ns", None, "h")),
    ],
)
def test_endpoints_are_parsed(url: str, expected: tuple[Any, ...]) -> None:
    endpoint = parse_endpoint(url)
    assert (
        endpoint.scheme,
        endpoint.host,
        endpoint.port,
        endpoint.prefix,
        endpoint.namespace,
        endpoint.token,
        endpoint.authority,
    ) == expected
    assert "to/ken" not in repr(endpoint)


@pytest.mark.parametrize("url", ["ftp://h", "h:1", "http://", "http://h?x=1", "http://h#x", "http://:token@h"])
def test_bad_endpoints_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"endpoint|namespace"):
        parse_endpoint(url)


async def test_credentials_are_given_once_and_encodings_by_name() -> None:
    with pytest.raises(ValueError, match="either in the URL or as arguments"):
        async with open_client("http://ns:t@h", token="u"):
            pass
    with pytest.raises(ValueError, match="'bare', 'cbor' or 'json'"):
        async with open_client("http://h", encoding="xml"):  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
            pass
