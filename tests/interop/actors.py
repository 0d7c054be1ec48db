"""The trivet twin of registry.mjs: the same actors, with the same names on the wire.

python -m trivet serve tests.interop.actors:registry --port 6420
"""

import time
import uuid
from datetime import datetime
from typing import Any, NotRequired, TypedDict

import attrs
import trio

from trivet import UNDEFINED, Actor, Conn, Event, Options, Registry, Request, Response, UserError, WebSocket, action


def now() -> int:
    """Milliseconds, as `Date.now()`."""
    return time.time_ns() // 1_000_000


@attrs.frozen
class Message:
    id: str
    user_id: str
    text: str
    timestamp: int


@attrs.define
class ChatState:
    messages: list[Message] = attrs.field(factory=list[Message])


class ChatRoom(Actor[ChatState]):
    message_received = Event(Message)

    @action
    def send_message(self, user_id: str, text: str) -> Message:
        message = Message(str(uuid.uuid4()), user_id, text, now())
        self.state.messages.append(message)
        self.broadcast(self.message_received, message)
        return message

    @action
    def get_history(self) -> list[Message]:
        return self.state.messages


@attrs.frozen
class Position:
    x: float
    y: float


@attrs.define
class PlayerState:
    position: Position


@attrs.define
class GameState:
    players: dict[str, PlayerState] = attrs.field(factory=dict[str, PlayerState])


@attrs.frozen
class PlayerParams:
    player_id: str = "spectator"
    role: str = "player"


@attrs.frozen
class PrivateMessage:
    sender: str = attrs.field(metadata={"wire": "from"})
    message: str
    timestamp: int


@attrs.frozen
class PlayerMoved:
    player_id: str
    position: Position


class GameRoom(Actor[GameState, PlayerParams, PlayerParams]):
    private_message = Event(PrivateMessage)
    player_moved = Event(PlayerMoved)
    game_started = Event()

    def create_conn_state(self, params: PlayerParams | None = None) -> PlayerParams:
        return params or PlayerParams()

    @action
    def send_private_message(self, target_player_id: str, message: str) -> None:
        conn = self.conns.find(lambda conn: conn.state.player_id == target_player_id)
        if conn is None:
            raise UserError("Player not found or not connected", code="player_not_found")
        conn.send(self.private_message, PrivateMessage(self.conn.state.player_id, message, now()))

    @action
    def update_player_position(self, position: Position) -> None:
        player_id = self.conn.state.player_id
        self.state.players[player_id] = PlayerState(position)
        self.broadcast(self.player_moved, PlayerMoved(player_id, position), exclude=self.conn)

    @action
    def get_players(self) -> dict[str, PlayerState]:
        return self.state.players

    @action
    def get_role(self) -> str:
        return self.conn.state.role

    @action
    def start_game(self) -> None:
        self.broadcast(self.game_started)


@attrs.define
class CounterState:
    count: int = 0


class Counter(Actor[CounterState]):
    new_count = Event(int)

    @action
    def increment(self, by: int = 1) -> int:
        self.state.count += by
        self.broadcast(self.new_count, self.state.count)
        return self.state.count

    @action
    def get_count(self) -> int:
        return self.state.count


class Impatient(Actor):
    options = Options(action_timeout=0.3)

    @action
    async def dawdle(self, milliseconds: float) -> str:
        await trio.sleep(milliseconds / 1000)
        return "done"


def describe(value: object) -> str:
    """What kind of value it is, in registry.mjs's words."""
    if value is UNDEFINED:
        return "undefined"
    # In this order: a bool is an int as well.
    kinds: list[tuple[type, str]] = [
        (type(None), "null"),
        (bool, "boolean"),
        (int, "integer"),
        (float, "float"),
        (str, "string"),
        (bytes, "bytes"),
        (datetime, "date"),
        (set, "set"),
        (frozenset, "set"),
        (dict, "object"),
        (list, "array"),
    ]
    return next((name for kind, name in kinds if isinstance(value, kind)), type(value).__name__)


class ProbeParams(TypedDict):
    label: NotRequired[str]
    deny: NotRequired[bool]


@attrs.frozen
class Label:
    label: str = "anonymous"


class WhoAmI(TypedDict):
    params: ProbeParams | None
    label: str
    connId: str


class Where(TypedDict):
    actorId: str
    name: str
    key: list[str]


@attrs.define
class ProbeState:
    input: Any = None
    disconnects: int = 0


class Probe(Actor[ProbeState, Label, ProbeParams | None]):
    tick = Event(int)
    greeting = Event(str)
    triple = Event(int, str, dict[str, int])

    def create_state(self, value: Any = None) -> ProbeState:
        return ProbeState(value)

    def on_before_connect(self, params: ProbeParams | None = None) -> None:
        if params and params.get("deny"):
            raise UserError("No entry", code="denied")

    def create_conn_state(self, params: ProbeParams | None = None) -> Label:
        return Label(params["label"]) if params and "label" in params else Label()

    def on_connect(self, conn: Conn[Label, ProbeParams | None]) -> None:
        conn.send(self.greeting, conn.state.label)

    def on_disconnect(self, conn: Conn[Label, ProbeParams | None]) -> None:
        self.state.disconnects += 1

    @action
    def echo(self, value: Any = UNDEFINED) -> Any:
        return value

    @action
    def describe(self, value: Any = UNDEFINED) -> str:
        return describe(value)

    @action
    def total(self, first: int, second: int, third: int = 100) -> int:
        return first + second + third

    @action
    def emit_many(self, count: int) -> int:
        for index in range(count):
            self.broadcast(self.tick, index)
        return count

    @action
    def emit_value(self, value: Any = UNDEFINED) -> None:
        self.broadcast("value", value)

    @action
    def emit_arguments(self) -> None:
        self.broadcast(self.triple, 1, "two", {"three": 3})

    @action
    def fail(self, kind: str) -> None:
        if kind == "user":
            raise UserError("You cannot do that", code="not_allowed", metadata={"field": "name", "limit": 3})
        if kind == "plain-user":
            raise UserError("Only a message")
        raise RuntimeError("the database password is hunter2")

    @action
    def emit_and_fail(self) -> None:
        self.broadcast(self.tick, -1)
        raise UserError("After the event", code="after_event")

    @action
    def kick(self, reason: str) -> None:
        self.conn.disconnect(reason)

    @action
    def big(self, size: int) -> str:
        return "x" * size

    @action
    def emit_big(self, size: int) -> None:
        self.broadcast("value", "x" * size)

    @action
    def size(self, text: str) -> int:
        return len(text)

    @action
    def whoami(self) -> WhoAmI:
        return {"params": self.conn.params, "label": self.conn.state.label, "connId": self.conn.id}

    @action
    def where(self) -> Where:
        return {"actorId": self.actor_id, "name": self.name, "key": list(self.key)}

    @action
    def get_input(self) -> Any:
        return self.state.input

    @action
    def get_disconnects(self) -> int:
        return self.state.disconnects

    @action(name="destroy")
    def end(self) -> None:
        self.destroy()

    @action(name="calculator.add")
    def add(self, first: float, second: float) -> float:
        return first + second

    def on_request(self, request: Request) -> Response:
        if request.path == "/hello":
            return Response("hello", headers={"x-probe": "yes"})
        if request.path == "/echo":
            query = f"?{request.query_string}" if request.query_string else ""
            seen = {
                "content-type": "application/octet-stream",
                "x-method": request.method,
                "x-query": query,
                "x-custom-seen": request.headers.get("x-custom", ""),
            }
            return Response(request.body, 201, seen)
        if request.path == "/boom":
            raise RuntimeError("the database password is hunter2")
        return Response("nothing here", 404)

    async def on_websocket(self, websocket: WebSocket) -> None:
        await websocket.send("welcome")
        async for message in websocket:
            if message == "close":
                await websocket.aclose(4001, "bye")
            else:
                await websocket.send(message)


registry = Registry(ChatRoom, GameRoom, Counter, Impatient, Probe)
