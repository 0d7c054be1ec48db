"""A chat room: one action that changes the state, tells everyone, and answers its caller.

python examples/chat_room.py                  a server, two people in the room, and what they see
trivet serve examples.chat_room:registry      the room alone, for any trivet or RivetKit client
"""

import time
import uuid
from functools import partial

import attrs
import trio

import trivet
from trivet import Actor, Event, Registry, action


@attrs.frozen
class Message:
    id: str
    user_id: str
    text: str
    timestamp: float


@attrs.define
class ChatState:
    messages: list[Message] = attrs.field(factory=list[Message])


class ChatRoom(Actor[ChatState]):  # "chatRoom" on the wire
    message_received = Event(Message)  # "messageReceived"

    @action
    def send_message(self, user_id: str, text: str) -> Message:  # "sendMessage"
        message = Message(str(uuid.uuid4()), user_id, text, time.time())
        self.state.messages.append(message)
        self.broadcast(self.message_received, message)
        return message

    @action(readonly=True)
    def get_history(self) -> list[Message]:
        return self.state.messages


registry = Registry(ChatRoom)


def show(reader: str, message: Message) -> None:
    print(f"  {reader} reads: <{message.user_id}> {message.text}")


async def talk(url: str) -> None:
    """Two people, each with a client of their own."""
    async with trivet.open_client(url) as ann_client, trivet.open_client(url) as bob_client:
        # Without a connection, as a program does that only has something to say.
        await ann_client.get_or_create(ChatRoom, "general").call(ChatRoom.send_message, "ann", "Anybody here?")

        ann = ann_client.get_or_create(ChatRoom, "general").connect()
        bob = bob_client.get_or_create(ChatRoom, "general").connect()
        ann.on(ChatRoom.message_received, partial(show, "ann"))
        unsubscribe = bob.on(ChatRoom.message_received, partial(show, "bob"))
        async with ann, bob:
            # A connection's messages are handled in order: who gets the history is subscribed already, and between it
            # and the events that follow there is neither a gap nor an overlap.
            for person, room in (("ann", ann), ("bob", bob)):
                history = await room.call(ChatRoom.get_history)
                print(f"{person} joins and finds {[message.text for message in history]}")

            print("bob answers")
            sent = await bob.call(ChatRoom.send_message, "bob", "I am. Hello, ann!")
            await ann.call(ChatRoom.get_history)  # an answer comes after every event before it: now ann has read it too
            print(f"his call returned {sent.text!r}")

            unsubscribe()
            bob.once(ChatRoom.message_received, lambda message: print(f"  bob reads one more: {message.text}"))
            await bob.call(ChatRoom.get_history)
            print("bob listens once more, ann writes twice")
            await ann.call(ChatRoom.send_message, "ann", "Leaving already?")
            await ann.call(ChatRoom.send_message, "ann", "Oh well.")
            await bob.call(ChatRoom.get_history)


async def main(port: int = 0) -> None:
    async with trio.open_nursery() as nursery:
        server: trivet.Server = await nursery.start(partial(trivet.serve, registry, port=port))
        print(f"serving {', '.join(registry)} at {server.url}")
        await talk(server.url)
        await server.stop()
    print("done")


if __name__ == "__main__":
    trio.run(main)
