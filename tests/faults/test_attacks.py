"""What somebody who means harm can do with few bytes, and what should come of it."""

import base64
import json
import sys
import time
from collections.abc import Callable
from typing import Any, Literal

import attrs
import pytest
import trio

from tests.faults.support import (
    CLOSE,
    CONTINUATION,
    LOCALHOST,
    PATIENCE,
    PING,
    PONG,
    TEXT,
    Peer,
    client_frame,
    close_payload,
    dial,
    read_all,
    running,
    to,
)
from trivet import Actor, Limits, Registry, Server, action
from trivet.client import open_client
from trivet.conversion import ValidationError
from trivet.definition import validation_error
from trivet.errors import ActorError, ConnectionLost
from trivet.protocol.cbor import write_head
from trivet.protocol.codec import codec_for
from trivet.runtime.answers import error_message
from trivet.server.incoming import IncomingMessages
from trivet.server.origins import Origins

LIMITS = Limits()


@attrs.frozen
class Number:
    """Counts how often one is made of what it was sent, which is never right."""

    tries = 0
    value: int

    def __attrs_post_init__(self) -> None:
        type(self).tries += 1
        raise ValueError("no number at all")


@attrs.frozen
class Negated:
    kind: Literal["negated"]
    inner: "Number | Negated | Absolute"


@attrs.frozen
class Absolute:
    kind: Literal["absolute"]
    inner: "Number | Negated | Absolute"


class Victim(Actor):
    @action
    def evaluate(self, expression: Number | Negated | Absolute) -> None: ...

    @action
    def sort(self, groups: dict[str, list[int]]) -> None: ...

    @action
    def unite(self, numbers: set[int]) -> int:
        return len(numbers)

    @action
    def count(self, numbers: dict[int, int]) -> int:
        return len(numbers)

    def on_disconnect(self, conn: object) -> None: ...

    @action
    def hello(self) -> None: ...

    @action(concurrent=True)
    async def linger(self) -> None:
        await trio.sleep_forever()

    @action
    async def wait(self, ballast: list[list[int]]) -> None:
        await trio.sleep_forever()

    @action
    def fail(self) -> None:
        raise RuntimeError("a private matter")


REGISTRY = Registry(Victim)


def to_victim(rest: str, key: str = "k") -> str:
    return to(rest, name="victim", key=key)


def bind(name: str, *args: Any) -> None:
    """What the server does with the arguments of a call, once they are decoded."""
    REGISTRY["victim"].actions[name].signature.bind(list(args))


async def answer_to(server: Server, data: bytes, *, end: bytes = b"") -> bytes:
    """What comes for these bytes until `end` has come, or the end of the connection."""
    stream = await dial(server.port)
    await stream.send_all(data)
    if not end:
        answer = await read_all(stream)
        await stream.aclose()
        return answer
    answer = b""
    with trio.move_on_after(PATIENCE):
        while end not in answer and (piece := await stream.receive_some()):
            answer += piece
    await stream.aclose()
    return answer


def request(method: str, target: str, *headers: str, body: bytes = b"", host: str = "127.0.0.1") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", "Connection: close", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


async def connect_to_victim(server: Server) -> Peer:
    return await (await Peer(await dial(server.port)).open(to_victim("/connect"))).init()


async def leave(peer: Peer) -> None:
    await peer.send(CLOSE, close_payload(1000))
    await peer.closed(answer=False)
    await peer.stream.aclose()


# -- little work for the peer, much for the server --------------------------------------------------------------------


def test_the_arms_of_a_union_are_not_tried_again_at_every_level() -> None:
    depth = 8
    expression: object = {"value": 1}
    for _ in range(depth):
        expression = {"kind": "absolute", "inner": expression}
    Number.tries = 0
    with pytest.raises(ValidationError):
        bind("evaluate", expression)
    assert Number.tries <= 4 * depth


def test_a_refusal_is_not_longer_than_what_it_refuses() -> None:
    # A key of 48 KB, named by each of the issues.
    with pytest.raises(ValidationError) as caught:
        bind("sort", {"\u00e9 " * 16_000: ["x"] * 20})
    codec = codec_for("json")
    assert codec is not None
    assert len(codec.encode_to_client(error_message(validation_error(caught.value), 1))) <= LIMITS.incoming_message


COLLIDING = [number * (2**61 - 1) for number in range(1, 3000)]
"""Python's hash of each of them is 0."""


@pytest.mark.parametrize(("name", "value"), [("unite", COLLIDING), ("count", {str(number): 1 for number in COLLIDING})])
def test_integers_with_one_hash_are_refused_however_a_set_or_dict_of_them_comes(name: str, value: object) -> None:
    with pytest.raises(ValidationError):
        bind(name, value)


def cpu(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def test_fragments_cost_the_same_after_a_long_message_as_after_a_short_one() -> None:
    fragments = client_frame(CONTINUATION, fin=False) * 5000

    def cost(message: str) -> float:
        incoming = IncomingMessages(LIMITS.raw_message)
        incoming.feed(client_frame(TEXT, message.encode(), fin=False))
        for _ in incoming.events():
            pass
        incoming.feed(fragments)
        return cpu(lambda: sum(1 for _ in incoming.events()))

    assert cost("😀" + "x" * (16 << 20)) < 3 * cost("x") + 1.0  # were each to copy what has come, it would be a minute


def empty_arrays(count: int) -> bytes:
    out = bytearray()
    write_head(out, 0x80, count)
    return bytes(out) + b"\x80" * count


def creation(name: str, cbor: bytes) -> bytes:
    body = {"name": name, "key": "k", "input": base64.b64encode(cbor).decode()}
    return request("PUT", "/actors?namespace=default", body=json.dumps(body).encode())


async def test_the_input_of_an_actor_that_cannot_be_is_not_decoded() -> None:
    async with running(REGISTRY) as server:
        assert b"actor.not_registered" in await answer_to(server, creation("nobody", b"\xff"))


async def test_a_large_input_keeps_nobody_waiting() -> None:
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            began = time.monotonic()
            await trio.sleep(0.001)
            longest = max(longest, time.monotonic() - began)

    async with running(REGISTRY) as server, trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        began = time.monotonic()
        await answer_to(server, creation("victim", empty_arrays(1 << 19)))
        took = time.monotonic() - began
        nursery.cancel_scope.cancel()
    # Nearly all of the time is that of decoding. Both are longer on a slow machine.
    assert longest < took / 2


# -- little memory for the peer, much for the server ------------------------------------------------------------------


async def test_what_waits_for_the_turn_is_bounded_in_size() -> None:
    # 7.5 MiB on the wire are 160 MiB of lists, for each connection.
    async with running(REGISTRY) as server:
        peer = await connect_to_victim(server)
        before = sys.getallocatedblocks()
        ballast = b"[" + b"[]," * 20_000 + b"[]]"
        for number in range(128):
            call = b'{"body":{"tag":"ActionRequest","val":{"id":%d,"name":"wait","args":[%s]}}}' % (number, ballast)
            await peer.send(TEXT, call)
        await peer.send(PING)
        while (await peer.frame()).opcode != PONG:
            pass
        assert sys.getallocatedblocks() - before < 500_000


async def test_connections_that_came_and_went_take_no_place_of_calls() -> None:
    async with running(REGISTRY, Limits(inbox=16)) as server:
        await (await connect_to_victim(server)).act("wait", [])
        for _ in range(20):
            await leave(await connect_to_victim(server))
        peer = await connect_to_victim(server)
        await peer.act("hello")
        await peer.send(PING)
        assert (await peer.frame()).opcode == PONG  # and not an Error, actor.overloaded


async def test_concurrent_calls_are_bounded_also_when_their_connections_have_left() -> None:
    limits = Limits(inbox=16, unanswered_calls=8)
    async with running(REGISTRY, limits) as server:
        tasks = trio.lowlevel.current_statistics().tasks_living
        for _ in range(10):
            peer = await connect_to_victim(server)
            for _ in range(limits.unanswered_calls):
                await peer.act("linger")
            await leave(peer)
        assert trio.lowlevel.current_statistics().tasks_living - tasks < 2 * limits.inbox


async def test_no_body_is_gathered_for_an_actor_that_is_not_there() -> None:
    async with running(REGISTRY) as server:
        head = request("POST", to("/request/x", name="nobody"), f"Content-Length: {LIMITS.http_body}")
        assert b"actor.not_registered" in await answer_to(server, head, end=b"\r\n\r\n")


async def test_the_name_of_a_namespace_is_bounded() -> None:
    async with running(REGISTRY) as server:
        body = b'{"name":"victim","key":"k"}'
        target = "/actors?namespace=" + "n" * 15_000
        assert (await answer_to(server, request("PUT", target, body=body))).startswith(b"HTTP/1.1 400 ")
        assert not server.host.instances()


async def test_two_namespaces_that_are_not_utf_8_are_not_one() -> None:
    async with running(REGISTRY) as server:
        for namespace in ("%FF", "%FE"):
            body = b'{"name":"victim","key":"k"}'
            answer = await answer_to(server, request("PUT", f"/actors?namespace={namespace}", body=body))
            assert answer.startswith(b"HTTP/1.1 400 ")


# -- pages of other sites ---------------------------------------------------------------------------------------------


async def test_a_name_that_leads_to_this_machine_by_dns_is_not_its_own_origin() -> None:
    # The page's own server has answered with an address of its own first, and with 127.0.0.1 then.
    async with running(REGISTRY) as server:
        host = f"rebound.example:{server.port}"
        data = request("GET", to_victim("/health"), f"Origin: http://{host}", host=host)
        assert (await answer_to(server, data)).startswith(b"HTTP/1.1 403 ")
        assert not server.host.instances()


@pytest.mark.parametrize("origin", ["http://[::1]evil.example", "http://evil.example[::1]"])
def test_what_is_around_an_address_in_brackets_is_part_of_the_host(origin: str) -> None:
    assert not Origins().allows(origin, "127.0.0.1")


async def test_an_image_of_another_site_creates_no_actor() -> None:
    # Browsers send no Origin with it.
    async with running(REGISTRY) as server:
        headers = ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image")
        data = request("GET", to_victim("/health"), *headers, host=f"{LOCALHOST}:{server.port}")
        assert (await answer_to(server, data)).startswith(b"HTTP/1.1 403 ")
        assert not server.host.instances()


# -- HTTP -------------------------------------------------------------------------------------------------------------


async def test_a_request_with_two_framings_is_the_last_of_its_connection() -> None:
    # RFC 9112 section 6.1: what follows may be a request that some proxy before the server took for a body.
    async with running(REGISTRY) as server:
        data = (
            b"POST /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"0\r\n\r\n"
            b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        assert b"/smuggled" not in await answer_to(server, data)


async def test_a_raw_request_to_connect_is_answered() -> None:
    async with running() as server:
        assert (await answer_to(server, request("CONNECT", to("/request/x")))).startswith(b"HTTP/1.1 ")


@pytest.mark.parametrize("key", ["%20", "a%20"])
async def test_a_key_may_end_with_a_space(key: str) -> None:
    async with running(REGISTRY) as server:
        answer = await answer_to(server, request("GET", to_victim("/health", key)))
        assert answer.startswith(b"HTTP/1.1 200 ")


async def test_a_key_stays_in_its_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with running(REGISTRY) as server:
        data = request("POST", to_victim("/action/fail", "x%0Aforged%1B%5B2J"), body=b'{"args":[]}')
        assert b"internal_error" in await answer_to(server, data)
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.getMessage().isprintable()


# -- a server that means harm -----------------------------------------------------------------------------------------


async def _answer(stream: trio.abc.Stream, metadata: bytes, result: bytes) -> None:
    received = b""
    while True:
        while b"\r\n\r\n" not in received:
            piece = await stream.receive_some()
            if not piece:
                return
            received += piece
        body = metadata if b"/metadata?" in received else result
        content = b"application/json" if b"/metadata?" in received else b"application/octet-stream"
        received = b""
        await stream.send_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s" % (content, len(body), body)
        )


async def call_of(nursery: trio.Nursery, metadata: object, result: bytes = b"") -> object:
    async def serve(stream: trio.abc.Stream) -> None:
        try:
            await _answer(stream, json.dumps(metadata).encode(), result)
        except trio.BrokenResourceError:
            pass  # The client has had enough.

    async def listen(*, task_status: trio.TaskStatus[int]) -> None:
        listeners = await trio.open_tcp_listeners(0, host=LOCALHOST)
        task_status.started(listeners[0].socket.getsockname()[1])
        await trio.serve_listeners(serve, listeners)

    port: int = await nursery.start(listen)
    limits = Limits(connect_timeout=0.1)
    async with open_client(f"http://{LOCALHOST}:{port}", encoding="cbor", limits=limits) as client:
        return await client.get("room", "k").call("anything")


@pytest.mark.parametrize(
    "endpoint", ["ftp://elsewhere", "http://elsewhere:99999", "http://[::1", "http://127.0.0.1:1/x?y=1", "javascript:0"]
)
async def test_an_endpoint_that_is_none_is_a_server_that_was_not_found(nursery: trio.Nursery, endpoint: str) -> None:
    with pytest.raises(ConnectionLost):
        await call_of(nursery, {"clientEndpoint": endpoint})


async def test_a_result_that_no_server_may_send_is_not_decoded(nursery: trio.Nursery) -> None:
    result = b"\xa1\x66output" + empty_arrays(2 * LIMITS.outgoing_message)
    with pytest.raises(ActorError) as caught:
        await call_of(nursery, {}, result)
    assert caught.value.code == "outgoing_too_long"
