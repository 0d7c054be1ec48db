"""Whatever a server sends, a client says what went wrong, in its own errors, in time, and leaves nothing behind."""

from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from random import Random
from typing import Any

import attrs
import trio
import trio.testing

from tests.fuzz.hostile import Answers, answers
from tests.fuzz.search import search, without_one
from tests.fuzz.world import no_failure_is_logged
from trivet import Limits
from trivet.client import open_client
from trivet.client.handle import Handle
from trivet.errors import ActorError, TrivetError
from trivet.protocol.codec import ENCODINGS, Encoding
from trivet.testing.network import Link, MemoryStream
from trivet.testing.scheduling import seed_scheduler

LIMITS = Limits(
    action_timeout=20, connect_timeout=10, close_timeout=2, ping_interval=20, ping_timeout=40, outgoing_message=2048
)

PLAIN = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"

IN_TIME = 400.0
"""Virtual seconds: every deadline of everything that the client tries, one after the other."""


@attrs.frozen
class Plan:
    encoding: Encoding
    schedule: int
    piece: int


def planned(r: Random) -> Sequence[Answers | Plan]:
    encoding = r.choice(ENCODINGS)
    plan = Plan(encoding, r.randrange(1 << 32), 65536 if r.randrange(10) else 500)
    return [plan, *(answers(r, encoding) for _ in range(r.randint(1, 5)))]


def smaller(part: Answers | Plan) -> Generator[Answers | Plan]:
    if isinstance(part, Answers):
        for steps in without_one(part.steps):
            yield attrs.evolve(part, steps=steps)


class Server:
    """Behaves on each connection as the next answers say; once there are none, nobody listens."""

    def __init__(self, parts: Iterable[Answers], piece: int, nursery: trio.Nursery) -> None:
        self._parts = list(parts)
        self._piece = piece
        self._nursery = nursery
        self._said_where = False
        self.links: list[Link] = []

    async def connect(self, host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if not self._parts:
            raise ConnectionRefusedError("nobody listens")
        link = Link("server")
        link.partial_writes(self._piece)
        ours, theirs = link.open_pair()
        self.links.append(link)
        self._nursery.start_soon(self._serve, theirs, link)
        return ours

    async def _serve(self, stream: MemoryStream, link: Link) -> None:
        part: Answers | None = None
        try:
            while True:
                head = b""
                while b"\r\n\r\n" not in head:
                    data = await stream.receive_some()
                    if not data:
                        return
                    head += data
                if part is None:
                    part = self._parts.pop(0) if self._parts else None
                if part is None:
                    return
                if head.startswith(b"GET /metadata"):
                    # A client may ask again and again, which is not what is looked at here.
                    await stream.send_all(PLAIN if self._said_where else part.metadata)
                    self._said_where = True
                elif b"upgrade: websocket" in head.lower():
                    await self._speak(stream, link, part, head)
                    return
                else:
                    await stream.send_all(part.response)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            stream.close()

    async def _speak(self, stream: MemoryStream, link: Link, part: Answers, head: bytes) -> None:
        await stream.send_all(part.accept(head))
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                try:
                    while await stream.receive_some():
                        pass
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass
                nursery.cancel_scope.cancel()

            nursery.start_soon(listen)
            try:
                for step in part.steps:
                    if isinstance(step, bytes):
                        await stream.send_all(step)
                    else:
                        await trio.sleep(step)
            except trio.BrokenResourceError:
                pass  # the client has had enough
            if part.ending == "silent":
                await trio.sleep(100)
            if part.ending == "break":
                link.break_()
            nursery.cancel_scope.cancel()


async def _use(name: str, what: Callable[[], Awaitable[object]], outcomes: Counter[str]) -> None:
    """Nothing but trivet's own errors may come out."""
    try:
        await what()
    except ActorError as error:
        outcomes[f"{name} ActorError {error.group[:20]}.{error.code[:20]}"] += 1
    except TrivetError as error:
        outcomes[f"{name} {type(error).__name__}"] += 1
    else:
        outcomes[f"{name} worked"] += 1


async def _live(handle: Handle[Any], outcomes: Counter[str]) -> None:
    """All that a connection is used for."""
    connection = handle.connect()
    connection.on("ticked", lambda *args: outcomes.update(["listener"]))
    connection.once("filled", lambda *args: outcomes.update(["listener once"]))
    connection.on_error(lambda error: outcomes.update([f"on_error {type(error).__name__}"]))
    connection.on_close(lambda closed: outcomes.update([f"on_close {closed.code}"]))
    connection.on_open(lambda: outcomes.update(["on_open"]))

    async with connection as room:

        async def listen() -> None:
            async with room.events("filled") as events:
                async for _ in events:
                    outcomes["event"] += 1

        async def call() -> None:
            await room.call("echo", "hi")

        with trio.move_on_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_use, "events", listen, outcomes)
                for _ in range(3):
                    nursery.start_soon(_use, "call", call, outcomes)
                await trio.sleep(5)
                nursery.start_soon(_use, "call", call, outcomes)


async def _visit(parts: Sequence[Answers], plan: Plan) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    async with trio.open_nursery() as nursery:
        await trio.testing.wait_all_tasks_blocked()
        before = trio.lowlevel.current_statistics().tasks_living
        server = Server(parts, plan.piece, nursery)
        with trio.fail_after(IN_TIME):
            opened = open_client("http://server:1", encoding=plan.encoding, limits=LIMITS, connect=server.connect)
            async with opened as client:
                handle = client.get_or_create("room", "k")
                await _use("connection", lambda: _live(handle, outcomes), outcomes)
                await _use("stateless", lambda: handle.call("echo", "hi"), outcomes)
                await _use("resolve", handle.resolve, outcomes)
                await _use("fetch", lambda: handle.fetch("/x"), outcomes)

                async def raw() -> None:
                    async with handle.websocket("/x") as websocket:
                        with trio.move_on_after(10):
                            await websocket.receive()

                await _use("raw", raw, outcomes)
        await trio.sleep(200)  # what the server still says, it says to nobody
        assert not any(link.open_streams for link in server.links)
        assert trio.lowlevel.current_statistics().tasks_living == before
    return outcomes


def attempt(parts: Sequence[Answers | Plan]) -> Iterable[str]:
    plan = next((part for part in parts if isinstance(part, Plan)), Plan("json", 0, 65536))
    behaviours = [part for part in parts if isinstance(part, Answers)]
    seed_scheduler(plan.schedule)
    with no_failure_is_logged():
        return trio.run(_visit, behaviours, plan, clock=trio.testing.MockClock(autojump_threshold=0)).elements()


def test_a_client_of_a_hostile_server() -> None:
    seen = search("client", 50, planned, attempt, smaller)
    for name in ("connection", "stateless", "resolve", "fetch", "raw", "call"):
        assert f"{name} worked" in seen
        assert len([outcome for outcome in seen if outcome.startswith(f"{name} ")]) >= 2
    assert {"listener", "listener once", "event", "on_open", "events Gap", "on_error DecodeError"} <= seen.keys()
    assert len(seen) >= 35
