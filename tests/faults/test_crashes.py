"""What raises in an actor's code is logged and answered, and stays there."""

from collections.abc import Awaitable

import attrs
import pytest
import trio

from tests.faults.support import (
    TEXT,
    Peer,
    Room,
    dial,
    logged,
    read_all,
    running,
    subscription,
    to,
    unharmed,
    until,
)
from trivet import Actor, Conn, Event, Registry, Request, Response, WebSocket, action

SECRET = "the password is swordfish"

ERRORS: dict[str, Exception] = {
    "an error": RuntimeError(SECRET),
    "a group": ExceptionGroup("several", [RuntimeError(SECRET), ValueError("another")]),
    "a group of one": ExceptionGroup("one", [KeyError(SECRET)]),
}


class Fuse:
    """Where the next actor shall break, and with what."""

    place = ""
    error: Exception = RuntimeError()

    @classmethod
    def burn(cls, place: str) -> None:
        if cls.place == place:
            raise cls.error


class Unencodable:
    """Has no encoding once the fuse is set."""


@attrs.define
class State:
    value: object = 0

    def __attrs_post_init__(self) -> None:
        Fuse.burn("the state's constructor")


@attrs.define
class ConnState:
    number: int = 0

    def __attrs_post_init__(self) -> None:
        Fuse.burn("the connection state's constructor")


class Fragile(Actor[State, ConnState, object]):
    """Breaks at one place."""

    said = Event(str)
    numbers = Event(int)

    def __init__(self) -> None:
        Fuse.burn("the constructor")

    def on_migrate(self, is_new: bool) -> None:
        Fuse.burn("on_migrate")

    async def on_create(self, input: object) -> None:
        Fuse.burn("on_create")

    def on_wake(self) -> None:
        Fuse.burn("on_wake")
        self.start_soon(self.background)

    async def background(self) -> None:
        await trio.lowlevel.checkpoint()
        Fuse.burn("background")

    async def run(self) -> None:
        await trio.lowlevel.checkpoint()
        Fuse.burn("run")

    def on_before_connect(self, params: object) -> None:
        Fuse.burn("on_before_connect")

    async def on_connect(self, conn: Conn[ConnState, object]) -> None:
        Fuse.burn("on_connect")

    def on_disconnect(self, conn: Conn[ConnState, object]) -> Awaitable[None] | None:
        Fuse.burn("on_disconnect")
        return None

    def on_state_change(self) -> None:
        Fuse.burn("on_state_change")

    def on_before_action_response(self, name: str, args: list[object], output: object) -> object:
        Fuse.burn("on_before_action_response")
        return output

    @said.can_subscribe
    async def may_hear(self, conn: object) -> bool:
        Fuse.burn("can_subscribe")
        return True

    @action
    def touch(self) -> str:
        self.state.value = Unencodable() if Fuse.place == "the state's encoding" else id(object())
        Fuse.burn("a sync action")
        return "touched"

    @action
    async def wait(self) -> str:
        await trio.lowlevel.checkpoint()
        Fuse.burn("an async action")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.burn_in_a_nursery)
        return "waited"

    async def burn_in_a_nursery(self) -> None:
        Fuse.burn("a nursery in an action")

    @action(concurrent=True)
    async def overlap(self) -> str:
        await trio.lowlevel.checkpoint()
        Fuse.burn("a concurrent action")
        return "overlapped"

    @action
    def emit(self) -> str:
        if Fuse.place == "an event's type":
            self.broadcast("numbers", "no number")
        self.broadcast(self.numbers, 1)
        return "emitted"

    @action
    def where_it_goes(self) -> int:
        return self.broadcast(self.numbers, 1, where=self._chosen).recipients

    def _chosen(self, conn: Conn[ConnState, object]) -> bool:
        Fuse.burn("where")
        return True

    async def on_request(self, request: Request) -> Response:
        Fuse.burn("on_request")
        return Response("fine")

    async def on_websocket(self, websocket: WebSocket) -> None:
        Fuse.burn("on_websocket")
        async for message in websocket:
            await websocket.send(message)


REGISTRY = Registry(Fragile, Room)

INTERNAL = "rivetkit.internal_error"

ACTIONS = {
    "a sync action": "touch",
    "an async action": "wait",
    "a nursery in an action": "wait",
    "a concurrent action": "overlap",
    "on_before_action_response": "touch",
    "where": "whereItGoes",
}
ADMISSION = ["on_before_connect", "the connection state's constructor", "on_connect"]
STARTS = ["the constructor", "the state's constructor", "on_migrate", "on_create", "on_wake"]
UNANSWERED = ["run", "background", "on_state_change", "the state's encoding", "on_disconnect"]


@pytest.fixture(autouse=True)
def _no_fuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fuse, "place", "")


@pytest.fixture(params=list(ERRORS.values()), ids=list(ERRORS))
def error(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Exception:
    error = request.param
    assert isinstance(error, Exception)
    monkeypatch.setattr(Fuse, "error", error)
    return error


async def open_fragile(port: int, key: str = "k") -> Peer:
    return await Peer(await dial(port)).open(to("/connect", "fragile", key))


async def error_of(peer: Peer) -> str:
    """The error that comes next."""
    tag, val = await peer.message()
    assert tag == "Error", (tag, val)
    assert SECRET not in str(val)
    return f"{val['group']}.{val['code']}"


async def post(port: int, rest: str) -> bytes:
    stream = await dial(port)
    head = (
        f"POST {to(rest, 'fragile')} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{{}}"
    )
    await stream.send_all(head.encode())
    answer = await read_all(stream)
    await stream.aclose()
    assert SECRET.encode() not in answer
    return answer


def log_names(caplog: pytest.LogCaptureFixture, error: Exception) -> None:
    """One failure was logged, with its text and the actor that it happened to."""
    lines = logged(caplog.records)
    assert any("fragile[k]" in line and repr(error) in line for line in lines), lines
    assert not any("crashed" in line for line in lines), lines


@pytest.mark.parametrize("place", ACTIONS)
async def test_an_action_that_raises_is_answered_and_its_connection_lives(
    place: str, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(REGISTRY) as server, unharmed(server):
        bystander = await (await open_fragile(server.port)).init()
        peer = await (await open_fragile(server.port)).init()
        for each in (bystander, peer):
            await each.send(TEXT, subscription("numbers"))
            assert await each.call("emit") == "emitted"
        Fuse.place = place
        await peer.act(ACTIONS[place])
        while (tag_val := await peer.message())[0] == "Event":
            pass
        tag, val = tag_val
        assert (tag, val["group"], val["code"]) == ("Error", "rivetkit", "internal_error")
        assert SECRET not in str(val)
        answer = await post(server.port, f"/action/{ACTIONS[place]}")
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert b'"internal_error"' in answer
        log_names(caplog, error)
        Fuse.place = ""
        for each in (peer, bystander):
            assert await each.call(ACTIONS[place])
            await each.stream.aclose()


@pytest.mark.parametrize("place", ADMISSION)
async def test_an_admission_that_raises_refuses_that_connection_alone(
    place: str, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(REGISTRY) as server, unharmed(server):
        bystander = await (await open_fragile(server.port)).init()
        Fuse.place = place
        refused = await open_fragile(server.port)
        assert await error_of(refused) == INTERNAL
        assert await refused.closed() == (1011, INTERNAL)
        await refused.stream.aclose()
        for rest in ("/action/touch", "/request/x"):
            assert (await post(server.port, rest)).startswith(b"HTTP/1.1 500 ")
        raw = await Peer(await dial(server.port)).open(to("/websocket/", "fragile"))
        code, reason = await raw.closed()
        assert (code, reason.partition("#")[0]) == (1011, INTERNAL)
        await raw.stream.aclose()
        log_names(caplog, error)
        Fuse.place = ""
        assert await bystander.call("touch") == "touched"
        admitted = await (await open_fragile(server.port)).init()
        for each in (bystander, admitted):
            await each.stream.aclose()


@pytest.mark.parametrize("place", STARTS)
async def test_an_actor_that_cannot_start_is_answered_and_may_start_the_next_time(
    place: str, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(REGISTRY) as server, unharmed(server):
        Fuse.place = place
        assert (await post(server.port, "/action/touch")).startswith(b"HTTP/1.1 500 ")
        refused = await open_fragile(server.port)
        code, reason = await refused.closed()
        assert (code, reason.partition("#")[0]) == (1011, INTERNAL)
        await refused.stream.aclose()
        log_names(caplog, error)
        Fuse.place = ""
        peer = await (await open_fragile(server.port)).init()
        assert await peer.call("touch") == "touched"
        await peer.stream.aclose()


@pytest.mark.parametrize("place", UNANSWERED)
async def test_what_nobody_asked_for_is_logged_and_the_actor_lives_on(
    place: str, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(REGISTRY) as server, unharmed(server):
        Fuse.place = place
        peer = await (await open_fragile(server.port)).init()
        assert await peer.call("touch") == "touched"
        await peer.stream.aclose()
        await until(lambda: logged(caplog.records) != [])
        if place != "the state's encoding":
            assert any(repr(error) in line for line in logged(caplog.records))
        assert any("fragile[k]" in line or "Fragile" in line for line in logged(caplog.records))
        Fuse.place = ""
        another = await (await open_fragile(server.port)).init()
        assert await another.call("touch") == "touched"
        assert await another.call("wait") == "waited"
        await another.stream.aclose()


async def test_a_subscription_hook_that_raises_ends_that_connection(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(REGISTRY) as server, unharmed(server):
        bystander = await (await open_fragile(server.port)).init()
        await bystander.send(TEXT, subscription("said"))
        assert await bystander.call("touch") == "touched"
        Fuse.place = "can_subscribe"
        peer = await (await open_fragile(server.port)).init()
        await peer.send(TEXT, subscription("said"))
        assert await peer.closed() == (1011, INTERNAL)
        log_names(caplog, error)
        assert await bystander.call("touch") == "touched"
        for each in (peer, bystander):
            await each.stream.aclose()


async def test_a_raw_handler_that_raises_ends_what_it_handled(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(REGISTRY) as server, unharmed(server):
        Fuse.place = "on_request"
        assert (await post(server.port, "/request/x")).startswith(b"HTTP/1.1 500 ")
        log_names(caplog, error)
        caplog.clear()
        Fuse.place = "on_websocket"
        raw = await Peer(await dial(server.port)).open(to("/websocket/", "fragile"))
        code, reason = await raw.closed()
        assert (code, reason.partition("#")[0]) == (1011, INTERNAL)
        log_names(caplog, error)
        await raw.stream.aclose()
        Fuse.place = ""
        assert (await post(server.port, "/request/x")).endswith(b"fine")


async def test_an_event_of_the_wrong_type_is_the_emitters_mistake(caplog: pytest.LogCaptureFixture) -> None:
    async with running(REGISTRY) as server, unharmed(server):
        peer = await (await open_fragile(server.port)).init()
        await peer.send(TEXT, subscription("numbers"))
        Fuse.place = "an event's type"
        await peer.act("emit")
        assert await error_of(peer) == INTERNAL
        assert any("fragile[k]" in line for line in logged(caplog.records))
        Fuse.place = ""
        assert await peer.call("emit") == "emitted"
        assert [val["args"] for _, val in peer.passed_over] == [[1]]
        await peer.stream.aclose()
