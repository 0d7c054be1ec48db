"""The room of the demo: messages, who is there, and who is typing."""

import logging
import time
import uuid
from typing import Final

import attrs

from trivet.actor import Actor, action
from trivet.errors import UserError
from trivet.event import Event
from trivet.registry import Registry
from trivet.runtime.connection import Conn

flow: Final = logging.getLogger("trivet.demo")
"""One INFO line for each event that the room emits."""

HISTORY: Final = 200
MAX_NAME: Final = 32
MAX_TEXT: Final = 2000
MAX_ID: Final = 64


@attrs.frozen
class Visitor:
    """What a browser connects with, and the state of its connection."""

    name: str


@attrs.frozen
class Person:
    """Somebody in the room. The id is that of the connection: two tabs are two people."""

    id: str
    name: str


@attrs.frozen
class Message:
    """`sent_at` in seconds since 1970."""

    id: str
    author: str
    text: str
    sent_at: float


@attrs.frozen
class Snapshot:
    """The room as somebody finds it who comes in. What changes afterwards, the events say."""

    you: str
    people: list[Person]
    messages: list[Message]


@attrs.define
class RoomState:
    messages: list[Message] = attrs.field(factory=list[Message])


class ChatRoom(Actor[RoomState, Visitor, Visitor]):
    message_received = Event(Message)
    person_joined = Event(Person)
    person_renamed = Event(Person)
    person_left = Event(Person)
    typing = Event(str, bool)  # the id of who is typing, or is not any more

    def create_conn_state(self, params: Visitor) -> Visitor:
        return Visitor(checked_name(params.name))

    def on_connect(self, conn: Conn[Visitor, Visitor]) -> None:
        if conn.kind == "events":
            recipients = self.broadcast(self.person_joined, person(conn), exclude=conn).recipients
            report("personJoined", recipients, f"{conn.state.name} ({len(self.people())} here)")

    def on_disconnect(self, conn: Conn[Visitor, Visitor]) -> None:
        if conn.kind == "events":
            recipients = self.broadcast(self.person_left, person(conn)).recipients
            report("personLeft", recipients, f"{conn.state.name} ({len(self.people())} here)")

    def people(self) -> list[Person]:
        return [person(conn) for conn in self.conns.values() if conn.kind == "events"]

    @action(readonly=True)
    def enter(self) -> Snapshot:
        """What is there now. Who subscribes first, and then enters, misses nothing and gets nothing twice."""
        return Snapshot(self.conn.id, self.people(), self.state.messages)

    @action
    def send_message(self, text: str, message_id: str | None = None) -> Message:
        """Say something. With an id of the sender's own it may be sent again after a broken connection."""
        for message in self.state.messages:
            if message.id == message_id:
                return message
        if not text.strip() or len(text) > MAX_TEXT:
            raise UserError(f"A message has 1 to {MAX_TEXT} characters", code="message_length")
        if message_id is not None and len(message_id) > MAX_ID:
            raise UserError(f"A message's id has at most {MAX_ID} characters", code="message_id_length")
        message = Message(message_id or str(uuid.uuid4()), self.conn.state.name, text.strip(), time.time())
        self.state.messages.append(message)
        del self.state.messages[:-HISTORY]
        recipients = self.broadcast(self.message_received, message).recipients
        report("messageReceived", recipients, f"{message.author}: {message.text}")
        return message

    @action(readonly=True)
    def set_typing(self, is_typing: bool) -> None:
        recipients = self.broadcast(self.typing, self.conn.id, is_typing, exclude=self.conn).recipients
        report("typing", recipients, f"{self.conn.state.name} {'is typing' if is_typing else 'has paused'}")

    @action
    def rename(self, name: str) -> Person:
        before = self.conn.state.name
        self.conn.state = Visitor(checked_name(name))
        recipients = self.broadcast(self.person_renamed, person(self.conn)).recipients
        report("personRenamed", recipients, f"{before} is now {self.conn.state.name}")
        return person(self.conn)


def person(conn: Conn[Visitor, Visitor]) -> Person:
    return Person(conn.id, conn.state.name)


def checked_name(name: str) -> str:
    """The name in one line, without what cannot be seen. Raises UserError."""
    clean = " ".join("".join(character if character.isprintable() else " " for character in name).split())
    if not 1 <= len(clean) <= MAX_NAME:
        raise UserError(f"A name has 1 to {MAX_NAME} characters", code="name_length")
    return clean


def report(event: str, recipients: int, what: str) -> None:
    flow.info("%-15s  → %-3d %s", event, recipients, what)


registry: Final = Registry(ChatRoom)
