"""The statements of RivetKit's page on events, one test each: by trivet's own client, and by RivetKit's from npm."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio

import trivet
from examples.chat_room import ChatRoom, Message
from examples.game_room import GameRoom, PlayerMoved, PlayerParams, Position, PrivateMessage
from tests.interop import actors, peers
from trivet import ActorError, Client, Connection, Registry

registry = Registry(ChatRoom, GameRoom, actors.Probe)


@asynccontextmanager
async def serving() -> AsyncGenerator[Client]:
    async with trio.open_nursery() as nursery:
        server: trivet.Server = await nursery.start(partial(trivet.serve, registry, port=0))
        async with trivet.open_client(server.url) as client:
            yield client
        nursery.cancel_scope.cancel()


def record(connection: Connection[Any], event: Any) -> list[Any]:
    """What arrives of an event; one payload as itself, others as tuples."""
    seen: list[Any] = []
    connection.on(event, lambda *args: seen.append(args[0] if len(args) == 1 else args))
    return seen


def player(client: Client, player_id: str, role: str | None = None) -> Connection[GameRoom]:
    params = PlayerParams(player_id) if role is None else PlayerParams(player_id, role)
    return client.get_or_create(GameRoom, "room-456").connect(params=params)


async def seen_by(*connections: Connection[Any]) -> None:
    """Wait until each has handled what was emitted before: an answer comes after all of it."""
    for connection in connections:
        with pytest.raises(ActorError, match="action_not_found"):
            await connection.call("nothing")


async def test_s1_events_go_from_actors_to_clients_and_actions_the_other_way() -> None:
    async with serving() as client, client.get_or_create(ChatRoom, "general").connect() as room:
        messages = record(room, ChatRoom.message_received)
        await room.call(ChatRoom.send_message, "user-1", "hello")
        assert [message.text for message in messages] == ["hello"]


async def test_s2_only_connected_clients_get_events_and_raw_websockets_none() -> None:
    async with serving() as client:
        probe = client.get_or_create(actors.Probe, "p")
        async with probe.websocket("/") as websocket, probe.connect() as room:
            assert await websocket.receive() == "welcome"
            ticks = record(room, "tick")
            await room.call("emitMany", 3)
            assert ticks == [0, 1, 2]
            await websocket.send("end")
            assert await websocket.receive() == "end"


async def test_s3_broadcast_reaches_every_subscribed_client() -> None:
    async with serving() as client:
        chat = client.get_or_create(ChatRoom, "general")
        async with chat.connect() as one, chat.connect() as two, chat.connect() as three:
            inboxes = [record(room, ChatRoom.message_received) for room in (one, two, three)]
            await seen_by(one, two, three)
            await chat.call(ChatRoom.send_message, "user-1", "to all")
            await seen_by(one, two, three)
            assert [[message.text for message in inbox] for inbox in inboxes] == [["to all"]] * 3


async def test_s4_one_action_changes_state_broadcasts_and_returns_the_value() -> None:
    async with serving() as client, client.get_or_create(ChatRoom, "general").connect() as room:
        messages = record(room, ChatRoom.message_received)
        message = await room.call(ChatRoom.send_message, "user-1", "hi")
        assert isinstance(message, Message)
        assert messages == [message]
        assert await room.call(ChatRoom.get_history) == [message]


async def test_s5_a_message_to_one_connection_that_a_predicate_finds() -> None:
    async with serving() as client, player(client, "ada") as ada, player(client, "bob") as bob:
        to_ada, to_bob = (record(room, GameRoom.private_message) for room in (ada, bob))
        await ada.call(GameRoom.send_private_message, "bob", "hello bob")
        await seen_by(ada, bob)
        assert [note.message for note in to_bob] == ["hello bob"]
        assert isinstance(to_bob[0], PrivateMessage)
        assert to_ada == []


async def test_s6_create_conn_state_makes_each_connections_state_with_its_default() -> None:
    async with serving() as client, player(client, "ada", "host") as ada, player(client, "bob") as bob:
        await ada.call(GameRoom.start_game)
        with pytest.raises(ActorError, match="not_the_host"):
            await bob.call(GameRoom.start_game)


async def test_s7_an_action_knows_the_state_of_its_caller() -> None:
    async with serving() as client, player(client, "ada") as ada, player(client, "bob") as bob:
        notes = record(ada, GameRoom.private_message)
        await bob.call(GameRoom.send_private_message, "ada", "it is me")
        await seen_by(ada)
        assert notes[0].sender == "bob"


async def test_s8_a_player_who_is_not_there_is_an_error_the_client_sees() -> None:
    async with serving() as client, player(client, "ada") as ada:
        with pytest.raises(ActorError) as info:
            await ada.call(GameRoom.send_private_message, "nobody", "?")
        assert (info.value.group, info.value.code) == ("user", "player_not_found")
        assert info.value.message == "Player not found or not connected"


@pytest.mark.parametrize("move", [GameRoom.update_player_position, GameRoom.teleport])
async def test_s9_all_but_the_sender_are_told(move: Any) -> None:
    async with serving() as client, player(client, "ada") as ada, player(client, "bob") as bob:
        by_ada, by_bob = (record(room, GameRoom.player_moved) for room in (ada, bob))
        await seen_by(ada, bob)
        await ada.call(move, Position(10, 20))
        await seen_by(ada, bob)
        assert by_bob == [PlayerMoved("ada", Position(10, 20))]
        assert by_ada == []


async def test_s10_connect_returns_without_waiting() -> None:
    async with serving() as client:
        room = client.get_or_create(ChatRoom, ["general"]).connect()
        before: str = room.status
        assert before == "idle"
        async with room:
            assert room.status == "connected"


async def test_s11_connect_passes_parameters() -> None:
    async with serving() as client:
        room = client.get_or_create("gameRoom", "room-456").connect(params={"playerId": "player-789", "role": "host"})
        async with room:
            await room.call("startGame")


async def test_s12_a_listener_gets_the_arguments_in_their_places() -> None:
    async with serving() as client, client.get_or_create(actors.Probe, "p").connect() as room:
        triples = record(room, "triple")
        await room.call("emitArguments")
        assert triples == [(1, "two", {"three": 3})]


async def test_s13_actions_are_methods_of_the_connection() -> None:
    async with serving() as client, client.get_or_create(ChatRoom, "general").connect() as room:
        message = await room.actions.send_message("user-123", "Hello everyone!")
        assert message.text == "Hello everyone!"


async def test_s14_once_for_an_event_without_payload() -> None:
    async with serving() as client, player(client, "ada", "host") as ada:
        starts: list[None] = []
        ada.once(GameRoom.game_started, lambda: starts.append(None))
        await ada.call(GameRoom.start_game)
        await ada.call(GameRoom.start_game)
        assert len(starts) == 1


async def test_s15_on_returns_its_unsubscribe() -> None:
    async with serving() as client, client.get_or_create(ChatRoom, "general").connect() as room:
        texts: list[str] = []
        unsubscribe: Callable[[], None] = room.on(ChatRoom.message_received, lambda message: texts.append(message.text))
        await room.call(ChatRoom.send_message, "user-1", "heard")
        unsubscribe()
        unsubscribe()
        await room.call(ChatRoom.send_message, "user-1", "not heard")
        assert texts == ["heard"]


async def test_s16_a_client_takes_the_address_alone() -> None:
    async with serving() as client:
        assert await client.get_or_create(ChatRoom, "general").call(ChatRoom.get_history) == []


@pytest.fixture(scope="module")
def npm_checks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, peers.Check]:
    """The same statements, each checked by RivetKit's client against `trivet serve`."""
    folder = tmp_path_factory.mktemp("seed")
    with peers.trivet_server(folder) as (_, address):
        checks = peers.run_scenario("seed", address, "bare", peer="trivet", folder=folder)
    return {check.name.split()[0]: check for check in checks}


@pytest.mark.node
@pytest.mark.parametrize("number", range(1, 17))
def test_each_statement_holds_for_rivetkits_client(npm_checks: dict[str, peers.Check], number: int) -> None:
    check = npm_checks[f"S{number}"]
    assert check.ok, check.detail
