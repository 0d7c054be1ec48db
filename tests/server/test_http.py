"""HTTP/1.1 on one connection: framing, keeping alive, and what happens to clients that are wrong or slow."""

import json
from functools import partial

import h11
import pytest
import trio
import trio.testing

from tests.server.support import REGISTRY, HttpPeer, open_world, read_to_end, to
from trivet.limits import Limits
from trivet.server import serve

SAY = to("/action/say")
HI = b'{"args":["hi"]}'


async def test_one_connection_carries_many_requests() -> None:
    async with open_world() as world:
        peer = world.http()
        for text in ("a", "b", "c"):
            reply = await peer.request("POST", SAY, json.dumps({"args": [text]}).encode())
            assert (reply.status, json.loads(reply.body)) == (200, {"output": text})


async def test_a_body_may_have_a_content_length() -> None:
    async with open_world() as world:
        peer = world.http()
        await peer.begin("POST", SAY, [("content-length", str(len(HI)))])
        await peer.send(h11.Data(data=HI))
        await peer.send(h11.EndOfMessage())
        assert (await peer.reply()).body == b'{"output":"hi"}'


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with open_world() as world:
        stream = world.stream()
        one = f"POST {SAY} HTTP/1.1\r\nhost: x\r\ncontent-length: 14\r\n\r\n".encode()
        last = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        await stream.send_all(one + b'{"args":["1"]}' + one + b'{"args":["2"]}' + last)
        answer = await read_to_end(stream)
        assert answer.count(b"HTTP/1.1 200") == 3
        assert answer.index(b'{"output":"1"}') < answer.index(b'{"output":"2"}') < answer.index(b'"status"')


async def test_head_has_the_headers_of_get_and_no_body() -> None:
    async with open_world() as world:
        peer = world.http()
        full = await peer.request("GET", "/health")
        head = await peer.request("HEAD", "/health")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == full.headers["content-length"] == str(len(full.body))
        assert (await peer.request("GET", "/health")).body == full.body


async def test_an_answer_of_status_204_has_no_body_and_no_length() -> None:
    async with open_world() as world:
        reply = await world.http().request("GET", to("/request/empty"))
        assert (reply.status, reply.body) == (204, b"")
        assert "content-length" not in reply.headers


async def test_http_1_0_is_answered_and_closed() -> None:
    async with open_world() as world:
        stream = world.stream()
        await stream.send_all(b"GET /health HTTP/1.0\r\n\r\n")
        assert b"200 OK" in await read_to_end(stream)


async def test_a_target_may_name_the_server_too() -> None:
    async with open_world() as world:
        peer = world.http()
        assert (await peer.request("GET", "http://localhost:6420/health")).status == 200
        assert (await peer.request("GET", "http://localhost:6420")).status == 200


async def test_a_client_that_expects_100_is_told_to_continue() -> None:
    async with open_world() as world:
        peer = world.http()
        await peer.begin("POST", SAY, [("expect", "100-continue"), ("content-length", str(len(HI)))])
        event = await peer.next_event()
        assert isinstance(event, h11.InformationalResponse)
        assert event.status_code == 100
        await peer.send(h11.Data(data=HI))
        await peer.send(h11.EndOfMessage())
        assert (await peer.reply()).body == b'{"output":"hi"}'


@pytest.mark.parametrize(("size", "status"), [(100_000, 400), (30_000_000, 413)])
async def test_a_client_that_expects_100_is_not_asked_for_too_long_a_body(size: int, status: int) -> None:
    async with open_world() as world:
        peer = world.http()
        await peer.begin("POST", SAY, [("expect", "100-continue"), ("content-length", str(size))])
        reply = await peer.reply()
        assert (reply.status, reply.headers["connection"]) == (status, "close")


async def test_a_client_that_expects_100_for_nothing_is_answered_and_closed() -> None:
    async with open_world() as world:
        peer = world.http()
        await peer.begin("POST", "/nowhere", [("expect", "100-continue"), ("content-length", "5")])
        reply = await peer.reply()
        assert (reply.status, reply.headers["connection"]) == (404, "close")


async def test_an_action_body_over_the_limit_is_refused_and_the_connection_goes_on() -> None:
    async with open_world() as world:
        peer = world.http()
        reply = await peer.request("POST", SAY, b"x" * 65_537)
        assert reply.status == 400
        assert json.loads(reply.body)["code"] == "incoming_too_long"
        assert (await peer.request("POST", SAY, HI)).status == 200


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_over_the_limit_of_all_bodies_is_413_and_closes(declared: bool, autojump_clock: object) -> None:
    async with open_world(Limits(http_body=1000)) as world:
        peer = world.http()
        framing = ("content-length", "2000") if declared else ("transfer-encoding", "chunked")
        await peer.begin("POST", to("/request/body"), [framing])
        if not declared:
            await peer.send(h11.Data(data=b"x" * 2000))
        reply = await peer.reply()
        assert (reply.status, reply.headers["connection"]) == (413, "close")
        assert await peer.stream.receive_some() == b""


async def test_all_bodies_share_what_there_is_for_them_and_give_it_back() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, REGISTRY, port=0, limits=Limits(http_bodies=150_000)))
        first, second, third = [HttpPeer(await trio.open_tcp_stream("127.0.0.1", server.port)) for _ in range(3)]
        await first.begin("POST", to("/request/body"), [("content-length", "200000")])
        await first.send(h11.Data(data=b"x" * 199_999))
        await trio.testing.wait_all_tasks_blocked(0.05)

        await second.begin("POST", to("/request/body"), [("transfer-encoding", "chunked")])
        await second.send(h11.Data(data=b"x" * 100_000))
        refused = await second.reply()
        assert (refused.status, refused.headers["x-rivet-error"]) == (503, "guard.service_unavailable")
        assert refused.headers["connection"] == "close"
        # What is no longer than a message needs no room.
        assert (await third.request("POST", SAY, HI)).status == 200

        await first.send(h11.Data(data=b"x"))
        await first.send(h11.EndOfMessage())
        assert (await first.reply()).body == b"x" * 200_000
        for _ in range(3):
            assert (await third.request("POST", to("/request/body"), b"x" * 200_000)).status == 200
        for peer in (first, second, third):
            await peer.stream.aclose()
        nursery.cancel_scope.cancel()


async def test_a_long_body_that_nobody_wants_is_not_waited_for() -> None:
    async with open_world() as world:
        peer = world.http()
        await peer.begin("POST", to("/request/x", "bare"), [("content-length", "10000000")])
        reply = await peer.reply()
        assert (reply.status, reply.headers["connection"]) == (404, "close")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /health HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
async def test_a_body_whose_end_is_in_doubt_is_400_and_closes(request_bytes: bytes, autojump_clock: object) -> None:
    async with open_world() as world:
        stream = world.stream()
        await stream.send_all(request_bytes + b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await read_to_end(stream)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.count(b"HTTP/1.1 ") == 1


async def test_connect_is_405_and_closes(autojump_clock: object) -> None:
    async with open_world() as world:
        stream = world.stream()
        await stream.send_all(b"CONNECT " + to("/request/x").encode() + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await read_to_end(stream)).startswith(b"HTTP/1.1 405 ")


async def test_a_body_in_chunks_of_one_byte_arrives_whole() -> None:
    async with open_world() as world:
        peer = world.http()
        await peer.begin("POST", to("/request/body"), [("transfer-encoding", "chunked")])
        await peer.stream.send_all(b"1\r\nx\r\n" * 5000 + b"0\r\n\r\n")
        await peer.stream.send_all(b"")
        reply = await read_reply(peer)
        assert reply.endswith(b"\r\n\r\n" + b"x" * 5000)


async def read_reply(peer: HttpPeer) -> bytes:
    data = b""
    while b"x" * 5000 not in data:
        piece = await peer.stream.receive_some()
        assert piece
        data += piece
    return bytes(data)


async def test_headers_over_the_limit_are_431(autojump_clock: object) -> None:
    for filler in (b"x" * 20_000, b"x" * 200_000):
        async with open_world() as world:
            stream = world.stream()
            await stream.send_all(b"GET / HTTP/1.1\r\nhost: x\r\nx-filler: " + filler + b"\r\n\r\n")
            answer = await read_to_end(stream)
            assert answer.startswith(b"HTTP/1.1 431 ")
            assert b"\r\nconnection: close\r\n" in answer


async def test_as_many_headers_as_there_may_be_are_read(autojump_clock: object) -> None:
    async with open_world() as world:
        stream = world.stream()
        await stream.send_all(b"GET /health HTTP/1.1\r\nhost: x\r\n" + b"a:1\r\n" * 253 + b"\r\n")
        assert bytes(await stream.receive_some()).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"GET / HTTP/1.1\r\nhost: x\r\n<script>\r\n", b"Bad request: illegal header line"),
        (b"GET / HTTP/1.1\r\nhost: x\r\na: <script>\0\r\n", b"Bad request: illegal header line"),
        (b"GET / HTTP/1.1\r\n", b"Bad request: Missing mandatory Host: header"),
        (b"GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n", b"Bad request: Found multiple Host: headers"),
        (b"<script>\r\n", b"Bad request: illegal request line"),
    ],
)
async def test_what_is_wrong_with_a_request_is_said_without_what_it_holds(
    autojump_clock: object, head: bytes, message: bytes
) -> None:
    async with open_world() as world:
        stream = world.stream()
        await stream.send_all(head + b"\r\n")
        answer = await read_to_end(stream)
        assert b'"' + message + b'"' in answer


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello from TLS\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: seven\r\n\r\n",
        b"POST /actors HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzzz\r\n",
        b"garbage\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_400_as_json(request_bytes: bytes, autojump_clock: object) -> None:
    async with open_world() as world:
        stream = world.stream()
        await stream.send_all(request_bytes)
        head, _, body = (await read_to_end(stream)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert b"x-rivet-ray-id" in head
        assert json.loads(body)["group"] == "api"


async def test_headers_that_come_slowly_are_408(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world() as world:
        stream = world.stream()
        for piece in (b"GET /", b" HTTP/1.1\r\n", b"host: x\r\n"):
            await trio.sleep(3)
            await stream.send_all(piece)
        answer = await read_to_end(stream)
        assert answer.startswith(b"HTTP/1.1 408 ")
        # Ten seconds from the first byte, which came after three; two more for the client to read the answer.
        assert trio.current_time() == pytest.approx(15)


async def test_a_body_that_comes_slowly_is_408(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world() as world:
        peer = world.http()
        await peer.begin("POST", SAY, [("content-length", "50")])
        await peer.send(h11.Data(data=b"{"))
        assert (await peer.reply()).status == 408
        assert trio.current_time() == pytest.approx(60)


async def test_an_unwanted_body_that_comes_slowly_is_408(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world() as world:
        peer = world.http()
        await peer.begin("POST", "/nowhere", [("content-length", "50")])
        assert (await peer.reply()).status == 408


async def test_silent_connections_are_closed_without_an_answer(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world() as world:
        assert await read_to_end(world.stream()) == b""
        assert trio.current_time() == pytest.approx(10)
        peer = world.http()
        await peer.request("GET", "/health")
        assert await peer.stream.receive_some() == b""
        assert trio.current_time() == pytest.approx(85)


async def test_a_client_that_does_not_read_its_answer_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world() as world:
        ours, theirs = trio.testing.lockstep_stream_pair()
        world.serve(theirs)
        await ours.send_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        await trio.sleep(61)
        await read_to_end(ours)
        assert trio.current_time() == pytest.approx(61)


async def test_a_client_that_goes_away_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async with open_world() as world:
        for sent in (b"", b"GET / HT", f"POST {SAY} HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n".encode()):
            stream = world.stream()
            await stream.send_all(sent)
            await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert (await world.http().request("GET", "/health")).status == 200
    assert not caplog.records


async def test_an_answer_that_http_cannot_carry_is_an_internal_error(caplog: pytest.LogCaptureFixture) -> None:
    async with open_world() as world:
        peer = world.http()
        reply = await peer.request("GET", to("/request/bad-header"))
        assert (reply.status, json.loads(reply.body)["code"]) == (500, "internal_error")
        assert "cannot be sent" in caplog.text
        assert (await peer.request("GET", "/health")).status == 200


async def test_an_upgrade_to_something_else_is_ignored() -> None:
    async with open_world() as world:
        peer = world.http()
        reply = await peer.request("GET", "/health", headers=[("upgrade", "h2c"), ("connection", "upgrade")])
        assert reply.status == 200
        assert (await peer.request("GET", "/health")).status == 200
