"""The bodies of the control API, as RivetKit's client sends and reads them."""

import json
from typing import Any

import pytest

from trivet.errors import DecodeError, EncodeError, PublicError
from trivet.limits import Limits
from trivet.protocol import control
from trivet.protocol.codec import encode_input
from trivet.protocol.control import ActorRecord, ActorsQuery, CreateActor, Metadata
from trivet.protocol.values import UNDEFINED

LIMITS = Limits()
RECORD = ActorRecord(
    actor_id="d9bo",
    name="chatRoom",
    key=("general",),
    namespace_id="tl7a",
    create_ts=1795447373779,
    start_ts=1795447373983,
    connectable_ts=1795447373983,
)
RECORD_JSON: dict[str, Any] = {
    "actor_id": "d9bo",
    "name": "chatRoom",
    "key": "general",
    "namespace_id": "tl7a",
    "datacenter": "default",
    "runner_name_selector": "default",
    "crash_policy": "sleep",
    "create_ts": 1795447373779,
    "start_ts": 1795447373983,
    "pending_allocation_ts": None,
    "connectable_ts": 1795447373983,
    "sleep_ts": None,
    "reschedule_ts": None,
    "destroy_ts": None,
}


class TestCreation:
    def test_the_body_of_rivetkits_client(self) -> None:
        body = b'{"name":"chatRoom","key":"general","runner_name_selector":"default","crash_policy":"sleep"}'
        request = CreateActor(name="chatRoom", key=("general",))
        assert control.parse_create(body, LIMITS) == request
        assert control.build_create(request) == body

    def test_everything_that_it_may_hold(self) -> None:
        request = CreateActor(
            name="a",
            key=("x/y", ""),
            input=encode_input(["$a", 2**60]),
            pool="p",
            datacenter="eu",
            crash_policy="destroy",
        )
        assert control.parse_create(control.build_create(request), LIMITS) == request
        assert request.decode_input() == ["$a", 2**60]

    def test_the_least_that_it_may_hold(self) -> None:
        assert control.parse_create(b'{"name":"a","key":null,"more":[]}', LIMITS) == CreateActor(name="a", key=None)
        assert CreateActor(name="a", key=None).decode_input() is UNDEFINED
        assert control.parse_create(control.build_create(CreateActor(name="a", key=None)), LIMITS).key is None
        assert control.parse_create(b'{"name":"a","key":"/"}', LIMITS).key == ()

    @pytest.mark.parametrize(
        ("body", "error"),
        [
            (b"", "api.bad_request"),
            (b"[]", "api.bad_request"),
            (b"{}", "api.bad_request"),
            (b'{"name":1}', "api.bad_request"),
            (b'{"name":"a","key":[]}', "api.bad_request"),
            (b'{"name":"a","crash_policy":"explode"}', "api.bad_request"),
            (b'{"name":"a","input":"*"}', "api.bad_request"),
            (b'{"name":""}', "actor.invalid_request"),
            (b'{"name":"a","key":"' + b"x" * 129 + b'"}', "actor.invalid_request"),
            (b'{"name":"a","key":"' + b"\\\\0" * 600 + b'"}', "actor.invalid_request"),
            (b'{"name":"a","x":NaN}', "api.bad_request"),
            (b'{"name":"a","x":"\\ud800"}', "api.bad_request"),
            (b"[" * 100_000, "api.bad_request"),
            (b'{"name":"a","input":"' + b"AAAA" * 100 + b'"}', "actor.invalid_request"),
        ],
    )
    def test_other_bodies_are_refused(self, body: bytes, error: str) -> None:
        with pytest.raises(PublicError) as caught:
            control.parse_create(body, Limits(input=100))
        assert f"{caught.value.group}.{caught.value.code}" == error

    def test_an_input_is_read_when_it_is_asked_for(self) -> None:
        request = control.parse_create(b'{"name":"a","input":"/w=="}', LIMITS)
        with pytest.raises(PublicError) as caught:
            request.decode_input()
        assert caught.value.code == "bad_request"

    def test_what_is_not_asked_for_may_be_any_json(self) -> None:
        body = b'{"name":"a","x":[1,2.5,1e999,' + b"7" * 5000 + b',["$Set",[[]]]]}'
        assert control.parse_create(body, LIMITS) == CreateActor(name="a", key=None)

    def test_an_input_that_cannot_travel_is_not_sent(self) -> None:
        with pytest.raises(EncodeError, match=r"^input\[0\]"):
            encode_input([float("nan")])


class TestAnswers:
    def test_are_rivetkits(self) -> None:
        assert json.loads(control.answer_actor(RECORD)) == {"actor": RECORD_JSON}
        assert json.loads(control.answer_actor(RECORD, created=False)) == {"actor": RECORD_JSON, "created": False}
        assert json.loads(control.answer_actors([RECORD])) == {"actors": [RECORD_JSON], "pagination": {"cursor": None}}
        assert json.loads(control.answer_actors([], cursor="c")) == {"actors": [], "pagination": {"cursor": "c"}}

    def test_are_read_by_a_client(self) -> None:
        assert control.parse_actor_answer(control.answer_actor(RECORD)) == (RECORD, True)
        assert control.parse_actor_answer(control.answer_actor(RECORD, created=False)) == (RECORD, False)
        assert control.parse_actors_answer(control.answer_actors([RECORD, RECORD])) == [RECORD, RECORD]
        assert control.parse_actors_answer(b'{"actors":[]}') == []

    def test_tell_why_an_actor_could_not_start(self) -> None:
        failed = ActorRecord(actor_id="a", name="b", key=None, error={"no_envoys": True})
        assert control.parse_actor_answer(control.answer_actor(failed)) == (failed, True)

    def test_need_only_an_id_and_a_name(self) -> None:
        actor, created = control.parse_actor_answer(b'{"actor":{"actor_id":"a","name":"b"},"created":true}')
        assert (actor.actor_id, actor.name, actor.key, created) == ("a", "b", None, True)

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"[]",
            b"{}",
            b'{"actor":{}}',
            b'{"actor":{"actor_id":"a","name":"b","create_ts":"x"}}',
            b'{"actors":{}}',
            b'{"actors":[1]}',
        ],
    )
    def test_that_are_none_are_refused(self, data: bytes) -> None:
        with pytest.raises(DecodeError):
            control.parse_actor_answer(data)
        with pytest.raises(DecodeError):
            control.parse_actors_answer(data)


class TestListing:
    @pytest.mark.parametrize(
        ("query_string", "query"),
        [
            ("name=N&key=a%2Fb&namespace=NS", ActorsQuery(namespace="NS", name="N", key=("a", "b"))),
            ("name=N&key=%2F&namespace=NS", ActorsQuery(namespace="NS", name="N", key=())),
            ("actor_ids=x%2Cy&namespace=default", ActorsQuery(actor_ids=("x", "y"))),
            ("name=a+b&actor_ids=x&namespace=default", ActorsQuery(name="a b", actor_ids=("x",))),
        ],
    )
    def test_queries_are_read_and_written(self, query_string: str, query: ActorsQuery) -> None:
        assert control.parse_actors_query(query_string) == query
        assert control.parse_actors_query(control.build_actors_query(query)) == query

    def test_the_namespace_stands_last(self) -> None:
        query = ActorsQuery(namespace="NS", name="N", key=("a/b",))
        assert control.build_actors_query(query) == "name=N&key=a%5C%2Fb&namespace=NS"

    def test_ids_may_be_repeated(self) -> None:
        assert control.parse_actors_query("actor_ids=x&actor_ids=y,z&limit=1").actor_ids == ("x", "y", "z")

    @pytest.mark.parametrize(
        ("query_string", "code"),
        [
            ("", "invalid_input"),
            ("key=a", "invalid_input"),
            ("key=a&actor_ids=x", "invalid_input"),
            ("name=%ff", "bad_request"),
        ],
    )
    def test_other_queries_are_refused(self, query_string: str, code: str) -> None:
        with pytest.raises(PublicError) as caught:
            control.parse_actors_query(query_string)
        assert caught.value.code == code


class TestMetadata:
    def test_says_that_this_is_rivetkit(self) -> None:
        assert json.loads(control.answer_metadata()) == {"runtime": "rivetkit", "version": "2.3.19"}

    def test_may_send_clients_elsewhere(self) -> None:
        metadata = Metadata(client_endpoint="http://other:1", client_namespace="ns", client_token="t")
        answer = control.answer_metadata(metadata)
        assert json.loads(answer)["clientEndpoint"] == "http://other:1"
        assert control.parse_metadata(answer) == metadata

    def test_a_namespace_counts_only_beside_an_endpoint(self) -> None:
        assert control.parse_metadata(b'{"clientNamespace":"ns"}') == Metadata()
        assert control.parse_metadata(b"{}") == Metadata()

    @pytest.mark.parametrize("data", [b"", b"[]", b'{"clientEndpoint":1}'])
    def test_that_is_none_is_refused(self, data: bytes) -> None:
        with pytest.raises(DecodeError):
            control.parse_metadata(data)
