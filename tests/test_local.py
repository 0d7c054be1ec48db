"""Actors and clients in one process."""

from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

import trivet
from trivet.actor import Actor, action
from trivet.errors import ActorError, ConnectionEnded, Lagged, UserError
from trivet.event import Event
from trivet.limits import Limits
from trivet.local import FORMAT, PIPE_SIZE, Pipe, open_local
from trivet.raw import Request, Response, WebSocket, WebSocketClosed
from trivet.registry import Registry
from trivet.testing import World


@attrs.frozen
class Message:
    user_id: str
    text: str


@attrs.define
class Params:
    user_id: str = "anonymous"


@attrs.define
class State:
    messages: list[Message] = attrs.field(factory=list[Message])


class ChatRoom(Actor[State, Params, Params]):
    message_sent = Event(Message)
    closing = Event()
    moved = Event(int, int)

    def create_conn_state(self, params: Params) -> Params:
        if params.user_id == "mallory":
            raise UserError("not you", code="banned", metadata={"who": params.user_id})
        return params

    @action
    def send_message(self, text: str) -> Message:
        message = Message(self.conn.state.user_id, text)
        self.state.messages.append(message)
        self.broadcast(self.message_sent, message)
        return message

    @action
    def history(self) -> list[Message]:
        return self.state.messages

    @action
    def raw(self) -> dict[str, list[int]]:
        self.shared: dict[str, list[int]] = {"a": [1]}
        return self.shared

    @action
    def flood(self, count: int) -> None:
        for n in range(count):
            self.broadcast(self.moved, n, -n)

    @action
    def big(self, size: int) -> str:
        return "x" * size

    @action
    def kick(self) -> None:
        self.conn.disconnect("kicked")

    @action
    async def ask(self, key: str) -> list[Message]:
        return await self.client().get_or_create(ChatRoom, key).call(ChatRoom.history)

    @action
    async def ask_connected(self, key: str) -> Message:
        async with self.client().get_or_create(ChatRoom, key).connect() as room:
            return await room.call(ChatRoom.send_message, "from another actor")

    @action
    async def ask_itself(self, connected: bool) -> str:
        me = self.client().get_for_id(ChatRoom, self.actor_id)
        try:
            if connected:
                async with me.connect() as room:
                    await room.call(ChatRoom.history)
            else:
                await me.call(ChatRoom.history)
        except ActorError as error:
            return str(error)
        return "answered"

    def on_request(self, request: Request) -> Response:
        return Response(f"{request.method} {request.path} {request.query} {request.text()}", 201)

    async def on_websocket(self, websocket: WebSocket) -> None:
        async for message in websocket:
            if message == "stop":
                raise UserError("stopped", code="stopped")
            await websocket.send(message)


registry = Registry(ChatRoom)


async def test_a_call_gives_typed_values_of_its_own() -> None:
    async with open_local(registry) as client:
        room = client.get_or_create(ChatRoom, "general", params=Params("bob"))
        sent = await room.call(ChatRoom.send_message, "hi")
        assert sent == Message("bob", "hi")
        assert await room.call(ChatRoom.history) == [sent]
        assert await room.call("history") == [{"userId": "bob", "text": "hi"}]
        assert await room.actions.send_message(text="again") == Message("bob", "again")
        assert await room.actions.sendMessage("camel") == Message("bob", "camel")
        first = await room.call(ChatRoom.raw)
        first["a"].append(2)
        assert await room.call(ChatRoom.raw) == {"a": [1]}
        with pytest.raises(AttributeError, match="no action"):
            await room.actions.nonsense()


async def test_handles_find_their_actors() -> None:
    async with open_local(registry) as client:
        with pytest.raises(ActorError) as caught:
            await client.get(ChatRoom, "x").call(ChatRoom.history)
        assert type(caught.value) is ActorError
        assert (caught.value.group, caught.value.code) == ("actor", "not_found")
        created = await client.create(ChatRoom, ["a", "b"])
        with pytest.raises(ActorError, match="duplicate_key"):
            await client.create(ChatRoom, ["a", "b"])
        actor_id = await created.resolve()
        assert await client.get(ChatRoom, ("a", "b")).resolve() == actor_id
        assert await client.get_for_id(ChatRoom, actor_id).call(ChatRoom.history) == []
        with pytest.raises(ActorError, match="not_found"):
            await client.get(ChatRoom, "x").resolve()
        with pytest.raises(ActorError, match="not_found"):
            async with client.get(ChatRoom, "x").connect():
                pass


async def test_events_come_before_the_answer_and_in_order() -> None:
    async with open_local(registry) as client:
        async with client.get_or_create(ChatRoom).connect(params=Params("ann")) as room:
            got: list[object] = []
            room.on(ChatRoom.message_sent, got.append)
            room.on(ChatRoom.moved, lambda x, y: got.append((x, y)))
            await room.call(ChatRoom.send_message, "hi")
            await room.call(ChatRoom.flood, 3)
            assert got == [Message("ann", "hi"), (0, 0), (1, -1), (2, -2)]
            async with room.events(ChatRoom.moved) as moves:
                await room.call(ChatRoom.flood, 5000)
                assert [await anext(moves) for _ in range(2)] == [(0, 0), (1, -1)]
                rest = [await anext(moves) for _ in range(1022)]
                assert rest[-1] == (1023, -1023)
                with pytest.raises(Lagged) as caught:
                    await anext(moves)
                assert caught.value.count == 5000 - 1024


async def test_a_refusal_is_raised_by_whoever_asked() -> None:
    async with open_local(registry) as client:
        mallory = client.get_or_create(ChatRoom, params={"userId": "mallory"})
        with pytest.raises(ActorError) as caught:
            await mallory.call(ChatRoom.history)
        assert caught.value.metadata == {"who": "mallory"}
        with pytest.raises(ActorError, match="banned") as caught:
            async with mallory.connect():
                pass
        assert caught.value.message == "not you"


async def test_a_kick_is_final() -> None:
    async with open_local(registry) as client, client.get_or_create(ChatRoom).connect() as room:
        with pytest.raises(ConnectionEnded) as caught:
            await room.call(ChatRoom.kick)
        assert (caught.value.code, caught.value.reason) == (1000, "kicked")


async def test_actors_call_actors() -> None:
    async with open_local(registry) as client:
        await client.get_or_create(ChatRoom, "b").call(ChatRoom.send_message, "hi")
        a = client.get_or_create(ChatRoom, "a")
        assert await a.call(ChatRoom.ask, "b") == [Message("anonymous", "hi")]
        assert await a.call(ChatRoom.ask_connected, "b") == Message("anonymous", "from another actor")


@pytest.mark.parametrize("connected", [False, True])
async def test_a_call_that_would_wait_for_itself_fails(connected: bool, autojump_clock: MockClock) -> None:
    async with open_local(registry) as client:
        handle = client.get_or_create(ChatRoom, "a")
        with trio.fail_after(5):
            assert (await handle.call(ChatRoom.ask_itself, connected)).startswith("actor.deadlock: ")


async def test_limits_hold_without_a_network() -> None:
    async with open_local(registry) as client:
        handle = client.get_or_create(ChatRoom)
        with pytest.raises(ActorError, match="incoming_too_long"):
            await handle.call(ChatRoom.send_message, "x" * 70_000)
        with pytest.raises(ActorError, match="outgoing_too_long"):
            await handle.call(ChatRoom.big, 1_100_000)
        text = await handle.call(ChatRoom.big, 1_000_000)
        assert len(text) == 1_000_000
        async with handle.connect() as room:
            with pytest.raises(ActorError, match="outgoing_too_long"):
                await room.call(ChatRoom.big, 1_100_000)
            text = await room.call(ChatRoom.big, 1_000_000)
            assert len(text) == 1_000_000


async def test_raw_requests() -> None:
    async with open_local(registry) as client:
        handle = client.get_or_create(ChatRoom)
        response = await handle.fetch("a/b?x=1#y", method="POST", body="hey", headers={"X": "y"})
        assert (response.status, response.text()) == (201, "POST /a/b {'x': '1'} hey")
        with pytest.raises(ActorError, match="not_found"):
            await client.get(ChatRoom, "x").fetch("/")


async def test_raw_websockets() -> None:
    async with open_local(registry, limits=Limits(raw_message=1000)) as client:
        handle = client.get_or_create(ChatRoom)
        async with handle.websocket("echo") as websocket:
            for data in ("text", b"bytes"):
                await websocket.send(data)
                assert await websocket.receive() == data
            await websocket.send("stop")
            with pytest.raises(WebSocketClosed) as caught:
                await websocket.receive()
            assert (caught.value.code, caught.value.reason) == (1011, "user.stopped")
            assert [one async for one in websocket] == []
        async with handle.websocket() as websocket:
            with pytest.raises(WebSocketClosed):
                await websocket.send("x" * 1001)
            assert websocket.close_code == 1009
        with pytest.raises(ActorError, match="not_found"):
            async with client.get(ChatRoom, "x").websocket():
                pass


async def test_what_the_body_raises_comes_out_alone() -> None:
    with pytest.raises(KeyError):
        async with open_local(registry) as client, client.get_or_create(ChatRoom).connect():
            raise KeyError("mine")


async def test_leaving_ends_everything() -> None:
    async with trio.open_nursery() as nursery:
        story: list[str] = []
        async with open_local(registry) as client:
            connection = client.get_or_create(ChatRoom).connect()
            connection.on_status_change(story.append)
            async with connection:
                pass
        assert story == ["connecting", "connected", "closed"]
        assert not nursery.child_tasks


# -- the pipe ----------------------------------------------------------------------------------------------------------


async def test_a_pipe_takes_what_there_is_room_for_and_makes_the_rest_wait() -> None:
    pipe = Pipe()
    assert pipe.send_nowait(b"x" * (PIPE_SIZE - 1)) == PIPE_SIZE - 1
    assert pipe.send_nowait(b"xx") == 1
    assert pipe.send_nowait(b"x") == 0
    with trio.move_on_after(0.01) as scope:
        await pipe.send_all(b"x")
    assert scope.cancelled_caught
    pipe.abort()
    with pytest.raises(trio.BrokenResourceError):
        pipe.send_nowait(b"x")
    with pytest.raises(trio.BrokenResourceError):
        await pipe.send_all(b"x")


async def test_frames_pass_a_pipe_in_any_portions() -> None:
    pipe = Pipe()
    payloads = [b"", b"a", b"b" * 200_000, b"c"]
    data = b"".join(FORMAT.frame(payload) for payload in payloads) + FORMAT.close_frame(1000, "bye")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pipe.send_all, data)
        got = [await pipe.receive() for _ in range(5)]
    assert got == [*((0, payload) for payload in payloads), (1, b"\x03\xe8bye")]
    pipe.abort()
    assert await pipe.receive() is None


class Guarded(Actor[dict[str, int]]):
    changed = Event(int)
    secret = Event(int, can_subscribe=lambda actor, conn: False)

    def create_state(self, input: object) -> dict[str, int]:
        return {"n": 0}

    @action
    def add(self) -> int:
        self.state["n"] += 1
        self.broadcast(self.changed, self.state["n"])
        return self.state["n"]

    @action
    def total(self) -> int:
        return self.state["n"]

    @action
    def connections(self) -> int:
        return sum(conn.kind == "events" for conn in self.conns.values())

    @action(concurrent=True)
    async def forever(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.add()


async def test_a_local_connection_is_answered_like_a_remote_one(autojump_clock: MockClock) -> None:
    async with open_local(Registry(Guarded)) as client, client.get_or_create(Guarded).connect() as room:
        with pytest.raises(ActorError, match="forbidden"):
            async with room.events(Guarded.secret):
                pytest.fail("not reached")
        await room.call(Guarded.add)
        async with room.snapshot(Guarded.changed, Guarded.total) as (total, changes):
            assert total == 1
            with trio.move_on_after(3) as scope:  # it runs, and is cancelled there too
                await room.call(Guarded.forever)
            assert scope.cancelled_caught
            assert await anext(changes) == 2
            await room.sync()


async def test_a_local_connection_that_is_cancelled_leaves_at_once(autojump_clock: MockClock) -> None:
    async with open_local(Registry(Guarded)) as client, trio.open_nursery() as nursery:
        guarded = client.get_or_create(Guarded)
        scope = trio.CancelScope()

        async def stay(task_status: trio.TaskStatus[None]) -> None:
            with scope:
                async with guarded.connect():
                    task_status.started()
                    await trio.sleep_forever()

        await nursery.start(stay)
        assert await guarded.call(Guarded.connections) == 1
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert await guarded.call(Guarded.connections) == 0


async def test_what_is_no_store_is_refused_alone_and_says_what_to_write() -> None:
    unentered = trivet.open_sqlite_store("nowhere")
    for given in (unentered, "data", object()):
        wrong: Any = given
        with pytest.raises(TypeError, match=r"open_local takes a Store, got .*; enter it with async with"):
            async with open_local(registry, store=wrong):
                pytest.fail("not reached")
        with pytest.raises(TypeError, match="serve takes a Store"):
            await trivet.serve(registry, store=wrong)
        with pytest.raises(TypeError, match="World takes a Store"):
            World(registry, store=wrong)


class Busy(Actor):
    async def work(self, number: int) -> None:
        raise NotImplementedError

    @action
    def start(self, waits: bool) -> str:
        take: Any = self.wait_until if waits else self.start_soon
        with pytest.raises(TypeError) as caught:
            take(self.work(1))
        return str(caught.value)


async def test_background_work_is_a_function_and_its_arguments() -> None:
    async with open_local(Registry(Busy)) as client:
        busy = client.get_or_create(Busy)
        text = "pass the function and its arguments: self."
        assert text + "wait_until(work, ...)" in await busy.call(Busy.start, True)
        assert text + "start_soon(work, ...)" in await busy.call(Busy.start, False)
