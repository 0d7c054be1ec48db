"""What a client saw is durable: servers that are killed under load, and disks that fill up."""

import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import attrs
import pytest
import trio

from tests.faults.ledger import Ledger, Page
from trivet import Client, TrivetError, open_client

ROOT: Final = Path(__file__).parent.parent.parent
LONG: Final = os.environ.get("TRIVET_LONG") == "1"
KILLS: Final = int(os.environ.get("TRIVET_KILLS", 200 if LONG else 5))
SEED: Final = int(os.environ.get("TRIVET_SEED", "0"))
PATIENCE: Final = 3600 if LONG else 120

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits of POSIX")

LEDGERS: Final = 3
LISTENERS: Final = 2
WRITERS: Final = 2


@attrs.define
class Seen:
    """What clients saw of one ledger until the server was killed."""

    key: str
    events: list[list[tuple[int, str]]] = attrs.field(factory=list[list[tuple[int, str]]])
    """Of each connection that listened."""
    answers: list[tuple[int, str]] = attrs.field(factory=list[tuple[int, str]])
    plans: list[str] = attrs.field(factory=list[str])
    connections: list[str] = attrs.field(factory=list[str])
    asked: int = 0

    @property
    def size(self) -> int:
        return sum(map(len, self.events)) + len(self.answers) + len(self.plans) + len(self.connections)


@asynccontextmanager
async def server(directory: Path) -> AsyncGenerator[tuple[trio.Process, str]]:
    """`trivet serve` in a process of its own, and its address."""
    command = [sys.executable, "-m", "trivet", "serve", "tests.faults.ledger:registry"]
    options = ["--data", str(directory), "--port", "0", "--log-level", "error"]
    process = await trio.lowlevel.open_process([*command, *options], stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    try:
        line = b""
        while not line.endswith(b"\n"):
            piece = await process.stdout.receive_some()
            assert piece, "the server did not start"
            line += piece
        yield process, line.decode().split()[-1]
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stdout.aclose()


async def listen(client: Client, seen: Seen, ready: trio.Event) -> None:
    """Note every event, until the connection is lost."""
    events: list[tuple[int, str]] = []
    lost = trio.Event()
    connection = client.get_or_create(Ledger, seen.key).connect(reconnect=False)
    connection.on(Ledger.written, lambda number, text: events.append((number, text)))
    connection.on_close(lambda _: lost.set())
    try:
        async with connection:
            assert connection.conn_id is not None
            seen.events.append(events)
            seen.connections.append(connection.conn_id)
            ready.set()
            await lost.wait()
    except (TrivetError, OSError):
        pass  # it was killed while this one came or went
    finally:
        ready.set()


async def write(client: Client, seen: Seen, name: str, generator: random.Random) -> None:
    """Write down what was answered, until the server is gone."""
    handle = client.get_or_create(Ledger, seen.key)
    try:
        async with handle.connect(reconnect=False) as room:
            assert room.conn_id is not None
            seen.connections.append(room.conn_id)
            while True:
                seen.asked += 1
                text = f"{name} {seen.asked}"
                match generator.randrange(8):
                    case 0:
                        await room.call(Ledger.plan, generator.choice((0, 0.02, 0.2)), text)
                        seen.plans.append(text)
                    case 1:
                        first, second = await room.call(Ledger.write_twice, text)
                        seen.answers += [(first, f"{text}, first"), (second, f"{text}, second")]
                    case 2:
                        seen.answers.append((await room.call(Ledger.write_beside, text), text))
                    case 3 | 4:
                        seen.answers.append((await handle.call(Ledger.write, text), text))
                    case _:
                        seen.answers.append((await room.call(Ledger.write, text), text))
    except (TrivetError, OSError):
        pass


async def load(url: str, round_: int, generator: random.Random, process: trio.Process) -> list[Seen]:
    """Clients at work, and the server killed in the middle of it."""
    ledgers = [Seen(f"round {round_}, {number}") for number in range(LEDGERS)]
    async with open_client(url) as client:
        async with trio.open_nursery() as nursery:
            for seen in ledgers:
                for _ in range(LISTENERS):
                    ready = trio.Event()
                    nursery.start_soon(listen, client, seen, ready)
                    await ready.wait()
                await client.get_or_create(Ledger, seen.key).call(Ledger.tick, 0.03)
                for number in range(WRITERS):
                    nursery.start_soon(write, client, seen, f"writer {number}", random.Random(generator.random()))
            await trio.sleep(generator.uniform(0.0, 0.5))
            process.kill()
    return ledgers


def verify(seen: Seen, page: Page) -> None:
    """Everything that was seen is remembered, in its place and order; all else happened once."""
    lines = dict(enumerate(page.lines))
    for events in seen.events:
        numbers = [number for number, _ in events]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True
        for number, text in events:
            assert lines.get(number) == text, f"{seen.key}: a client saw {text!r}"
    for number, text in seen.answers:
        assert lines.get(number) == text, f"{seen.key}: a client was answered {text!r}"
    written = Counter(line for line in page.lines if not line.startswith("tick"))
    assert [line for line, count in written.items() if count > 1] == []
    assert [text for text in seen.plans if written[text] != 1] == []
    # Every connection that a client had, once; of those which nobody was told of, none is left behind.
    came, left = Counter(page.came), Counter(page.left)
    assert [id_ for id_ in seen.connections if came[id_] != 1] == []
    assert came == left
    assert page.lives > 1


async def page_of(client: Client, key: str) -> Page:
    """What a ledger remembers once it has done what was due."""
    handle = client.get_or_create(Ledger, key)
    while True:
        page = await handle.call(Ledger.page)
        if not page.planned and len(page.came) == len(page.left):
            return page
        await trio.sleep(0.02)


async def goes_on(client: Client, key: str, lines: int) -> None:
    """Wait until its schedule has written another line."""
    while True:
        page = await page_of(client, key)
        if len(page.lines) > lines:
            return
        await trio.sleep(0.01)


@pytest.mark.timeout(PATIENCE + 60)
async def test_after_a_kill_nothing_is_missing_that_a_client_saw(tmp_path: Path) -> None:
    generator = random.Random(SEED)
    seen: list[Seen] = []
    things = 0
    with trio.fail_after(PATIENCE):
        for kill in range(KILLS + 1):
            async with server(tmp_path) as (process, url):
                async with open_client(url) as client:
                    for one in seen:
                        page = await page_of(client, one.key)
                        verify(one, page)
                        await goes_on(client, one.key, len(page.lines))
                        await client.get_or_create(Ledger, one.key).call(Ledger.rest)
                if kill == KILLS:
                    break
                seen = await load(url, kill, generator, process)
                things += sum(one.size for one in seen)
    print(f"across {KILLS} kills, clients saw {things} things, all of which the restarted actors remember")
    assert things > KILLS
