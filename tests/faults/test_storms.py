"""Ten thousand connections that come and go leave nothing behind."""

import pytest
import trio

from tests.faults.support import (
    CLOSE,
    STARVED,
    TEXT,
    Peer,
    action_request,
    client_frame,
    close_payload,
    connect,
    dial,
    events_in,
    running,
    to,
    unharmed,
    upgrade,
    vanish,
)
from trivet import Limits, Server

CONNECTIONS = 10_000
AT_ONCE = 20


async def _come_and_go(server: Server, number: int) -> None:
    stream = await dial(server.port, remember=False)
    try:
        if number % 10 == 1:
            await stream.send_all(upgrade(to("/connect"))[: number % 200])
        elif number % 20 == 2:
            peer = await Peer(stream).open(to("/connect"))
            if number % 40 == 2:
                assert await (await peer.init()).call("echo", "hi") == "hi"
                await stream.send_all(client_frame(CLOSE, close_payload(1000)))
        elif number % 20 == 3:
            await stream.send_all(upgrade(to("/connect")) + client_frame(TEXT, action_request(1, "tick", [1])) * 3)
        elif number % 20 == 4:
            await stream.send_all(upgrade(to("/websocket/")) + client_frame(TEXT, b"hi"))
        elif number % 20 == 5:
            await stream.send_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
    except trio.BrokenResourceError:
        pass
    finally:
        if number % 50 != 2:  # A reset, mostly: ten thousand sockets in TIME_WAIT would be left otherwise.
            vanish(stream)
        await trio.aclose_forcefully(stream)


@pytest.mark.timeout(600)
async def test_ten_thousand_connections_that_come_and_go() -> None:
    # The witness is silent for as long as the storm lasts.
    limits = Limits(ping_interval=1000, ping_timeout=2000)
    async with running(limits=limits, within=590) as server:
        witness = await (await connect(server)).subscribe("ticked")
        async with unharmed(server) as innocent:
            numbers = iter(range(CONNECTIONS))

            async def storm() -> None:
                for number in numbers:
                    await _come_and_go(server, number)

            async with trio.open_nursery() as storms:
                for _ in range(AT_ONCE):
                    storms.start_soon(storm)
            calls = innocent.calls
            assert await witness.call("echo", "still here") == "still here"
            # Whatever calls came through were whole, and are seen by a bystander.
            assert events_in(witness.passed_over, "ticked") == [[1]] * len(witness.passed_over)
            assert calls > 10
            assert innocent.longest < STARVED
