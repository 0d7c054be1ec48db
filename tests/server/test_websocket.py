"""The WebSocket of an events connection: how it opens, what it carries, and every way in which it ends."""

import json
from collections.abc import Sequence

import pytest
import trio
import trio.testing
from trio.testing import MockClock
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, Pong, TextMessage

from tests.server.support import WebSocketPeer, World, open_world, read_to_end, to
from trivet.limits import Limits
from trivet.protocol.codec import codec_for
from trivet.protocol.messages import ActionRequest, ActionResponse, Event, Init, SubscriptionRequest, ToClient
from trivet.runtime.timers import Timers
from trivet.server.heartbeat import Heartbeat

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
CALL = '{"body":{"tag":"ActionRequest","val":{"id":1,"name":"say","args":["hi"]}}}'


async def init(peer: WebSocketPeer) -> None:
    event = await peer.next_event()
    assert isinstance(event, TextMessage)
    assert json.loads(event.data)["body"]["tag"] == "Init"


async def open_json(world: World) -> WebSocketPeer:
    peer = await world.websocket()
    await init(peer)
    return peer


# -- the handshake ----------------------------------------------------------------------------------------------------


def handshake(changes: dict[str, str | None], target: str = "/connect", method: str = "GET") -> bytes:
    headers: dict[str, str | None] = {
        "host": "here",
        "upgrade": "websocket",
        "connection": "keep-alive, Upgrade",
        "sec-websocket-version": "13",
        "sec-websocket-key": KEY,
        "sec-websocket-protocol": "rivet, rivet_encoding.json",
        **changes,
    }
    lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join([f"{method} {to(target)} HTTP/1.1", *lines, "", ""]).encode()


async def test_the_answer_is_that_of_the_rfc() -> None:
    async with open_world() as world:
        stream = world.stream()
        await stream.send_all(handshake({"sec-websocket-extensions": "permessage-deflate"}))
        head = (await stream.receive_some()).partition(b"\r\n\r\n")[0].lower()
        assert head.startswith(b"http/1.1 101 switching protocols\r\n")
        assert b"\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=" in head
        assert b"\r\nsec-websocket-protocol: rivet\r\n" in head
        assert b"\r\nx-rivet-ray-id: " in head
        assert b"extensions" not in head


@pytest.mark.parametrize(
    ("changes", "method", "status"),
    [
        ({"sec-websocket-version": "8"}, "GET", b"426"),
        ({"sec-websocket-version": None}, "GET", b"426"),
        ({"sec-websocket-key": None}, "GET", b"400"),
        ({"sec-websocket-key": "c2hvcnQ="}, "GET", b"400"),
        ({"sec-websocket-key": "not base64 at all!"}, "GET", b"400"),
        ({}, "POST", b"400"),
    ],
)
async def test_a_wrong_handshake_is_refused(
    changes: dict[str, str | None], method: str, status: bytes, autojump_clock: object
) -> None:
    async with open_world() as world:
        stream = world.stream()
        await stream.send_all(handshake(changes, method=method))
        answer = await read_to_end(stream)
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert (b"sec-websocket-version: 13" in answer) == (status == b"426")


@pytest.mark.parametrize(("offered", "answered"), [(["rivet", "other"], "rivet"), (["other"], None), ([], None)])
async def test_only_a_subprotocol_that_was_offered_is_answered(offered: Sequence[str], answered: str | None) -> None:
    async with open_world() as world:
        peer = await world.websocket(subprotocols=offered)
        assert isinstance(peer.accepted, AcceptConnection)
        assert peer.accepted.subprotocol == answered
        await init(peer)  # without an encoding it is json


async def test_frames_may_come_with_the_handshake() -> None:
    async with open_world() as world:
        peer = WebSocketPeer(world.stream())
        await peer.stream.send_all(handshake({}) + b"\x89\x81\0\0\0\0x")
        data = b""
        while b"\x8a\x01x" not in data:
            data += await peer.stream.receive_some()


async def test_half_a_handshake_is_nothing(autojump_clock: object) -> None:
    async with open_world() as world:
        stream = world.stream()
        await stream.send_all(handshake({})[:-2])
        assert (await read_to_end(stream)).startswith(b"HTTP/1.1 408")


# -- what it carries --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["json", "cbor", "bare"])
async def test_every_encoding_carries_events_before_the_response(encoding: str) -> None:
    codec = codec_for(encoding)
    assert codec is not None
    async with open_world() as world:
        peer = await world.websocket(subprotocols=["rivet", f"rivet_encoding.{encoding}"])
        for message in (SubscriptionRequest("said", subscribe=True), ActionRequest(7, "say", ["hi"])):
            data = codec.encode_to_server(message)
            await peer.send(BytesMessage(data=data) if codec.binary else TextMessage(data=data.decode()))
        found: list[ToClient] = []
        for _ in range(3):
            event = await peer.next_event()
            assert isinstance(event, BytesMessage | TextMessage)
            assert isinstance(event, BytesMessage) == codec.binary
            found.append(codec.decode_to_client(event.data if isinstance(event, TextMessage) else bytes(event.data)))
        assert isinstance(found[0], Init)
        assert found[1:] == [Event("said", ["hi"]), ActionResponse(7, "hi")]


async def test_many_frames_in_one_piece_and_one_frame_in_many() -> None:
    async with open_world() as world:
        peer = await open_json(world)
        frame = bytes(peer.ws.send(TextMessage(data=CALL)))
        await peer.stream.send_all(frame * 100)
        for byte in frame:
            await peer.stream.send_all(bytes([byte]))
        await peer.send(TextMessage(data=CALL[:20], message_finished=False))
        await peer.send(TextMessage(data=CALL[20:], message_finished=True))
        for _ in range(102):
            event = await peer.next_event()
            assert isinstance(event, TextMessage)
            assert json.loads(event.data)["body"]["val"]["output"] == "hi"


async def test_params_travel_in_a_subprotocol_or_a_header() -> None:
    async with open_world() as world:
        offered = ["rivet", "rivet_encoding.json", "rivet_conn_params.%7B%22refuse%22%3A1%7D"]
        by_header = [(b"x-rivet-conn-params", b'{"refuse":1}')]
        for peer in (await world.websocket(subprotocols=offered), await world.websocket(headers=by_header)):
            event = await peer.next_event()
            assert isinstance(event, TextMessage)
            assert json.loads(event.data)["body"]["val"]["code"] == "refused"
            assert await peer.next_event() == CloseConnection(1011, "user.refused")


async def test_pings_are_answered() -> None:
    async with open_world() as world:
        peer = await open_json(world)
        await peer.send(Ping(b"are you there"))
        assert await peer.next_event() == Pong(b"are you there")


# -- how it ends ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "reason"), [(1000, "Disposed"), (4321, "")])
async def test_a_close_is_answered_and_the_connection_ended(code: int, reason: str) -> None:
    async with open_world() as world:
        peer = await open_json(world)
        await peer.send(CloseConnection(code, reason))
        assert await peer.next_event() == CloseConnection(code, reason)
        with pytest.raises(EOFError):
            await peer.next_event()


async def test_a_close_without_a_code_is_answered_without_one() -> None:
    async with open_world() as world:
        peer = await open_json(world)
        await peer.stream.send_all(b"\x88\x80\0\0\0\0")
        assert await peer.next_event() == CloseConnection(1005, "")


async def test_a_client_that_disappears_leaves_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with open_world() as world:
        peer = await open_json(world)
        assert world.host.statistics().connections == 1
        await peer.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert world.host.statistics().connections == 0
    assert not caplog.records


async def ended(peer: WebSocketPeer) -> CloseConnection:
    """The close frame that the server sends, answered."""
    while True:
        event = await peer.next_event()
        if isinstance(event, CloseConnection):
            await peer.send(event.response())
            with pytest.raises(EOFError):
                await peer.next_event()
            return event


async def test_a_frame_over_the_limit_ends_the_connection() -> None:
    async with open_world() as world:
        peer = await open_json(world)
        await peer.send(TextMessage(data="x" * 65_537))
        await peer.send(TextMessage(data=CALL))
        assert await ended(peer) == CloseConnection(1011, "message.incoming_too_long")


@pytest.mark.parametrize("encoding", ["json", "cbor", "bare"])
async def test_an_undecodable_frame_ends_the_connection(encoding: str) -> None:
    async with open_world() as world:
        peer = await world.websocket(subprotocols=["rivet", f"rivet_encoding.{encoding}"])
        await peer.send(TextMessage(data="{") if encoding == "json" else BytesMessage(data=b"\xff\xff"))
        assert await ended(peer) == CloseConnection(1011, "actor.invalid_request")


@pytest.mark.parametrize("encoding", ["cbor", "bare"])
async def test_text_in_a_binary_encoding_ends_the_connection(encoding: str) -> None:
    async with open_world() as world:
        peer = await world.websocket(subprotocols=["rivet", f"rivet_encoding.{encoding}"])
        await peer.send(TextMessage(data=CALL))
        assert await ended(peer) == CloseConnection(1011, "actor.invalid_request")


async def test_json_may_come_in_a_binary_frame() -> None:
    async with open_world() as world:
        peer = await open_json(world)
        await peer.send(BytesMessage(data=CALL.encode()))
        event = await peer.next_event()
        assert isinstance(event, TextMessage)
        assert '"output":"hi"' in event.data


@pytest.mark.parametrize(("data", "code"), [(b"\x81\x01x", 1002), (b"\x81\x81\0\0\0\0\xff", 1007)])
async def test_a_violation_of_the_protocol_ends_the_connection(
    data: bytes, code: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_world() as world:
        peer = await open_json(world)
        await peer.stream.send_all(data)
        event = await peer.next_event()
        assert isinstance(event, CloseConnection)
        assert event.code == code
        # What a violator sends has no meaning, so its answer cannot be recognised: it has to end, or is ended.
        await peer.send(event.response())
        with pytest.raises(EOFError):
            await peer.next_event()
        assert trio.current_time() == pytest.approx(5)


async def test_a_client_that_does_not_answer_a_close_is_cut_off(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world() as world:
        peer = await open_json(world)
        await peer.send(TextMessage(data="{"))
        assert await peer.next_event() == CloseConnection(1011, "actor.invalid_request")
        with pytest.raises(EOFError):
            await peer.next_event()
        assert trio.current_time() == pytest.approx(5)


async def test_a_client_that_closes_and_does_not_read_is_cut_off(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world() as world:
        ours, theirs = trio.testing.lockstep_stream_pair()
        world.serve(theirs)
        peer = await WebSocketPeer(ours).open(to("/connect"))
        await init(peer)
        await peer.send(CloseConnection(1000))
        await trio.sleep(6)
        assert world.host.statistics().connections == 0
        await read_to_end(ours)


async def test_a_silent_client_is_pinged_and_then_given_up(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world() as world:
        peer = await open_json(world)
        assert await peer.next_event() == Ping(b"")
        assert trio.current_time() == pytest.approx(20)
        await peer.send(Pong())
        assert await peer.next_event() == Ping(b"")
        assert trio.current_time() == pytest.approx(40)
        with pytest.raises(EOFError):
            await peer.next_event()
        assert trio.current_time() == pytest.approx(60)
        await trio.testing.wait_all_tasks_blocked()
        assert world.host.statistics().connections == 0


async def test_a_peer_is_not_given_up_for_a_time_in_which_the_server_stood_still(mock_clock: MockClock) -> None:
    pings: list[float] = []
    given_up: list[float] = []
    timers = Timers()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        heartbeat = Heartbeat(
            timers,
            Limits(),
            ping=lambda: pings.append(trio.current_time()),
            dead=lambda: given_up.append(trio.current_time()),
        )

        async def stand_still(seconds: float) -> None:
            mock_clock.jump(seconds)
            await trio.testing.wait_all_tasks_blocked()

        await stand_still(100)  # not even a ping went out
        assert (pings, given_up) == ([100], [])
        heartbeat.heard()
        await stand_still(20)
        await stand_still(100)  # an answer may be waiting to be read
        assert (pings, given_up) == ([100, 120, 220], [])
        await stand_still(20)
        assert (pings, given_up) == ([100, 120, 220], [240])
        nursery.cancel_scope.cancel()


async def test_a_client_that_speaks_is_not_pinged(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world() as world:
        peer = await open_json(world)
        for _ in range(10):
            await trio.sleep(15)
            await peer.send(TextMessage(data=CALL))
            assert isinstance(await peer.next_event(), TextMessage)


async def test_a_peer_whose_network_is_gone_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world() as world:
        ours, theirs = trio.testing.lockstep_stream_pair()
        world.serve(theirs)
        peer = await WebSocketPeer(ours).open(to("/connect"))
        await init(peer)
        await trio.sleep(41)  # nothing is read any more: the server's ping stays on its way
        assert world.host.statistics().connections == 0


async def test_flooding_with_tiny_frames_starves_nobody() -> None:
    async with open_world() as world:
        peer = await open_json(world)
        steps = 0

        async def count(task_status: trio.TaskStatus[None]) -> None:
            nonlocal steps
            task_status.started()
            while True:
                await trio.lowlevel.checkpoint()
                steps += 1

        await world.nursery.start(count)
        await peer.stream.send_all(b"\x8a\x80\0\0\0\0" * 5000)
        await peer.send(Ping(b"last"))
        before = steps
        assert await peer.next_event() == Pong(b"last")
        assert steps - before > 10


# -- refused ----------------------------------------------------------------------------------------------------------


async def refusal(world: World, target: str, *offered: str, origin: bytes | None = None) -> CloseConnection:
    """How a WebSocket that is accepted and then refused is closed; the ray id is checked and cut off."""
    headers = [] if origin is None else [(b"origin", origin)]
    peer = await WebSocketPeer(world.stream()).open(target, ["rivet", *offered], headers)
    assert peer.accepted is not None
    ray_id = dict(peer.accepted.extra_headers)[b"x-rivet-ray-id"].decode()
    event = await ended(peer)
    assert event.reason is not None
    return CloseConnection(event.code, event.reason.removesuffix(f"#{ray_id}"))


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("/gateway/some-id/connect", "actor.not_found"),
        ("/gateway/echo/connect?rvt-namespace=default&rvt-method=get&rvt-key=missing", "actor.not_found"),
        (to("/connect", "nope"), "actor.not_registered"),
        (to("/connect?rvt-unknown=1"), "guard.query_invalid_params"),
        ("/nowhere", "guard.websocket_not_supported"),
        (to("/inspector/connect"), "guard.websocket_not_supported"),
    ],
)
async def test_errors_of_the_way_to_an_actor_are_close_reasons(target: str, reason: str) -> None:
    async with open_world() as world:
        assert await refusal(world, target) == CloseConnection(1011, reason)


async def test_an_unknown_encoding_is_1003() -> None:
    async with open_world() as world:
        event = await refusal(world, to("/connect"), "rivet_encoding.xml")
        assert event == CloseConnection(1003, "actor.unsupported_websocket_encoding")


async def test_params_that_cannot_be_read_are_an_invalid_request() -> None:
    async with open_world() as world:
        for params in ("%7B", "%22" + "x" * 5000 + "%22"):
            event = await refusal(world, to("/connect"), f"rivet_conn_params.{params}")
            assert event == CloseConnection(1011, "actor.invalid_request")


async def test_a_strange_page_is_told_that_it_is_not_welcome() -> None:
    async with open_world() as world:
        event = await refusal(world, to("/connect"), origin=b"https://evil.example")
        assert event == CloseConnection(1011, "guard.origin_not_allowed")
        assert world.host.instances() == []
        peer = await world.websocket(headers=[(b"origin", b"http://localhost:1234")])
        assert peer.accepted is not None
        assert dict(peer.accepted.extra_headers)[b"access-control-allow-origin"] == b"http://localhost:1234"
        await init(peer)


async def test_a_stopping_server_still_accepts_and_says_why() -> None:
    async with open_world() as world:
        peer = await open_json(world)
        world.nursery.start_soon(world.host.stop)
        assert await ended(peer) == CloseConnection(1001, "ws.going_away")
        assert await refusal(world, to("/connect")) == CloseConnection(1011, "actor.stopping")


async def test_a_host_that_fails_is_an_internal_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_world() as world:

        async def fail(*_: object, **__: object) -> None:
            raise RuntimeError("secret")

        monkeypatch.setattr(world.host, "get_or_create", fail)
        assert await refusal(world, to("/connect")) == CloseConnection(1011, "rivetkit.internal_error")
        assert "secret" in caplog.text


@pytest.mark.parametrize("farewell", [b"", b"\x81\x01x", b"\x81\x85\0\0\0\0hello"])
async def test_a_refused_client_that_does_not_listen_is_cut_off(
    farewell: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_world(Limits(close_timeout=3)) as world:
        peer = await WebSocketPeer(world.stream()).open("/nowhere")
        await peer.stream.send_all(farewell)
        await read_to_end(peer.stream)
        assert trio.current_time() == pytest.approx(3)
        stream = world.stream()
        await stream.send_all(handshake({}, "/nowhere"))
        await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()


async def test_too_many_connections_are_told_so() -> None:
    async with open_world(Limits(connections=0)) as world:
        reply = await world.http().request("GET", "/health")
        assert reply.status == 503
        assert json.loads(reply.body)["code"] == "service_unavailable"
        # Each connection of this test has a host of its own in `serve_stream`, so the first is one too many.
        assert await refusal(world, to("/connect")) == CloseConnection(1011, "guard.service_unavailable")


async def test_connections_that_come_and_go_are_logged_for_who_looks_closely(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "trivet")
    async with open_world() as world:
        peer = await WebSocketPeer(world.stream()).open(to("/connect"))
        await peer.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
    logged = [record.getMessage() for record in caplog.records if "events connection from" in record.getMessage()]
    assert len(logged) == 2
    assert logged[1] == f"{logged[0]} is gone"
