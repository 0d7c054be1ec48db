"""A game room: who is connected, messages to one, to all but one, and to all.

python examples/game_room.py                  a server, two players, and what they see
trivet serve examples.game_room:registry      the room alone, for any trivet or RivetKit client
"""

import time
from functools import partial

import attrs
import trio

import trivet
from trivet import Actor, Conn, Event, Registry, UserError, action


@attrs.frozen
class Position:
    x: float
    y: float


@attrs.frozen
class PlayerParams:  # what a client connects with
    player_id: str
    role: str = "player"


@attrs.frozen
class Player:  # the state of a connection
    player_id: str
    role: str


@attrs.define
class GameState:
    positions: dict[str, Position] = attrs.field(factory=dict[str, Position])


@attrs.frozen
class PrivateMessage:
    sender: str
    message: str
    timestamp: float


@attrs.frozen
class PlayerMoved:
    player_id: str
    position: Position


class GameRoom(Actor[GameState, Player, PlayerParams]):
    game_started = Event()  # nothing to say but that it happened
    player_left = Event(str)
    player_moved = Event(PlayerMoved)
    private_message = Event(PrivateMessage)

    def create_conn_state(self, params: PlayerParams) -> Player:
        return Player(params.player_id, params.role)

    def on_connect(self, conn: Conn[Player, PlayerParams]) -> None:
        # A call without a connection is a short connection, too: who only calls does not sit down at the table.
        if conn.kind == "events" and conn.state.role == "player":
            self.state.positions[conn.state.player_id] = Position(0, 0)

    def on_disconnect(self, conn: Conn[Player, PlayerParams]) -> None:
        if conn.kind == "events" and conn.state.player_id in self.state.positions:
            del self.state.positions[conn.state.player_id]
            self.broadcast(self.player_left, conn.state.player_id)

    @action
    def start_game(self) -> None:
        if self.conn.state.role != "host":
            raise UserError("Only the host starts the game", code="not_the_host")
        self.broadcast(self.game_started)

    @action
    def send_private_message(self, target: str, message: str) -> None:
        conn = self.conns.find(lambda conn: conn.state.player_id == target)
        if conn is None:
            raise UserError("Player not found or not connected", code="player_not_found")
        conn.send(self.private_message, PrivateMessage(self.conn.state.player_id, message, time.time()))

    @action
    def update_player_position(self, position: Position) -> None:
        me = self.conn.state.player_id
        self.state.positions[me] = position
        self.broadcast(self.player_moved, PlayerMoved(me, position), exclude=self.conn)

    @action
    def teleport(self, position: Position) -> None:
        """The same by hand: anything can decide in the loop who shall know."""
        me = self.conn.state.player_id
        self.state.positions[me] = position
        for conn in self.conns.values():
            if conn.state.player_id != me:
                conn.send(self.player_moved, PlayerMoved(me, position))


registry = Registry(GameRoom)


async def play(url: str) -> None:
    async with trivet.open_client(url) as client:
        game = client.get_or_create(GameRoom, ["chess", "table 7"])
        ann = game.connect(params=PlayerParams("ann", role="host"))
        bob = game.connect(params=PlayerParams("bob"))
        listen("ann", ann)
        listen("bob", bob)
        async with ann, ann.events(GameRoom.player_left) as leavers:
            await ann.call(GameRoom.update_player_position, Position(4, 4))
            async with bob:
                await bob.call(GameRoom.update_player_position, Position(1, 2))
                await ann.call(GameRoom.send_private_message, "bob", "ready?")
                try:
                    await bob.call(GameRoom.start_game)
                except trivet.ActorError as error:
                    print(f"bob may not start: {error.code}: {error.message}")
                await ann.call(GameRoom.start_game)
                await ann.call(GameRoom.teleport, Position(7, 7))
                await bob.call(GameRoom.update_player_position, Position(2, 2))
            print(f"{await anext(leavers)} has left")
            try:
                await ann.call(GameRoom.send_private_message, "bob", "come back")
            except trivet.ActorError as error:
                print(f"ann may not whisper: {error.code}: {error.message}")


def listen(name: str, player: trivet.Connection[GameRoom]) -> None:
    player.once(GameRoom.game_started, lambda: print(f"  {name}: the game starts"))
    player.on(GameRoom.player_moved, lambda move: print(f"  {name}: {move.player_id} is at {move.position}"))
    player.on(GameRoom.private_message, lambda note: print(f"  {name}: {note.sender} whispers {note.message!r}"))


async def main(port: int = 0) -> None:
    async with trio.open_nursery() as nursery:
        server: trivet.Server = await nursery.start(partial(trivet.serve, registry, port=port))
        print(f"serving {', '.join(registry)} at {server.url}")
        await play(server.url)
        await server.stop()
    print("done")


if __name__ == "__main__":
    trio.run(main)
