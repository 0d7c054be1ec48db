"""A thousand connections get a hundred events each: none lost, doubled or out of order."""

import json
import resource

import pytest
import trio

from tests.faults.support import PING, PONG, TEXT, Frame, Peer, connect, dial, running, subscription, to
from trivet import Limits

CONNECTIONS = 1000
EVENTS = 100


@pytest.fixture
def _many_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard == resource.RLIM_INFINITY or hard >= 2 * CONNECTIONS + 200, "raise `ulimit -Hn` for this test"
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@pytest.mark.usefixtures("_many_files")
async def test_a_thousand_connections_see_every_event_once_in_order() -> None:
    # Pings would come in between where the machine has much else to do.
    async with running(limits=Limits(ping_interval=600, ping_timeout=600)) as server:
        peers: list[Peer] = []

        async def subscriber() -> None:
            peer = Peer(await dial(server.port))
            await (await peer.open(to("/connect"))).init()
            await peer.send(TEXT, subscription("ticked"))
            await peer.send(PING, b"subscribed")
            peers.append(peer)

        # In batches, so that the listener's backlog holds them.
        for _ in range(CONNECTIONS // 50):
            async with trio.open_nursery() as batch:
                for _ in range(50):
                    batch.start_soon(subscriber)
        for peer in peers:
            assert await peer.frame() == Frame(PONG, b"subscribed")
        assert server.statistics().host.connections == CONNECTIONS

        streams: list[bytes] = []
        everything = sum(len(frame) for frame in _expected())

        async def collect(peer: Peer) -> None:
            data = bytes(peer.frames.buffer)
            while len(data) < everything:
                piece = await peer.stream.receive_some()
                assert piece, "ended"
                data += piece
            # The answer to a ping comes after whatever else there is.
            await peer.send(PING, b"end")
            while not data.endswith(_pong(b"end")):
                piece = await peer.stream.receive_some()
                assert piece, "ended"
                data += piece
            streams.append(data)

        with trio.fail_after(90):
            async with trio.open_nursery() as nursery:
                for peer in peers:
                    nursery.start_soon(collect, peer)
                emitter = await connect(server)
                for number in range(30):  # one at a time
                    assert await emitter.call("tick", number) == number + 1
                calls = [await emitter.act("tick", number) for number in range(30, 50)]  # pipelined
                for call_id in calls:
                    await emitter.answer(call_id)
                assert await emitter.call("tick", 50, 30) == 80  # many in one turn
                assert await emitter.call("tickSlowly", 80, 20) == EVENTS  # with other tasks in between
                assert emitter.passed_over == []
        expected = b"".join(_expected()) + _pong(b"end")
        wrong = [stream for stream in streams if stream != expected]
        assert not wrong, f"{len(wrong)} connections saw something else, as {wrong[0][:200]!r}"


def _expected() -> list[bytes]:
    payloads = [
        json.dumps({"body": {"tag": "Event", "val": {"name": "ticked", "args": [number]}}}, separators=(",", ":"))
        for number in range(EVENTS)
    ]
    return [bytes([0x81, len(payload)]) + payload.encode() for payload in payloads]


def _pong(payload: bytes) -> bytes:
    return bytes([0x8A, len(payload)]) + payload
