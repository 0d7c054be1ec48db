"""What type checkers make of the client. mypy and pyright check this file; the functions are not run."""

from collections.abc import Callable
from typing import Any, assert_type

import attrs

from trivet.actor import Actor, action
from trivet.client import Client, Connection, EventStream, Handle
from trivet.event import Event


@attrs.frozen
class Message:
    text: str


class ChatRoom(Actor):
    message_sent = Event(Message)
    moved = Event(int, str)
    closing = Event()
    score = Event[int | None]()

    @action
    def send_message(self, user_id: str, text: str = "") -> Message:
        return Message(user_id + text)

    @action
    async def count(self) -> int:
        return 1

    @action(name="calculator.add", timeout=1)
    def add(self, a: int, b: int) -> int:
        return a + b


class OtherRoom(Actor):
    other_event = Event(str)

    @action
    def other(self) -> None: ...


async def check_handles(client: Client) -> None:
    assert_type(client.get(ChatRoom, "a"), Handle[ChatRoom])
    assert_type(client.get_or_create(ChatRoom, ["a", "b"], input=1), Handle[ChatRoom])
    assert_type(await client.create(ChatRoom), Handle[ChatRoom])
    assert_type(client.get_for_id(ChatRoom, "id"), Handle[ChatRoom])
    assert_type(client.get("chatRoom"), Handle[Any])


async def check_calls(handle: Handle[ChatRoom], room: Connection[ChatRoom]) -> None:
    assert_type(await handle.call(ChatRoom.send_message, "bob", text="hi"), Message)
    assert_type(await handle.call(ChatRoom.count), int)
    assert_type(await handle.call(ChatRoom.add, 1, 2), int)
    assert_type(await room.call(ChatRoom.send_message, "bob"), Message)
    assert_type(await room.call(ChatRoom.count), int)
    await handle.call("sendMessage", "bob", {"anything": 1})
    await handle.call(ChatRoom.send_message)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await handle.call(ChatRoom.send_message, 1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await room.call(ChatRoom.add, 1, "2")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await room.call(OtherRoom.other)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    async with handle.connect() as entered:
        assert_type(entered, Connection[ChatRoom])


async def check_events(room: Connection[ChatRoom]) -> None:
    def on_message(message: Message) -> None: ...

    async def on_message_later(message: Message) -> None: ...

    def on_move(x: int, who: str) -> None: ...

    assert_type(room.on(ChatRoom.message_sent, on_message), Callable[[], None])
    room.on(ChatRoom.message_sent, on_message_later)
    room.on(ChatRoom.message_sent, lambda message: print(message.text))
    room.on(ChatRoom.moved, on_move)
    room.once(ChatRoom.closing, lambda: None)
    room.on("anything", lambda *args: print(args))
    room.on(ChatRoom.message_sent, on_move)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    room.on(
        ChatRoom.message_sent,
        lambda message: print(message.nonsense),  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownArgumentType]
    )
    room.once(ChatRoom.moved, on_message)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]

    assert_type(room.events(ChatRoom.message_sent), EventStream[Message])
    assert_type(room.events(ChatRoom.moved), EventStream[tuple[int, str]])
    assert_type(room.events(ChatRoom.closing), EventStream[None])
    assert_type(room.events(ChatRoom.score), EventStream[int | None])
    async with room.events(ChatRoom.message_sent) as stream:
        async for message in stream:
            assert_type(message, Message)


async def check_snapshots(room: Connection[ChatRoom]) -> None:
    async with room.snapshot(ChatRoom.message_sent, ChatRoom.count) as (count, stream):
        assert_type(count, int)
        assert_type(stream, EventStream[Message])
    async with room.snapshot(ChatRoom.moved, ChatRoom.add, 1, b=2) as (total, moves):
        assert_type(total, int)
        assert_type(moves, EventStream[tuple[int, str]])
    async with room.snapshot("anything", "any_action", 1) as (_, anything):
        assert_type(anything, EventStream[Any])
    room.on(ChatRoom.message_sent, print, on_gap=lambda missing: print(missing))
