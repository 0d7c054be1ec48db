"""Actors that use every kind of type, for programs/*.ts."""

import enum
import uuid
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Generic, Literal, NamedTuple, NewType, NotRequired, TypedDict, TypeVar

import attrs
from typing_extensions import TypeAliasType

from trivet import UNDEFINED, Actor, Event, Registry, action
from trivet.conversion import wire_name
from trivet.event import latest
from trivet.protocol.values import Undefined, Value

T = TypeVar("T")
UserId = NewType("UserId", str)


Tree = TypeAliasType("Tree", "dict[str, Tree] | list[Tree] | int")


class Color(enum.Enum):
    """What a wall can have."""

    RED = "red"
    DARK_GREEN = "dark-green"


class Rights(enum.IntFlag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: float
    y: float
    z_index: int = 0


class Filters(TypedDict):
    since: datetime
    color_name: NotRequired[Color]


@attrs.frozen
class Node:
    """A tree.

    It has no end, and says so: */
    """

    label: str
    children: "list[Node]" = attrs.field(factory=list["Node"])
    area: float = attrs.field(init=False, default=0.0)


@attrs.frozen
class Box(Generic[T]):
    content: T


@dataclass
class Everything:
    created_at: datetime
    day: date
    lasts: timedelta
    price: Decimal
    id: uuid.UUID
    data: bytes
    tags: set[str]
    scores: dict[int, float]
    by_color: dict[Color, int]
    pair: tuple[str, int]
    maybe: int | None
    kind: Literal["a", 1, True] | None
    rights: Rights
    anything: Value
    absent: int | Undefined
    user: UserId
    other_name: str
    nodes: list[Node | None]


@attrs.frozen
class Square:
    side: float
    kind: Literal["square"] = "square"


@attrs.frozen
class Circle:
    radius: float
    kind: Literal["circle"] = "circle"


@attrs.frozen
class Params:
    player_id: str
    role: str = "player"


@attrs.frozen
class Odd:
    default: int = attrs.field(metadata=wire_name("not an identifier"))
    class_: int = 0


class Gallery(Actor[None, None, Params]):
    """Where things hang."""

    hung = Event(Node)
    moved = Event(str, Point)
    emptied = Event()
    listed = Event[list[int]]()
    cursor = Event(str, overflow=latest(lambda who: who))

    def create_state(self, input: Filters) -> None: ...

    @action
    def hang(self, node: Node, position: Point, color: Color = Color.RED) -> Node:
        """Hang a picture."""
        return node

    @action
    async def everything(self, whole: Everything) -> Everything:
        return whole

    @action
    def area(self, shape: Square | Circle, /) -> float:
        return 0.0

    @action
    def find(self, filters: Filters, limit: int | Undefined = UNDEFINED, *words: str) -> dict[str, Node] | None:
        return None

    @action(name="walls.paint")
    def paint(self, color: Color, *, twice: bool = False) -> None:
        """Paint all of them."""

    @action(name="walls.inner.count")
    def count(self) -> Box[int]:
        return Box(1)

    @action
    def boxes(self) -> tuple[Box[int], Box[str]]:
        return Box(1), Box("")

    @action
    def prune(self, tree: Tree) -> Tree:
        return tree

    @action
    def free(self, value: object):  # type: ignore[no-untyped-def]  # what it returns is any value
        return value


class Words(Actor):
    """Names that mean something else in TypeScript."""

    name = "words-of-js"

    class Date(TypedDict):
        """Hides nothing."""

        year: int

    @action(name="delete")
    def erase(self, c: int, this: str, function: Odd) -> Date:
        return {"year": c}

    @action(name="to-day")
    def today(self, default: bool = True) -> "list[Literal['a', 'b'] | None]":
        return []

    @action(name="delete.all")
    def erase_all(self) -> None: ...


registry = Registry(Gallery, Words)
