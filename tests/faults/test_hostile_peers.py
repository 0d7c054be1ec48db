"""Peers that break the rules are told so, clearly; nobody else notices, and nothing of them is left."""

import json
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio

from tests.faults.support import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PATIENCE,
    PING,
    PONG,
    STARVED,
    TEXT,
    EndOfStream,
    Frame,
    Peer,
    action_request,
    client_frame,
    close_payload,
    connect,
    dial,
    logged,
    read_all,
    running,
    subscription,
    to,
    unharmed,
    upgrade,
    vanish,
)
from trivet import Limits

LIMITS = Limits(incoming_message=4096, raw_message=8192, close_timeout=0.3)
IMPATIENT = Limits(http_header_timeout=0.5, http_body_timeout=0.5)
"""Times that a test can wait for on real sockets."""

ECHO = action_request(1, "echo", ["hi"])


def is_refused(answer: bytes, status: int, code: str) -> None:
    """The answer is HTTP, whole, and names the error in RivetKit's way."""
    head, separator, body = answer.partition(b"\r\n\r\n")
    assert separator, answer
    assert head.startswith(f"HTTP/1.1 {status} ".encode()), answer
    assert f"\r\nx-rivet-error: {code}".encode() in head.lower(), answer
    error = json.loads(body)
    assert f"{error['group']}.{error['code']}" == code
    assert error["message"]


# -- bytes that are no HTTP -------------------------------------------------------------------------------------------

TLS_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256))


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        pytest.param(b"\x00\xff\xfe garbage \r\n\r\n", 400, "api.bad_request", id="garbage"),
        pytest.param(TLS_HELLO, 400, "api.bad_request", id="TLS to a plain port"),
        pytest.param(
            b"GET / HTTP/1.1\r\nhost: localhost\r\nhost: elsewhere\r\n\r\n", 400, "api.bad_request", id="two hosts"
        ),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", 400, "api.bad_request", id="no host"),
        pytest.param(b"GET / HTTP/next\r\nhost: localhost\r\n\r\n", 400, "api.bad_request", id="no version"),
        pytest.param(
            b"GET / HTTP/1.1\r\nhost: localhost\r\nbad header\r\n\r\n", 400, "api.bad_request", id="a bad header"
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
            400,
            "api.bad_request",
            id="a bad length",
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            400,
            "api.bad_request",
            id="a bad chunk",
        ),
        pytest.param(b"GET /" + b"x" * 20_000, 431, "api.headers_too_large", id="a long line"),
        pytest.param(
            b"GET / HTTP/1.1\r\nhost: localhost\r\n" + b"a: b\r\n" * 4000 + b"\r\n",
            431,
            "api.headers_too_large",
            id="many headers",
        ),
        pytest.param(
            b"GET / HTTP/1.1\r\nhost: localhost\r\n" + b"a:b\r\n" * 254 + b"\r\n",
            431,
            "api.headers_too_large",
            id="many small headers",
        ),
        pytest.param(
            upgrade(to("/connect"))[:-2] + b"content-length: 100000\r\n\r\n",
            400,
            "api.bad_request",
            id="a handshake with a long body",
        ),
        pytest.param(
            upgrade(to("/connect"))[:-2] + b"expect: 100-continue\r\ncontent-length: 10\r\n\r\n",
            400,
            "api.bad_request",
            id="a handshake with a body to come",
        ),
        pytest.param(b"GET / HT", 408, "api.request_timeout", id="half a request line"),
        pytest.param(upgrade(to("/connect"))[:-2], 408, "api.request_timeout", id="half a handshake"),
        pytest.param(
            f"POST {to('/action/echo')} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{{".encode(),
            408,
            "api.request_timeout",
            id="half a body",
        ),
        pytest.param(
            upgrade(to("/connect")).replace(b"Version: 13", b"Version: 8"), 426, "api.bad_request", id="an old version"
        ),
        pytest.param(upgrade(to("/connect")).replace(b"Key: ", b"Key: ?"), 400, "api.bad_request", id="a bad key"),
        pytest.param(upgrade(to("/connect")).replace(b"GET", b"PUT"), 400, "api.bad_request", id="PUT"),
    ],
)
async def test_what_is_no_http_is_answered_and_closed(sent: bytes, status: int, code: str) -> None:
    async with running(limits=IMPATIENT) as server, unharmed(server):
        stream = await dial(server.port)
        await stream.send_all(sent)
        answer = await read_all(stream)
        if code.endswith("."):
            assert answer.startswith(f"HTTP/1.1 {status} ".encode())
        else:
            is_refused(answer, status, code)
        await stream.aclose()


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("/gateway/nobody/connect?rvt-namespace=default&rvt-method=get&rvt-key=k", "actor.not_registered"),
        ("/gateway/room/connect?rvt-namespace=default&rvt-method=get&rvt-key=nobody", "actor.not_found"),
        ("/gateway/room/connect?rvt-namespace=default&rvt-method=steal&rvt-key=k", "guard."),
        ("/gateway/room/connect?rvt-method=get&rvt-key=k", "guard."),
        ("/gateway/room/connect?rvt-namespace=default&rvt-method=get&rvt-method=get", "guard."),
        ("/gateway/room/connect?rvt-namespace=default&rvt-method=get&rvt-nonsense=1", "guard."),
        ("/gateway/room/connect?rvt-namespace=default&rvt-method=getOrCreate&rvt-runner=r&rvt-input=%21", "guard."),
        (to("/connect", key="k" * 2000), "actor.invalid_request"),
        (to("/connect", name="r" * 100), ""),
        ("/gateway/no-such-actor-id/connect", "actor.not_found"),
        ("/gateway//connect", "guard.websocket_not_supported"),
        ("/gateway/", "guard.websocket_not_supported"),
        ("/gateway/%00%ff/connect?rvt-namespace=default&rvt-method=get", ""),
        ("/nowhere", "guard.websocket_not_supported"),
    ],
)
async def test_an_address_that_leads_nowhere_is_closed_with_the_reason(target: str, code: str) -> None:
    async with running(limits=LIMITS) as server, unharmed(server):
        peer = await Peer(await dial(server.port)).open(target)
        status, reason = await peer.closed()
        assert status == 1011
        assert reason.startswith(code), reason
        assert "." in reason.partition("#")[0]
        await peer.stream.aclose()
        # The same, asked for without a WebSocket, is an HTTP error.
        stream = await dial(server.port)
        await stream.send_all(f"POST {target.replace('/connect', '/action/echo')} HTTP/1.1\r\n".encode())
        await stream.send_all(b"host: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        assert (await read_all(stream)).startswith(b"HTTP/1.1 4")
        await stream.aclose()


# -- frames that are none, or wrong -----------------------------------------------------------------------------------


@attrs.frozen
class Wrong:
    """Bytes after the handshake, and what the server closes with: on `/connect`, and on a raw socket."""

    sent: bytes
    events: tuple[int, str]
    raw: tuple[int, str] | None


def same(sent: bytes, code: int, reason: str = "") -> Wrong:
    return Wrong(sent, (code, reason), (code, reason))


WRONG_FRAMES = {
    "garbage": same(bytes(range(255, 0, -1)), 1002),
    "unmasked": same(client_frame(TEXT, ECHO, masked=False), 1002),
    "unmasked ping": same(client_frame(PING, b"", masked=False), 1002),
    "reserved bit 1": same(client_frame(TEXT, ECHO, rsv=4), 1002),
    "reserved bit 2": same(client_frame(TEXT, ECHO, rsv=2), 1002),
    "reserved bit 3": same(client_frame(TEXT, ECHO, rsv=1), 1002),
    "reserved opcode": same(client_frame(3, b"x"), 1002),
    "reserved control opcode": same(client_frame(11, b"x"), 1002),
    "huge ping": same(client_frame(PING, b"x" * 126), 1002),
    "huge close": same(client_frame(CLOSE, close_payload(1000, b"x" * 124)), 1002),
    "gigantic ping": same(client_frame(PING, b"x" * 70_000), 1002),
    "fragmented ping": same(client_frame(PING, b"x", fin=False), 1002),
    "continuation of nothing": same(client_frame(CONTINUATION, b"x"), 1002),
    "a message inside a message": same(client_frame(TEXT, b"{", fin=False) + client_frame(TEXT, ECHO), 1002),
    "half a close code": same(client_frame(CLOSE, b"\x03"), 1002),
    "close code 1005": same(client_frame(CLOSE, close_payload(1005)), 1002),
    "close code 0": same(client_frame(CLOSE, close_payload(0)), 1002),
    "bad UTF-8": same(client_frame(TEXT, b"\xff\xfe"), 1007),
    "bad UTF-8 across fragments": same(
        client_frame(TEXT, b"\xe2", fin=False) + client_frame(CONTINUATION, b"\x28\xa1"), 1007
    ),
    "bad UTF-8 in a reason": same(client_frame(CLOSE, close_payload(1000, b"\xff")), 1007),
    "a negative length": same(b"\x82\xff" + b"\xff" * 8 + bytes(4), 1002),
    "too long": Wrong(
        client_frame(TEXT, b"x" * 10_000), (1011, "message.incoming_too_long"), (1009, "message.incoming_too_long")
    ),
    "too long in fragments": Wrong(
        client_frame(TEXT, b"x" * 1000, fin=False) + client_frame(CONTINUATION, b"x" * 1000, fin=False) * 8,
        (1011, "message.incoming_too_long"),
        (1009, "message.incoming_too_long"),
    ),
    "a length of a terabyte": Wrong(
        b"\x82\xff" + (1 << 40).to_bytes(8, "big") + bytes(4) + b"x" * 10_000,
        (1011, "message.incoming_too_long"),
        (1009, "message.incoming_too_long"),
    ),
    "no JSON": Wrong(client_frame(TEXT, b"{"), (1011, "actor.invalid_request"), None),
    "JSON of something else": Wrong(client_frame(TEXT, b"[]"), (1011, "actor.invalid_request"), None),
    "JSON nested without end": Wrong(client_frame(TEXT, b"[" * 4000), (1011, "actor.invalid_request"), None),
    "an empty message": Wrong(client_frame(TEXT, b""), (1011, "actor.invalid_request"), None),
    "an unknown tag": Wrong(
        client_frame(TEXT, b'{"body":{"tag":"Nonsense","val":{}}}'), (1011, "actor.invalid_request"), None
    ),
    "an event name that is too long": Wrong(
        client_frame(TEXT, subscription("x" * 300)), (1011, "connection.event_name_too_long"), None
    ),
    "a forbidden subscription": Wrong(client_frame(TEXT, subscription("hidden")), (1011, "auth.forbidden"), None),
}


@pytest.mark.parametrize("wrong", WRONG_FRAMES.values(), ids=WRONG_FRAMES.keys())
async def test_a_wrong_frame_ends_its_connection_with_the_right_code(
    wrong: Wrong, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(limits=LIMITS) as server, unharmed(server):
        for rest, expected in (("/connect", wrong.events), ("/websocket/", wrong.raw)):
            if expected is None:
                continue
            # In three ways: after Init or a first message, with the handshake, and byte by byte.
            for way in range(3):
                peer = Peer(await dial(server.port))
                if way == 1:
                    await peer.stream.send_all(upgrade(to(rest)) + wrong.sent)
                    await peer.upgraded()
                else:
                    await peer.open(to(rest))
                    await _send_in_pieces(peer, wrong.sent, 1 if way == 2 and len(wrong.sent) < 500 else 100_000)
                code, reason = await peer.closed()
                assert code == expected[0], reason
                if expected[1]:
                    assert reason == expected[1]
                await peer.stream.aclose()
    assert logged(caplog.records) == []  # a peer's mistakes are no failures of the server


async def _send_in_pieces(peer: Peer, data: bytes, size: int) -> None:
    try:
        for at in range(0, len(data), size):
            await peer.stream.send_all(data[at : at + size])
    except trio.BrokenResourceError:
        pass  # It had seen enough.


@pytest.mark.parametrize(
    ("encoding", "opcode", "payload"),
    [
        ("bare", TEXT, ECHO),
        ("bare", TEXT, b"x"),
        ("bare", BINARY, b""),
        ("bare", BINARY, b"\x04\x00\xff\xff\xff"),
        ("bare", BINARY, b"\xff" * 300),
        ("cbor", TEXT, ECHO),
        ("cbor", BINARY, b"\xff\xff"),
        ("cbor", BINARY, b"\x9f" * 3000),
        ("json", BINARY, b"\x81\xff"),
    ],
)
async def test_a_message_of_another_encoding_ends_its_connection(encoding: str, opcode: int, payload: bytes) -> None:
    async with running(limits=LIMITS) as server, unharmed(server):
        peer = await Peer(await dial(server.port)).open(to("/connect"), encoding)
        await peer.frame()  # Init
        await peer.send(opcode, payload)
        assert await peer.closed() == (1011, "actor.invalid_request")
        await peer.stream.aclose()


async def test_an_encoding_that_is_none_is_refused() -> None:
    async with running() as server, unharmed(server):
        peer = await Peer(await dial(server.port)).open(to("/connect"), "morse")
        assert await peer.closed() == (1003, "actor.unsupported_websocket_encoding")
        await peer.stream.aclose()


@pytest.mark.parametrize(
    ("name", "args", "code"),
    [
        ("nonsense", [], "actor.action_not_found"),
        ("__init__", [], "actor.action_not_found"),
        ("", [], "actor.action_not_found"),
        ("echo", [], "actor.validation_error"),
        ("echo", [7], "actor.validation_error"),
        ("tick", ["many"], "actor.validation_error"),
        ("fail", [], "user.my_code"),
        ("sendTo", ["nobody", 1, 1], "rivetkit.internal_error"),
    ],
)
async def test_a_wrong_call_is_answered_and_its_connection_lives(name: str, args: list[object], code: str) -> None:
    async with running() as server, unharmed(server):
        peer = await connect(server)
        await peer.act(name, *args)
        tag, val = await peer.message()
        assert (tag, f"{val['group']}.{val['code']}") == ("Error", code)
        assert await peer.call("echo", "still here") == "still here"
        await peer.stream.aclose()


# -- floods -----------------------------------------------------------------------------------------------------------


async def test_pings_are_answered_in_order_however_many() -> None:
    async with running() as server, unharmed(server):
        peer = await connect(server)
        count = 5000

        async def send() -> None:
            pings = [client_frame(PING, str(number).encode()) for number in range(count)]
            for at in range(0, count, 500):
                await peer.stream.send_all(b"".join(pings[at : at + 500]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            for number in range(count):
                assert await peer.frame() == Frame(PONG, str(number).encode())
        assert await peer.call("echo", "still here") == "still here"
        await peer.stream.aclose()


async def _flood(peer: Peer, frames: bytes) -> None:
    try:
        while True:
            await peer.stream.send_all(frames)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


@pytest.mark.parametrize(
    ("rest", "frames"),
    [
        pytest.param("/connect", client_frame(PING, b"x" * 125) * 100, id="pings"),
        pytest.param("/connect", client_frame(TEXT, ECHO) * 100, id="calls"),
        pytest.param("/connect", client_frame(TEXT, action_request(1, "nonsense", [])) * 100, id="wrong calls"),
    ],
)
async def test_one_that_asks_without_reading_is_cut_off(rest: str, frames: bytes) -> None:
    limits = Limits(outbox_hard_bytes=256 * 1024, close_timeout=0.2)
    async with running(limits=limits, send_buffer=4096) as server, unharmed(server) as innocent:
        peer = await Peer(await dial(server.port, receive_buffer=4096)).open(to(rest))
        with trio.fail_after(PATIENCE):
            await _flood(peer, frames)
        assert innocent.longest < STARVED
        await peer.stream.aclose()


async def test_one_that_pings_a_raw_socket_without_reading_gets_no_more_pongs_than_fit() -> None:
    async with running(send_buffer=4096) as server, unharmed(server):
        peer = await Peer(await dial(server.port, receive_buffer=4096)).open(to("/websocket/"))
        for _ in range(100):
            await peer.stream.send_all(client_frame(PING, b"x" * 125) * 100)
        await peer.send(TEXT, b"are you there?")
        frames = 0
        while (frame := await peer.frame()).opcode == PONG:
            assert frame.payload == b"x" * 125
            frames += 1
        assert frame == Frame(TEXT, b"are you there?")
        assert frames < 10_000
        await peer.send(CLOSE, close_payload(1000))
        assert await peer.closed(answer=False) == (1000, "")
        await peer.stream.aclose()


async def test_far_too_many_unanswered_calls_are_refused_one_by_one() -> None:
    async with running(limits=Limits(unanswered_calls=10)) as server, unharmed(server):
        peer = await connect(server)
        await peer.stream.send_all(b"".join(client_frame(TEXT, action_request(n, "echo", ["x"])) for n in range(500)))
        answers: dict[int, str] = {}
        for _ in range(500):
            tag, val = await peer.message()
            call_id = int((val["id"] if tag == "ActionResponse" else val["actionId"])[1])
            assert call_id not in answers
            answers[call_id] = tag if tag == "ActionResponse" else f"{val['group']}.{val['code']}"
        assert set(answers.values()) <= {"ActionResponse", "actor.overloaded"}
        assert answers[0] == "ActionResponse"
        assert await peer.call("echo", "still here") == "still here"
        await peer.stream.aclose()


# -- endings ----------------------------------------------------------------------------------------------------------


async def _nothing(_: Peer) -> None:
    pass


async def _half_a_frame(peer: Peer) -> None:
    await peer.stream.send_all(client_frame(TEXT, ECHO)[:10])


async def _half_a_message(peer: Peer) -> None:
    await peer.send(TEXT, ECHO, fin=False)


async def _calls(peer: Peer) -> None:
    await peer.stream.send_all(client_frame(TEXT, ECHO) * 50)


async def _subscriptions(peer: Peer) -> None:
    await peer.stream.send_all(b"".join(client_frame(TEXT, subscription(f"event{n}")) for n in range(200)))


async def _a_close_frame(peer: Peer) -> None:
    await peer.send(CLOSE, close_payload(4321, b"because"))


async def _an_end_of_stream(peer: Peer) -> None:
    assert isinstance(peer.stream, trio.SocketStream)
    await peer.stream.send_eof()


@pytest.mark.parametrize("reset", [False, True], ids=["closing", "resetting"])
@pytest.mark.parametrize(
    "last", [_nothing, _half_a_frame, _half_a_message, _calls, _subscriptions, _a_close_frame, _an_end_of_stream]
)
@pytest.mark.parametrize("rest", ["/connect", "/websocket/"])
async def test_a_client_may_end_at_any_point(
    rest: str, last: Callable[[Peer], Any], reset: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as server, unharmed(server):
        for _ in range(5):
            stream = await dial(server.port)
            peer = await Peer(stream).open(to(rest))
            await last(peer)
            if reset:
                vanish(stream)
            await stream.aclose()
    assert logged(caplog.records) == []


async def test_a_close_frame_is_answered_after_what_came_before_it() -> None:
    async with running() as server, unharmed(server):
        peer = await connect(server)
        await peer.stream.send_all(
            client_frame(TEXT, action_request(1, "echo", ["last"])) + client_frame(CLOSE, close_payload(4321, b"bye"))
        )
        # The call may be answered or not; the close frame is the last one, and echoes the code.
        assert await peer.closed(answer=False) == (4321, "bye")
        await peer.stream.aclose()


async def test_what_follows_a_close_frame_has_no_effect() -> None:
    async with running() as server, unharmed(server):
        watcher = await (await connect(server)).subscribe("ticked")
        peer = await connect(server)
        await peer.stream.send_all(
            client_frame(CLOSE, close_payload(1000)) + client_frame(TEXT, action_request(1, "tick", [7])) * 10
        )
        try:
            await peer.closed(answer=False)
        except EndOfStream:  # reset, for bytes that it would not read
            pass
        assert await watcher.call("echo", "x") == "x"
        assert watcher.passed_over == []
        await peer.stream.aclose()
        await watcher.stream.aclose()
