"""A client that is nobody's: the protocol by hand, in JSON, over the package `websockets`."""

import json
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias, cast
from urllib.parse import quote
from uuid import uuid4

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

Frame: TypeAlias = tuple[str, dict[str, Any]]


@contextmanager
def joined(
    address: str, actor: str, *protocols: str, key: str | None = None, path: str = "/connect"
) -> Generator[ClientConnection]:
    """A WebSocket to an actor of a fresh key."""
    query = f"rvt-namespace=default&rvt-method=getOrCreate&rvt-runner=default&rvt-key={key or uuid4().hex}"
    offered = [Subprotocol(name) for name in ("rivet", "rivet_encoding.json", *protocols)]
    url = f"{address.replace('http', 'ws', 1)}/gateway/{actor}{path}?{query}"
    with connect(url, subprotocols=offered, open_timeout=60, close_timeout=30, max_size=None) as socket:
        yield socket


def send(socket: ClientConnection, tag: str, **val: object) -> None:
    socket.send(json.dumps({"body": {"tag": tag, "val": val}}))


def receive(socket: ClientConnection) -> Frame:
    """The next message. JSON goes in text frames."""
    text = socket.recv(timeout=60)
    assert isinstance(text, str)
    body = cast("dict[str, Any]", json.loads(text)["body"])
    return body["tag"], body["val"]


def receive_many(socket: ClientConnection, count: int) -> Sequence[Frame]:
    return [receive(socket) for _ in range(count)]


def test_the_handshake_selects_rivet_and_no_compression(trivet_address: str) -> None:
    with joined(trivet_address, "counter") as socket:
        assert socket.subprotocol == "rivet"
        assert socket.response is not None
        assert "Sec-WebSocket-Extensions" not in socket.response.headers


def test_subscribe_call_event_response(trivet_address: str) -> None:
    with joined(trivet_address, "counter") as socket:
        tag, init = receive(socket)
        assert tag == "Init"
        assert set(init) == {"actorId", "connectionId"}
        send(socket, "SubscriptionRequest", eventName="newCount", subscribe=True)
        send(socket, "ActionRequest", id=["$BigInt", "300"], name="increment", args=[5])
        assert receive_many(socket, 2) == [
            ("Event", {"name": "newCount", "args": [5]}),
            ("ActionResponse", {"id": ["$BigInt", "300"], "output": 5}),
        ]
        send(socket, "SubscriptionRequest", eventName="newCount", subscribe=False)
        # A plain number is a good id as well; the answer has the form that JavaScript needs.
        send(socket, "ActionRequest", id=0, name="increment", args=[])
        assert receive(socket) == ("ActionResponse", {"id": ["$BigInt", "0"], "output": 6})


def test_an_error_carries_its_action_and_its_actor(trivet_address: str) -> None:
    with joined(trivet_address, "probe") as socket:
        _, greeting = receive(socket)
        assert greeting == {"name": "greeting", "args": ["anonymous"]}
        _, init = receive(socket)
        send(socket, "ActionRequest", id=7, name="fail", args=["user"])
        tag, error = receive(socket)
        assert tag == "Error"
        assert error["actor"]["actorId"] == init["actorId"]
        del error["actor"]
        assert error == {
            "group": "user",
            "code": "not_allowed",
            "message": "You cannot do that",
            "metadata": {"field": "name", "limit": 3},
            "actionId": ["$BigInt", "7"],
        }


def test_parameters_travel_in_the_subprotocols(trivet_address: str) -> None:
    params = quote(json.dumps({"label": "Ada (ünï)"}, ensure_ascii=False), safe="")
    with joined(trivet_address, "probe", f"rivet_conn_params.{params}") as socket:
        assert receive(socket) == ("Event", {"name": "greeting", "args": ["Ada (ünï)"]})


def test_a_refused_connection_gets_its_error_then_the_close(trivet_address: str) -> None:
    params = quote(json.dumps({"deny": True}), safe="")
    with joined(trivet_address, "probe", f"rivet_conn_params.{params}") as socket:
        tag, error = receive(socket)
        assert tag == "Error"
        assert (error["group"], error["code"], error["actionId"]) == ("user", "denied", None)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=60)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason.split("#")[0]) == (1011, "user.denied")


@pytest.mark.parametrize(
    "frame",
    ["", "nonsense", "{}", '{"body":{"tag":"Nope","val":{}}}', '{"body":{"tag":"ActionRequest","val":{"id":-1}}}'],
)
def test_a_frame_that_cannot_be_read_ends_the_connection(trivet_address: str, frame: str) -> None:
    with joined(trivet_address, "counter") as socket:
        receive(socket)
        socket.send(frame)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=60)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason.split("#")[0]) == (1011, "actor.invalid_request")


def test_a_kick_closes_with_its_reason(trivet_address: str) -> None:
    with joined(trivet_address, "probe") as socket:
        receive_many(socket, 2)
        send(socket, "ActionRequest", id=0, name="kick", args=["too loud"])
        # What was queued before the close, the answer perhaps among it, may still come.
        with pytest.raises(ConnectionClosed) as closed:
            receive_many(socket, 2)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1000, "too loud")


def test_pings_are_answered_while_an_action_runs(trivet_address: str) -> None:
    with joined(trivet_address, "impatient") as socket:
        receive(socket)
        send(socket, "ActionRequest", id=0, name="dawdle", args=[200])
        assert socket.ping().wait(0.15)
        assert receive(socket) == ("ActionResponse", {"id": ["$BigInt", "0"], "output": "done"})


def test_messages_may_be_fragmented(trivet_address: str) -> None:
    message = {"body": {"tag": "ActionRequest", "val": {"id": 1, "name": "size", "args": ["é" * 20_000]}}}
    request = json.dumps(message, ensure_ascii=False)
    with joined(trivet_address, "probe") as socket:
        receive_many(socket, 2)
        socket.send(request[start : start + 1000] for start in range(0, len(request), 1000))
        assert receive(socket) == ("ActionResponse", {"id": ["$BigInt", "1"], "output": 20_000})


def test_a_raw_websocket_beside_a_subscriber_sees_its_handler_only(trivet_address: str) -> None:
    key = uuid4().hex
    with (
        joined(trivet_address, "probe", key=key, path="/websocket/") as raw,
        joined(trivet_address, "probe", key=key) as subscriber,
    ):
        assert raw.recv(timeout=60) == "welcome"
        receive_many(subscriber, 2)
        send(subscriber, "SubscriptionRequest", eventName="tick", subscribe=True)
        send(subscriber, "ActionRequest", id=0, name="emitMany", args=[3])
        assert [tag for tag, _ in receive_many(subscriber, 4)] == ["Event", "Event", "Event", "ActionResponse"]
        raw.send(b"\x00\xff")
        assert raw.recv(timeout=60) == b"\x00\xff"
