"""How to test an actor: the chat room of chat_room.py under every order of joining, writing, leaving and lost networks.

python -m pytest examples/test_chat_room.py

Hypothesis makes up the story, `TrioMachine` runs it in virtual time and draws the order of tasks too, `World` holds the
room, its server and its clients, and its checker verifies the delivery contract. What is left to say here is what the
people do, and what is true of a chat room in particular.
"""

from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, consumes, run_state_machine_as_test

import trivet
from examples.chat_room import ChatRoom, Message
from trivet import Registry
from trivet.testing import DeliveryChecker, TrioMachine, Violation, World, WorldClient, initialize, rule

SEARCH = settings(
    max_examples=20,
    stateful_step_count=10,
    derandomize=True,
    deadline=None,
    database=None,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.generate, Phase.shrink],
)


class Person:
    """Somebody in the room, and what they have read."""

    def __init__(self, client: WorldClient, room: trivet.Connection[ChatRoom]) -> None:
        self.client = client
        self.room = room
        self.read: list[Message] = []
        self.missed = 0
        """How many messages there were before the first that they could read."""


class ChatMachine(TrioMachine):
    """People join, write, lose their network and leave."""

    registry = Registry(ChatRoom)
    people = Bundle[Person]("people")

    world: World
    checker: DeliveryChecker
    present: list[Person]

    async def open(self) -> None:
        self.present = []
        self.world = await self.enter(World(self.registry))
        self.checker = self.world.check_delivery()

    @initialize(target=people)
    async def first_joins(self) -> Person:
        return await self.someone_new()

    @rule(target=people)
    async def join(self) -> Person:
        return await self.someone_new()

    async def someone_new(self) -> Person:
        client = await self.world.client()
        person = Person(client, client.get_or_create(ChatRoom, "general").connect())
        person.room.on(ChatRoom.message_received, person.read.append)
        await self.enter(person.room)
        history = await person.room.call(ChatRoom.get_history)
        person.missed = len(history) - len(person.read)
        self.present.append(person)
        return person

    @rule(person=people, text=st.sampled_from(["hello", "bye"]))
    async def write(self, person: Person, text: str) -> None:
        sent = await person.room.call(ChatRoom.send_message, "someone", text)
        assert sent in person.read  # before its answer

    @rule(person=people, texts=st.lists(st.sampled_from(["a", "b"]), min_size=2, max_size=7))
    async def write_at_once(self, person: Person, texts: list[str]) -> None:
        async with trio.open_nursery() as nursery:
            for text in texts:
                nursery.start_soon(self.say, person, text)

    async def say(self, person: Person, text: str) -> None:
        await person.room.call(ChatRoom.send_message, "someone", text)

    @rule(person=people, seconds=st.sampled_from([0.0, 0.5]))
    async def change_network(self, person: Person, seconds: float) -> None:
        person.client.link.delay(seconds)

    @rule(person=consumes(people))
    async def leave_room(self, person: Person) -> None:
        self.present.remove(person)
        await self.leave(person.room)

    @rule()
    async def everyone_has_read_everything(self) -> None:
        await self.checker.settle()
        self.checker.verify()
        for person in self.present:
            assert person.read == (await person.room.call(ChatRoom.get_history))[person.missed :]


TestChat = ChatMachine.TestCase
TestChat.settings = SEARCH


def test_a_room_that_loses_messages_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    broadcast = ChatRoom.broadcast

    def lose_every_third(self: ChatRoom, event: Any, *args: Any) -> trivet.BroadcastResult:
        lost = len(self.state.messages) % 3 == 0
        return trivet.BroadcastResult() if lost else broadcast(self, event, *args)

    monkeypatch.setattr(ChatRoom, "broadcast", lose_every_third)
    with pytest.raises(AssertionError) as caught:
        run_state_machine_as_test(ChatMachine, settings=settings(SEARCH, max_examples=200, stateful_step_count=4))
    story = "\n".join(caught.value.__notes__)
    # The shortest way to a third message.
    assert story.count("write") + story.count("join") <= 4, story


def test_violations_are_assertions() -> None:
    assert issubclass(Violation, AssertionError)
