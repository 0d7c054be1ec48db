"""What a RivetKit client asks a server over HTTP, and what it is answered."""

import base64
import json

import pytest

from tests.server.support import QUERY, HttpPeer, Reply, World, open_world, to
from trivet.limits import Limits
from trivet.protocol.codec import codec_for

JSON = [("content-type", "application/json")]


def error_of(reply: Reply) -> str:
    error = json.loads(reply.body)
    return f"{reply.status} {error['group']}.{error['code']}"


async def create(peer: HttpPeer, method: str = "PUT", namespace: str = "default", **fields: object) -> Reply:
    body = {"name": "echo", "key": "k", "runner_name_selector": "default", "crash_policy": "sleep", **fields}
    return await peer.request(method, f"/actors?namespace={namespace}", json.dumps(body).encode(), JSON)


async def actor_id(world: World) -> str:
    return str(json.loads((await create(world.http())).body)["actor"]["actor_id"])


# -- control ----------------------------------------------------------------------------------------------------------


async def test_metadata_health_and_banner() -> None:
    async with open_world() as world:
        peer = world.http()
        metadata = await peer.request("GET", "/metadata?namespace=default")
        assert metadata.headers["content-type"] == "application/json"
        assert json.loads(metadata.body)["version"]
        assert json.loads((await peer.request("GET", "/health")).body)["status"] == "ok"
        assert (await peer.request("GET", "/")).status == 200


async def test_put_gets_or_creates() -> None:
    async with open_world() as world:
        first = json.loads((await create(world.http())).body)
        again = json.loads((await create(world.http())).body)
        assert first["created"] is True
        assert again["created"] is False
        assert first["actor"] == again["actor"]
        assert (first["actor"]["name"], first["actor"]["key"]) == ("echo", "k")


async def test_post_creates_once() -> None:
    async with open_world() as world:
        reply = await create(world.http(), "POST")
        assert set(json.loads(reply.body)) == {"actor"}
        again = await create(world.http(), "POST")
        assert error_of(again) == "400 actor.duplicate_key"
        metadata = json.loads(again.body)["metadata"]
        assert metadata == {"existing_actor_id": json.loads(reply.body)["actor"]["actor_id"], "key": "k"}


@pytest.mark.parametrize("part", [b"[],", b"0,", b'{"a":0},', b"["])
async def test_a_creation_of_very_many_parts_is_refused_before_it_is_parsed(part: bytes) -> None:
    """A body may be as long as an input in base64. To parse so many values would stop everybody for a second."""
    async with open_world() as world:
        body = b'{"name":"echo","x":[' + part * 10_000 + b"0]}"
        reply = await world.http().request("PUT", "/actors", body, JSON)
        assert (error_of(reply), b"too many parts" in reply.body) == ("400 api.bad_request", True)


async def test_every_namespace_has_its_own_actors() -> None:
    async with open_world() as world:
        one = json.loads((await create(world.http(), namespace="a")).body)["actor"]
        two = json.loads((await create(world.http(), namespace="b")).body)["actor"]
        assert one["actor_id"] != two["actor_id"]
        listed = await world.http().request("GET", "/actors?name=echo&namespace=a")
        assert [actor["actor_id"] for actor in json.loads(listed.body)["actors"]] == [one["actor_id"]]


async def test_get_lists_by_name_by_key_and_by_id() -> None:
    async with open_world() as world:
        known = await actor_id(world)
        peer = world.http()
        for query in ("name=echo", "name=echo&key=k", f"actor_ids={known}", f"name=echo&actor_ids={known}"):
            found = json.loads((await peer.request("GET", f"/actors?{query}&namespace=default")).body)
            assert [actor["actor_id"] for actor in found["actors"]] == [known]
            assert found["pagination"] == {"cursor": None}


async def test_a_listing_of_what_is_not_there_is_empty() -> None:
    async with open_world() as world:
        known = await actor_id(world)
        peer = world.http()
        for query in (
            "name=bare",
            "name=nope",
            "name=echo&key=other",
            "name=nope&key=k",
            "actor_ids=nope",
            f"actor_ids={known}&namespace=elsewhere",
        ):
            reply = await peer.request("GET", f"/actors?{query}")
            assert (reply.status, json.loads(reply.body)["actors"]) == (200, [])


async def test_delete_destroys() -> None:
    async with open_world() as world:
        known = await actor_id(world)
        peer = world.http()
        assert error_of(await peer.request("DELETE", f"/actors/{known}?namespace=other")) == "404 actor.not_found"
        reply = await peer.request("DELETE", f"/actors/{known}?namespace=default")
        assert (reply.status, reply.body) == (200, b"{}")
        assert error_of(await peer.request("DELETE", f"/actors/{known}?namespace=default")) == "404 actor.not_found"
        assert json.loads((await peer.request("GET", f"/actors?actor_ids={known}")).body)["actors"] == []


async def test_names_are_those_of_the_registry() -> None:
    async with open_world() as world:
        reply = await world.http().request("GET", "/actors/names?namespace=default")
        assert json.loads(reply.body)["names"] == {"echo": {"metadata": {}}, "bare": {"metadata": {}}}


async def test_what_the_control_api_cannot_do_is_an_error() -> None:
    async with open_world() as world:
        peer = world.http()
        reply = await peer.request("GET", "/nowhere")
        assert error_of(reply) == "404 api.not_found"
        assert reply.headers["x-rivet-error"] == "api.not_found"
        assert error_of(await peer.request("DELETE", "/actors")) == "405 api.method_not_allowed"
        assert error_of(await peer.request("GET", "/actors/some-id")) == "405 api.method_not_allowed"
        assert error_of(await peer.request("PUT", "/actors", b"not json", JSON)) == "400 api.bad_request"
        assert error_of(await create(peer, input="!")) == "400 api.bad_request"
        assert json.loads((await create(peer, name="nope")).body)["code"] == "not_registered"
        assert error_of(await peer.request("GET", "/actors?key=k")) == "400 validation.invalid_input"


async def test_an_input_over_the_limit_is_refused() -> None:
    async with open_world(Limits(input=100)) as world:
        big = base64.b64encode(b"\x59\x01\x00" + b"x" * 256).decode()
        assert error_of(await create(world.http(), input=big)) == "400 actor.invalid_request"
        huge = "A" * 200_000
        assert error_of(await create(world.http(), input=huge)) == "413 api.body_too_large"


# -- actors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["json", "cbor", "bare"])
async def test_a_stateless_call_in_every_encoding(encoding: str) -> None:
    codec = codec_for(encoding)
    assert codec is not None
    async with open_world() as world:
        peer = world.http()
        headers = [("x-rivet-encoding", encoding), ("content-type", codec.content_type)]
        reply = await peer.request("POST", to("/action/say"), codec.encode_action_request(["hi"]), headers)
        assert codec.decode_action_response(reply.body) == "hi"
        assert reply.headers["content-type"] == codec.content_type
        assert reply.headers["x-rivet-actor-key"] == "k"
        assert reply.headers["x-rivet-actor-generation"] == "1"
        assert len(reply.headers["x-rivet-ray-id"]) == 30
        failed = await peer.request("POST", to("/action/fail"), codec.encode_action_request([]), headers)
        error = codec.decode_error(failed.body)
        assert (failed.status, error.group, error.code, error.metadata) == (400, "user", "my_code", {"a": 1})
        assert error.actor is not None
        assert error.actor.actor_id == reply.headers["x-rivet-actor"]


async def test_an_unknown_encoding_is_json() -> None:
    async with open_world() as world:
        for headers in ([], [("x-rivet-encoding", "xml")]):
            reply = await world.http().request("POST", to("/action/say"), b'{"args":["hi"]}', headers)
            assert reply.body == b'{"output":"hi"}'


async def test_errors_of_the_way_to_an_actor_are_json_in_every_encoding() -> None:
    async with open_world() as world:
        peer = world.http()
        headers = [("x-rivet-encoding", "bare")]
        query = "rvt-namespace=default&rvt-method=get&rvt-key=missing"
        reply = await peer.request("POST", f"/gateway/echo/action/say?{query}", b"", headers)
        assert error_of(reply) == "404 actor.not_found"
        assert reply.headers["content-type"] == "application/json"
        assert reply.headers["x-rivet-error"] == "actor.not_found"
        assert "actor" not in json.loads(reply.body)
        reply = await peer.request("POST", f"/gateway/echo/action/say?{query}&rvt-nope=1", b"", headers)
        assert json.loads(reply.body)["group"] == "guard"
        assert (
            error_of(await peer.request("POST", "/gateway/some-id/action/say", b"", headers)) == "404 actor.not_found"
        )


async def test_an_actor_has_three_addresses() -> None:
    async with open_world() as world:
        known = await actor_id(world)
        peer = world.http()
        body = b'{"args":["hi"]}'
        by_header = [("x-rivet-target", "actor"), ("x-rivet-actor", known)]
        for target, headers in (
            (to("/action/say"), []),
            (f"/gateway/echo/action/say?{QUERY.replace('getOrCreate&rvt-runner=default', 'get')}", []),
            (f"/gateway/{known}/action/say", []),
            (f"/gateway/{known}@token/action/say", []),
            ("/action/say", by_header),
        ):
            reply = await peer.request("POST", target, body, headers)
            assert (reply.body, reply.headers["x-rivet-actor"]) == (b'{"output":"hi"}', known)


async def test_a_private_error_keeps_its_text(caplog: pytest.LogCaptureFixture) -> None:
    async with open_world() as world:
        reply = await world.http().request("POST", to("/action/crash"), b"{}")
        assert error_of(reply) == "500 rivetkit.internal_error"
        assert b"secret" not in reply.body
        assert "secret" in caplog.text


async def test_what_an_actor_cannot_do_is_an_error() -> None:
    async with open_world() as world:
        peer = world.http()
        assert error_of(await peer.request("POST", to("/action/nope"), b"{}")) == "404 actor.action_not_found"
        assert error_of(await peer.request("GET", to("/action/say"))) == "405 actor.method_not_allowed"
        assert error_of(await peer.request("POST", to("/action/say"), b"{")) == "400 actor.invalid_request"
        assert error_of(await peer.request("POST", to("/queue/work"), b"{}")) == "400 queue.not_supported"
        assert error_of(await peer.request("GET", to("/queue/work"))) == "405 actor.method_not_allowed"
        for path in ("/nope", "/action", "/action/", "/action/say/more", "/requests", "/connect"):
            reply = await peer.request("POST", to(path), b"{}")
            assert error_of(reply) == "404 actor.not_found"
            assert json.loads(reply.body)["metadata"] == {"resource": "route", "id": path}


async def test_a_result_over_the_limit_is_refused() -> None:
    async with open_world() as world:
        reply = await world.http().request("POST", to("/action/fill"), b'{"args":[1048577]}')
        assert error_of(reply) == "400 message.outgoing_too_long"


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ('{"fine":true}', 200),
        ('{"refuse":true}', "400 user.refused"),
        ("{", "400 actor.invalid_request"),
        ('"' + "x" * 5000 + '"', "400 actor.invalid_request"),
    ],
)
async def test_params_travel_in_a_header(params: str, expected: object) -> None:
    async with open_world() as world:
        headers = [("x-rivet-conn-params", params)]
        reply = await world.http().request("POST", to("/action/say"), b'{"args":["hi"]}', headers)
        assert expected == (reply.status if reply.status == 200 else error_of(reply))


async def test_an_actor_tells_about_itself() -> None:
    async with open_world() as world:
        peer = world.http()
        assert (await peer.request("GET", to("/health"))).body == b"ok"
        assert (await peer.request("GET", to(""))).status == 200
        assert json.loads((await peer.request("GET", to("/metadata"))).body)["runtime"] == "rivetkit"
        assert (await peer.request("PUT", to("/dynamic/reload"))).status == 200
        assert error_of(await peer.request("POST", to("/metadata"))) == "405 actor.method_not_allowed"


async def test_the_request_that_caused_an_action_is_known_to_it() -> None:
    async with open_world() as world:
        reply = await world.http().request("POST", to("/action/whoami?x=1"), b"{}")
        assert json.loads(reply.body)["output"] == "POST http://localhost:6420/action/whoami?x=1 192.0.2.1"


# -- raw requests -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("/request", "/"),
        ("/request/", "/"),
        ("/request/a%20b/c?x=1&y=a%20b", "/a%20b/c?x=1&y=a%20b"),
        ("/request?x=1", "/?x=1"),
    ],
)
async def test_a_raw_request_reaches_the_actor_without_the_prefix(path: str, seen: str) -> None:
    async with open_world() as world:
        reply = await world.http().request("PATCH", to(path), b"12345")
        assert reply.body == f"PATCH http://localhost:6420{seen} 5".encode()
        assert reply.headers["x-mine"] == "yes"
        assert reply.headers["content-type"] == "text/plain; charset=utf-8"


async def test_a_raw_body_may_be_longer_than_a_message() -> None:
    async with open_world() as world:
        reply = await world.http().request("POST", to("/request/body"), b"x" * 3_000_000)
        assert reply.body == b"x" * 3_000_000


async def test_a_raw_answer_over_the_limit_is_refused() -> None:
    async with open_world(Limits(http_body=3)) as world:
        reply = await world.http().request("GET", to("/request/long"))
        assert error_of(reply) == "400 message.outgoing_too_long"


async def test_the_url_that_a_client_fetched_is_the_url_of_the_request() -> None:
    async with open_world() as world:
        header = "x-rivet-internal-original-request-url"
        for rest, url, seen in (
            ("/zz?q=1", "http://example.com/zz?q=1", "http://example.com/zz?q=1"),
            ("/zz?q=%20&r", "http://example.com/zz?q=%20&r#there", "http://example.com/zz?q=%20&r#there"),
            ("", "https://example.com", "https://example.com"),
            ("/zz", "/zz", "http://localhost:6420/zz"),
            ("/zz", "http://[", "http://localhost:6420/zz"),
            # A proxy may let pass only some paths: what it has seen holds.
            ("/zz", "http://example.com/admin", "http://localhost:6420/zz"),
            ("/zz", "http://example.com/zz?q=1", "http://localhost:6420/zz"),
        ):
            reply = await world.http().request("GET", to(f"/request{rest}"), headers=[(header, url)])
            assert reply.body == f"GET {seen} 0".encode()


async def test_an_actor_without_a_handler_refuses_raw_requests() -> None:
    async with open_world() as world:
        reply = await world.http().request("GET", to("/request/x", "bare"))
        assert json.loads(reply.body)["group"] == "actor"
        assert reply.status >= 400


# -- browsers ---------------------------------------------------------------------------------------------------------

PAGE = ("origin", "http://localhost:5173")


async def test_an_allowed_page_may_read_every_answer() -> None:
    async with open_world() as world:
        peer = world.http()
        for target in ("/metadata", "/nowhere", to("/action/nope"), to("/request/x")):
            headers = (await peer.request("GET", target, headers=[PAGE])).headers
            assert headers["access-control-allow-origin"] == "http://localhost:5173"
            assert headers["access-control-allow-credentials"] == "true"
            assert headers["access-control-expose-headers"] == "*"
            assert headers["vary"] == "Origin"


async def test_an_actor_cannot_overrule_who_may_read_its_answer() -> None:
    async with open_world() as world:
        reply = await world.http().request("GET", to("/request/own-cors"), headers=[PAGE])
        assert reply.headers["access-control-allow-origin"] == "http://localhost:5173"
        assert reply.headers["content-length"] == "1"


@pytest.mark.parametrize(
    ("target", "status"), [("/gateway/echo/action/say", 204), ("/actors", 200), ("/metadata", 200)]
)
async def test_preflights_are_answered_without_an_actor(target: str, status: int) -> None:
    async with open_world() as world:
        asked = [
            PAGE,
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "x-rivet-encoding"),
        ]
        reply = await world.http().request("OPTIONS", target, headers=asked)
        assert (reply.status, reply.body) == (status, b"")
        assert reply.headers["access-control-allow-origin"] == "http://localhost:5173"
        assert reply.headers["access-control-allow-methods"] == "GET, POST, PUT, DELETE, OPTIONS, PATCH"
        assert reply.headers["access-control-allow-headers"] == "x-rivet-encoding"
        assert reply.headers["access-control-max-age"] == "86400"
        assert world.host.instances() == []


async def test_a_strange_page_reaches_no_actor() -> None:
    async with open_world() as world:
        for method in ("GET", "OPTIONS", "POST"):
            reply = await world.http().request(method, to("/action/say"), headers=[("origin", "https://evil.example")])
            assert error_of(reply) == "403 guard.origin_not_allowed"
            assert "access-control-allow-origin" not in reply.headers
        assert world.host.instances() == []


async def test_origins_can_be_allowed() -> None:
    async with open_world(allowed_origins=["https://app.example.com"]) as world:
        reply = await world.http().request("GET", "/health", headers=[("origin", "https://app.example.com")])
        assert reply.headers["access-control-allow-origin"] == "https://app.example.com"


# -- refusing work ----------------------------------------------------------------------------------------------------


async def test_a_stopping_server_refuses_work_and_says_why() -> None:
    async with open_world() as world:
        await world.host.stop()
        for method, target in (("POST", to("/action/say")), ("GET", "/health"), ("GET", "/actors?name=echo")):
            assert error_of(await world.http().request(method, target)) == "503 actor.stopping"
        assert (await world.http().request("GET", "/metadata")).status == 200


async def test_a_host_that_fails_is_an_internal_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_world() as world:

        async def fail(*_: object) -> None:
            raise RuntimeError("secret")

        monkeypatch.setattr(world.host, "get_or_create", fail)
        peer = world.http()
        assert error_of(await peer.request("POST", to("/action/say"), b"{}")) == "500 rivetkit.internal_error"
        assert error_of(await create(peer)) == "500 rivetkit.internal_error"
        assert "secret" in caplog.text


# -- what is there is bounded -----------------------------------------------------------------------------------------


async def test_there_are_so_many_actors_and_no_more() -> None:
    async with open_world(Limits(actors=1)) as world:
        peer = world.http()
        assert (await create(peer)).status == 200
        assert (await create(peer)).status == 200
        assert error_of(await create(peer, key="other")) == "503 guard.service_unavailable"


async def test_a_namespace_may_have_so_many_characters_and_no_more() -> None:
    async with open_world(Limits(namespace=5)) as world:
        peer = world.http()
        assert (await create(peer, namespace="%C3%A9" * 5)).status == 200
        assert error_of(await create(peer, namespace="x" * 6)) == "400 actor.invalid_request"
        say = to("/action/say").replace("rvt-namespace=default", "rvt-namespace=xxxxxx")
        assert error_of(await peer.request("POST", say, b"{}")) == "400 actor.invalid_request"


@pytest.mark.parametrize("limit", [1, 2, 3, 10])
async def test_a_listing_goes_on_at_its_cursor(limit: int) -> None:
    async with open_world() as world:
        peer = world.http()
        created = [json.loads((await create(peer, key=str(n))).body)["actor"]["actor_id"] for n in range(6)]
        found: list[str] = []
        cursor = ""
        while True:
            answer = json.loads((await peer.request("GET", f"/actors?name=echo&limit={limit}{cursor}")).body)
            assert len(answer["actors"]) <= limit
            found += [actor["actor_id"] for actor in answer["actors"]]
            if answer["pagination"]["cursor"] is None:
                break
            cursor = f"&cursor={answer['pagination']['cursor']}"
        assert sorted(found) == sorted(created)
        assert len(found) == len(created)


@pytest.mark.parametrize("query", ["limit=0", "limit=-1", "limit=many", "cursor=here"])
async def test_what_is_no_limit_and_no_cursor_is_refused(query: str) -> None:
    async with open_world() as world:
        reply = await world.http().request("GET", f"/actors?name=echo&{query}")
        assert error_of(reply) == "400 validation.invalid_input"


async def test_an_input_is_decoded_for_a_new_actor_only() -> None:
    async with open_world() as world:
        peer = world.http()
        for method, answers in (("PUT", (400, 200)), ("POST", (400, 400))):
            bad = base64.b64encode(b"\xff" * 100_000).decode()
            first = await create(peer, method, key=method, input=bad)
            assert (first.status, error_of(first)) == (answers[0], "400 api.bad_request")
            await create(peer, key=method)
            assert (await create(peer, method, key=method, input=bad)).status == answers[1]


async def test_an_actor_of_the_path_may_be_there_without_its_input() -> None:
    async with open_world() as world:
        peer = world.http()
        say = to("/action/whoami") + "&rvt-input=_w"
        assert error_of(await peer.request("POST", say, b"{}")) == "400 guard.query_invalid_cbor_input"
        assert (await peer.request("POST", to("/action/whoami"), b"{}")).status == 200
        assert (await peer.request("POST", say, b"{}")).status == 200
