"""How a request names its actor, in all three ways, and how a client writes it."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.errors import EncodeError, PublicError
from trivet.limits import Limits
from trivet.protocol.codec import encode_input
from trivet.protocol.gateway import ActorById, ActorByKey, Route, by_id_path, by_key_path, parse_gateway
from trivet.protocol.values import UNDEFINED

NONE: Mapping[str, str] = {}
ROOM = ActorByKey("default", "chatRoom", ("g-json",), "getOrCreate", pool="default", crash_policy="sleep")
GET = "/gateway/chatRoom?rvt-namespace=default&rvt-method=get"
CREATE = "/gateway/chatRoom?rvt-namespace=default&rvt-method=getOrCreate&rvt-runner=default"

# request target as RivetKit's client sends it, what it means, path and query string at the actor
EXAMPLES = [
    (
        (
            "/gateway/chatRoom/action/sendMessage?rvt-namespace=default&rvt-method=getOrCreate&rvt-runner=default"
            "&rvt-key=g-json&rvt-crash-policy=sleep"
        ),
        ROOM,
        "/action/sendMessage",
    ),
    (
        (
            "/gateway/chatRoom/action/ping?rvt-namespace=default&rvt-method=getOrCreate&rvt-runner=default&rvt-key=in"
            "&rvt-input=uQACZWhlbGxvZnfDtnJsZGFuggEC&rvt-crash-policy=sleep"
        ),
        ActorByKey(
            "default",
            "chatRoom",
            ("in",),
            "getOrCreate",
            input=encode_input({"hello": "wörld", "n": [1, 2]}),
            pool="default",
            crash_policy="sleep",
        ),
        "/action/ping",
    ),
    (
        "/gateway/chatRoom/action/ping?rvt-namespace=default&rvt-method=get&rvt-key=g-json",
        ActorByKey("default", "chatRoom", ("g-json",), "get"),
        "/action/ping",
    ),
    (
        "/gateway/chatRoom?rvt-namespace=my-ns&rvt-method=get&rvt-key=g%2Cx+y&rvt-token=s3cr+et",
        ActorByKey("my-ns", "chatRoom", ("g", "x y"), "get", token="s3cr et"),
        "",
    ),
    (
        (
            "/gateway/a%20b!/connect?rvt-namespace=n&rvt-method=getOrCreate&rvt-runner=p&rvt-region=eu&rvt-crash-policy="
            "restart&rvt-token=%7E&rvt-skip-ready-wait=true"
        ),
        ActorByKey(
            "n",
            "a b!",
            (),
            "getOrCreate",
            token="~",
            pool="p",
            region="eu",
            crash_policy="restart",
            skip_ready_wait=True,
        ),
        "/connect",
    ),
]


@pytest.mark.parametrize(("raw", "target", "path"), EXAMPLES)
def test_paths_by_key_are_rivetkits(raw: str, target: ActorByKey, path: str) -> None:
    assert by_key_path(target, path) == raw
    assert parse_gateway(raw, NONE) == Route(target, path or "/", "")


@pytest.mark.parametrize(
    ("raw", "target", "path"),
    [
        (
            "/gateway/d9bolr2kqr1ex3319ap752b5j0cl00/action/ping",
            ActorById("d9bolr2kqr1ex3319ap752b5j0cl00"),
            "/action/ping",
        ),
        ("/gateway/id1@tok1/connect", ActorById("id1", "tok1"), "/connect"),
        ("/gateway/a%2Fb@t%40k/request/", ActorById("a/b", "t@k"), "/request/"),
        ("/gateway/id1", ActorById("id1"), ""),
    ],
)
def test_paths_by_id(raw: str, target: ActorById, path: str) -> None:
    assert by_id_path(target, path) == raw
    assert parse_gateway(raw, NONE) == Route(target, path or "/", "")


def test_the_query_of_a_direct_path_is_left_alone() -> None:
    route = parse_gateway("/gateway/id1/request/x%20y?a=%20&&b+c#part", NONE)
    assert route == Route(ActorById("id1"), "/request/x%20y", "a=%20&&b+c")


def test_the_users_query_comes_first_and_arrives_byte_for_byte() -> None:
    raw = by_key_path(ROOM, "/request/some/path?x=1&y=a%20b")
    assert raw.startswith(
        "/gateway/chatRoom/request/some/path?x=1&y=a%20b&rvt-namespace=default&rvt-method=getOrCreate"
    )
    route = parse_gateway(raw, NONE)
    assert route == Route(ROOM, "/request/some/path", "x=1&y=a%20b")


def test_gateway_parameters_are_taken_out_wherever_they_stand() -> None:
    raw = "/gateway/chatRoom/x?rvt-namespace=default&a=1+%zz&rvt-method=get&xrvt-b&rvt-key=k&%72vt-c=2"
    assert parse_gateway(raw, NONE) == Route(
        ActorByKey("default", "chatRoom", ("k",), "get"), "/x", "a=1+%zz&xrvt-b&%72vt-c=2"
    )


@pytest.mark.parametrize(("path", "middle"), [("/r?", "/r?rvt-"), ("/r?a&", "/r?a&rvt-"), ("/r?a", "/r?a&rvt-")])
def test_no_separator_is_written_twice(path: str, middle: str) -> None:
    assert by_key_path(ROOM, path).startswith("/gateway/chatRoom" + middle)


class TestHeaders:
    def test_of_an_http_request(self) -> None:
        headers = {
            "x-rivet-target": "actor",
            "x-rivet-actor": "id1",
            "x-rivet-token": "t",
            "x-rivet-skip-ready-wait": "1",
        }
        assert parse_gateway("/request/x?rvt-y=1", headers) == Route(
            ActorById("id1", "t", True), "/request/x", "rvt-y=1"
        )

    def test_of_a_websocket_are_subprotocols(self) -> None:
        offered = ["rivet", "rivet_target.actor", "rivet_actor.id1", "rivet_token.t", "rivet_skip_ready_wait"]
        assert parse_gateway("/connect", NONE, offered) == Route(ActorById("id1", "t", True), "/connect", "")

    def test_the_token_of_the_path_goes_before_that_of_a_header(self) -> None:
        for raw in ("/gateway/id1@url/", GET + "&rvt-token=url"):
            route = parse_gateway(raw, {"x-rivet-token": "header"}, ["rivet_token.subprotocol"])
            assert route is not None
            assert route.target.token == "url"
        route = parse_gateway("/gateway/id1/", {"x-rivet-token": "header"}, ["rivet_token.subprotocol"])
        assert route is not None
        assert route.target.token == "header"

    @pytest.mark.parametrize("offered", [[], ["rivet_target.actor"]])
    def test_an_actor_must_be_named(self, offered: list[str]) -> None:
        with pytest.raises(PublicError, match=r"guard\.missing_header"):
            parse_gateway("/connect", {"x-rivet-target": "actor"}, offered)

    def test_a_boolean_must_be_one(self) -> None:
        with pytest.raises(PublicError, match=r"guard\.invalid_header"):
            parse_gateway("/gateway/id1/", {"x-rivet-skip-ready-wait": "yes"})


@pytest.mark.parametrize(
    "raw",
    [
        "/",
        "*",
        "/metadata",
        "/actors?rvt-method=get",
        "/gateway",
        "/gateway/",
        "/gateway/@t/x",
        "/gateway/id@/x",
        "/gateway/%ff/x",
        "/gateway/id1//x",
        "//gateway/id1",
        "/gatewayx/id1",
    ],
)
def test_other_paths_name_no_actor(raw: str) -> None:
    assert parse_gateway(raw, NONE) is None
    assert parse_gateway(raw, {"x-rivet-target": "runner", "x-rivet-actor": "id1"}) is None


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        ("/gateway/chatRoom@tok?rvt-namespace=default&rvt-method=get", "guard.query_path_token_syntax"),
        ("/gateway/?rvt-namespace=default&rvt-method=get", "guard.query_empty_actor_name"),
        ("/gateway/%ff?rvt-namespace=default&rvt-method=get", "guard.query_invalid_percent_encoding"),
        ("/gateway/" + "x" * 65 + "?rvt-namespace=default&rvt-method=get", "actor.invalid_request"),
        ("/gateway/chatRoom?rvt-method=get", "guard.query_invalid_params"),
        ("/gateway/chatRoom?rvt-namespace=default", "guard.query_invalid_params"),
        ("/gateway/chatRoom?rvt-namespace=default&rvt-method=create", "guard.query_invalid_params"),
        ("/gateway/chatRoom?rvt-namespace=default&rvt-method=getOrCreate", "guard.query_missing_pool"),
        (GET + "&rvt-key=a&rvt-key=a", "guard.query_duplicate_param"),
        (GET + "&rvt-what=a", "guard.query_invalid_params"),
        (GET + "&rvt-=a", "guard.query_invalid_params"),
        (GET + "&rvt-key=%ff", "guard.query_invalid_percent_encoding"),
        (GET + "&rvt-key=" + "x" * 129, "actor.invalid_request"),
        (GET + "&rvt-skip-ready-wait=yes", "guard.query_invalid_params"),
        (GET + "&rvt-runner=default", "guard.query_get_disallowed_params"),
        (GET + "&rvt-input=9g", "guard.query_get_disallowed_params"),
        (CREATE + "&rvt-crash-policy=explode", "guard.query_invalid_params"),
        (CREATE + "&rvt-input=9g==", "guard.query_invalid_base64_input"),
        (CREATE + "&rvt-input=9", "guard.query_invalid_base64_input"),
        (CREATE + "&rvt-input=a/b", "guard.query_invalid_base64_input"),
    ],
)
def test_mistakes_are_told_as_an_engine_tells_them(raw: str, error: str) -> None:
    with pytest.raises(PublicError) as caught:
        parse_gateway(raw, NONE)
    assert f"{caught.value.group}.{caught.value.code}" == error


@pytest.mark.parametrize("raw", [CREATE + "&rvt-input=", CREATE + "&rvt-input=_w"])
def test_an_input_is_read_when_it_is_asked_for(raw: str) -> None:
    route = parse_gateway(raw, NONE)
    assert route is not None
    assert isinstance(route.target, ActorByKey)
    with pytest.raises(PublicError) as caught:
        route.target.decode_input()
    assert caught.value.code == "query_invalid_cbor_input"


def test_no_input_is_undefined() -> None:
    assert ROOM.decode_input() is UNDEFINED


def test_a_pool_may_be_called_so_and_is_preferred() -> None:
    route = parse_gateway(CREATE + "&rvt-pool=other&rvt-skip-ready-wait=0", NONE)
    assert route is not None
    assert route.target == ActorByKey("default", "chatRoom", (), "getOrCreate", pool="other")


def test_input_has_a_limit_at_both_ends() -> None:
    raw = by_key_path(ActorByKey("n", "a", (), "getOrCreate", input=encode_input("x" * 4000)), "")
    with pytest.raises(PublicError, match=r"actor\.invalid_request: The input is longer than 100 bytes"):
        parse_gateway(raw, NONE, limits=Limits(input=100))
    with pytest.raises(EncodeError, match="a gateway path takes 4096"):
        by_key_path(ActorByKey("n", "a", (), "getOrCreate", input=encode_input("x" * 5000)), "")


@given(
    target=st.builds(
        ActorByKey,
        st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
        st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters=","), min_size=1, max_size=9)).map(
            lambda parts: tuple(parts[:5])
        ),
        st.just("getOrCreate"),
        input=st.none() | st.text(st.characters(exclude_categories=["Cs"])).map(encode_input),
        token=st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
        pool=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10),
        crash_policy=st.sampled_from(["restart", "sleep", "destroy"]),
    )
)
def test_what_a_client_writes_a_server_reads(target: ActorByKey) -> None:
    assert parse_gateway(by_key_path(target, "/connect"), NONE) == Route(target, "/connect", "")


@given(raw=st.text(st.sampled_from("/gateway@%?&=rvt-keymhod#f0 "), max_size=60), rest=st.text(max_size=10))
def test_no_target_does_worse_than_a_public_error(raw: str, rest: str) -> None:
    for text in (raw, GET + raw, CREATE + rest):
        try:
            parse_gateway(text, NONE)
        except PublicError:
            pass
