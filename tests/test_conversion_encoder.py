"""What an encoder of one living state does with what it has encoded before."""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

import attrs
import pytest

from trivet.conversion import StateConverter, StateEncoder, ValidationError, remembering, stored_json
from trivet.conversion.fixed import is_fixed, is_frozen
from trivet.conversion.fragments import CHUNK


class Color(Enum):
    RED = "red"


class Name(str):
    """Equal to no other, whatever the text."""

    __slots__ = ()
    __eq__ = object.__eq__
    __hash__ = object.__hash__


@attrs.frozen
class Message:
    id: str
    text: str | None
    timestamp: float


@dataclasses.dataclass(frozen=True)
class Spot:
    x: float


class Pair(NamedTuple):
    left: int
    right: "tuple[Pair, ...]" = ()


@attrs.frozen
class Tree:
    name: str
    trees: "tuple[Tree, ...]" = ()


@attrs.frozen
class Basket:
    """Frozen, but for what is in it."""

    items: list[int] = attrs.field(factory=lambda: list[int]())


@attrs.frozen
class Crate:
    baskets: tuple[Basket, ...] = ()


@attrs.define
class Checked:
    """Has a `__setattr__` of its own, since attrs checks what is set."""

    value: int = attrs.field(default=0, validator=attrs.validators.ge(0))


@attrs.define
class Kept:
    name: str = attrs.field(default="", validator=attrs.validators.instance_of(str))
    count: int = attrs.field(default=0, init=False)


VARYING: Any = property(lambda self: id(self))  # pyright: ignore[reportUnknownLambdaType,reportUnknownArgumentType] # of any class


@dataclasses.dataclass(frozen=True)
class Shadowed:
    value: int = dataclasses.field(default=VARYING)


@attrs.define
class Chat:
    topic: str = ""
    messages: list[Message] = attrs.field(factory=lambda: list[Message]())


@attrs.frozen
class Log:
    """A state that is replaced as a whole."""

    messages: tuple[Message, ...] = ()


@attrs.define
class Building:
    chats: dict[str, Chat] = attrs.field(factory=lambda: dict[str, Chat]())


def message(number: int) -> Message:
    return Message(f"id {number}", "hello", float(number))


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many items were encoded each time that any were."""
    counts: list[int] = []

    def to_json(plain: list[object]) -> str:
        counts.append(len(plain))
        return stored_json.to_json(plain)

    monkeypatch.setattr(remembering, "to_json", to_json)
    return counts


MANY: Final = 1000


def forget_the_oldest(chat: Chat) -> None:
    del chat.messages[0]
    chat.messages.append(message(-1))


CHANGES: list[tuple[int, Callable[[Chat], object]]] = [
    (1, lambda chat: chat.messages.append(message(-1))),
    (1, lambda chat: setattr(chat, "messages", [*chat.messages, message(-1)])),
    (0, lambda chat: setattr(chat, "topic", "news")),
    (CHUNK, lambda chat: chat.messages.pop()),
    (CHUNK, lambda chat: chat.messages.pop(0)),
    (CHUNK + 1, forget_the_oldest),
    (CHUNK + 1, lambda chat: chat.messages.insert(500, message(-1))),
    (CHUNK, lambda chat: chat.messages.__setitem__(500, message(-1))),
    (2 * CHUNK, lambda chat: chat.messages.__setitem__(slice(0, MANY, 500), [message(-1), message(-2)])),
    (CHUNK, lambda chat: setattr(chat, "messages", chat.messages[100:])),
]


@pytest.mark.parametrize(("most", "change"), CHANGES)
def test_only_what_is_new_is_encoded_again(encoded: list[int], most: int, change: Callable[[Chat], object]) -> None:
    codec = StateConverter().state_codec(Chat)
    encoder = codec.encoder()
    chat = Chat("", [message(number) for number in range(MANY)])
    encoder.encode(chat)
    assert sum(encoded) == MANY
    encoded.clear()
    change(chat)
    assert encoder.encode(chat) == codec.encode(chat)
    assert sum(encoded) <= most


def test_what_is_deep_in_the_state_is_known_as_well(encoded: list[int]) -> None:
    building = Building({f"chat {i}": Chat("", [message(number) for number in range(100)]) for i in range(10)})
    codec = StateConverter().state_codec(Building)
    encoder = codec.encoder()
    encoder.encode(building)
    encoded.clear()
    building.chats["chat 5"].messages.append(message(-1))
    building.chats["chat 11"] = building.chats.pop("chat 0")
    assert encoder.encode(building) == codec.encode(building)
    assert encoded == [1]


def test_a_state_may_be_replaced_as_a_whole(encoded: list[int]) -> None:
    codec = StateConverter().state_codec(Log)
    encoder = codec.encoder()
    log = Log(tuple(message(number) for number in range(MANY)))
    encoder.encode(log)
    encoded.clear()
    log = Log((*log.messages, message(-1)))
    assert encoder.encode(log) == codec.encode(log)
    assert encoded == [1]


def test_items_that_move_to_another_list_stay_known(encoded: list[int]) -> None:
    codec = StateConverter().state_codec(dict[str, list[Message]])
    encoder = codec.encoder()
    state = {"new": [message(number) for number in range(MANY)], "old": [message(-1)] * MANY}
    encoder.encode(state)
    encoded.clear()
    state["old"] += state["new"][:500]
    del state["new"][:500]
    assert encoder.encode(state) == codec.encode(state)
    assert sum(encoded) <= 2 * CHUNK


def test_what_has_not_changed_is_the_same_object() -> None:
    for state in (Chat("x"), Chat("x", [message(number) for number in range(MANY)])):
        encoder = StateConverter().state_codec(Chat).encoder()
        first = encoder.encode(state)
        state.messages = list(state.messages)
        assert encoder.encode(state) is first


def test_a_state_that_cannot_be_stored_is_refused_as_by_a_codec_and_leaves_no_trace() -> None:
    codec = StateConverter().state_codec(Chat)
    encoder = codec.encoder()
    chat = Chat("", [message(number) for number in range(MANY)])
    encoder.encode(chat)
    chat.messages.append(Message("x", "y", "z"))  # type: ignore[arg-type]  # the mistake
    for encode in (encoder.encode, codec.encode):
        with pytest.raises(ValidationError, match=r"^messages\[1000\].timestamp: expected float, got str$"):
            encode(chat)
    chat.messages[-1] = message(-1)
    assert encoder.encode(chat) == codec.encode(chat)
    big = StateConverter().state_codec(list[Pair])
    with pytest.raises(ValidationError, match="an int in the state is too large"):
        big.encoder().encode([Pair(10**5000)] * 100)


def test_lone_surrogates_are_escaped_where_they_are() -> None:
    codec = StateConverter().state_codec(Chat)
    chat = Chat("\udc00é", [Message(str(number), "\ud800é", 0.0) for number in range(MANY)])
    encoded = codec.encoder().encode(chat)
    assert encoded == codec.encode(chat)
    assert rb'"topic":"\udc00' + "é".encode() in encoded
    assert codec.decode(encoded) == chat


def test_keys_that_have_one_text_stay_one_key() -> None:
    state: dict[str, int] = {f"key {number}": number for number in range(MANY)}
    state |= {Name("key 1"): -1, Name("new"): -2, Name("new"): -3}
    codec = StateConverter().state_codec(dict[str, int])
    assert len(state) == MANY + 3
    assert codec.encoder().encode(state) == codec.encode(state)


@pytest.mark.parametrize(
    ("type_", "state"),
    [
        (tuple[str, ...], tuple(map(str, range(MANY)))),
        (Sequence[int], tuple(range(MANY))),
        (dict[UUID, Spot], {UUID(int=number): Spot(number) for number in range(MANY)}),
        (dict[int, Pair], defaultdict(lambda: Pair(0), {number: Pair(number) for number in range(MANY)})),
        (list[Tree], [Tree("a", (Tree("b"),))] * MANY),
        (list[Literal[1, 2] | datetime | bytes | None], [1, None, b"x", datetime(2026, 1, 1, tzinfo=UTC)] * MANY),
        (list[list[Spot]], [[Spot(0.5)] * 100] * 3),
        (list[Spot] | dict[str, Spot], [Spot(0.5)] * 100),
        (set[tuple[int, ...]], {tuple(range(number)) for number in range(100)}),
        (list[frozenset[int]], [frozenset({2, 1})] * 100),
    ],
)
def test_every_kind_of_state_is_encoded_as_by_a_codec(type_: object, state: Any) -> None:
    codec = StateConverter().state_codec(type_)
    encoder = codec.encoder()
    assert [encoder.encode(state) for _ in range(2)] == [codec.encode(state)] * 2


def test_encoders_of_one_codec_share_nothing() -> None:
    codec = StateConverter().state_codec(Chat)
    chats = [Chat(str(i), [message(number) for number in range(i, MANY)]) for i in range(2)]
    encoders = [codec.encoder(), codec.encoder()]
    for _ in range(2):
        for chat, encoder in zip(chats, encoders, strict=True):
            chat.messages.pop()
            assert encoder.encode(chat) == codec.encode(chat)
    assert all(isinstance(encoder, StateEncoder) for encoder in encoders)


@pytest.mark.parametrize(
    ("type_", "fixed"),
    [
        (Message, True),
        (Spot, True),
        (Pair, True),
        (Tree, True),
        (Color, True),
        (tuple[int | None, ...], True),
        (frozenset[bytes], True),
        (tuple[date, timedelta, Decimal, UUID, Literal["a"]], True),
        (Basket, False),
        (Crate, False),
        (Chat, False),
        (Checked, False),
        (Shadowed, False),
        (list[int], False),
        (set[int], False),
        (tuple[list[int], ...], False),
        (Message | dict[str, int], False),
        (object, False),
    ],
)
def test_a_type_is_fixed_where_all_of_it_is(type_: object, fixed: bool) -> None:
    assert is_fixed(StateConverter().shape(type_)) is fixed


def test_a_class_that_checks_what_is_set_is_not_frozen() -> None:
    assert [is_frozen(cls) for cls in (Message, Spot, Checked, Chat)] == [True, True, False, False]
    # So that its fields outside of __init__ are restored.
    codec = StateConverter().state_codec(Kept)
    kept = Kept("a")
    kept.count = 7
    assert codec.decode(codec.encode(kept)) == kept
