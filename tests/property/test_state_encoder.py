"""However a state changes, what its encoder makes of it is what a codec makes that has never seen it before.

Chunks are small here, so that small states have several. The search is shown to find the bugs that such an encoder
could have: each is planted for one test.
"""

import dataclasses
import operator
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID

import attrs
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from trivet.conversion import StateConverter, ValidationError, fragments, remembering
from trivet.conversion.fixed import Checks
from trivet.conversion.fragments import Chunk

T = TypeVar("T")


@attrs.frozen
class Item:
    value: int | float | bool | str | None
    raw: bytes = b""
    parts: "tuple[Item, ...]" = ()


class Loose(Item):
    """Passes for an Item and can change."""

    __slots__ = ()
    __setattr__ = object.__setattr__


class Pair(NamedTuple):
    left: int
    right: "tuple[Pair, ...] | float" = 0.5


@dataclasses.dataclass(frozen=True)
class Spot:
    x: float


@attrs.define
class Room:
    items: list[Item] = attrs.field(factory=lambda: list[Item]())
    name: str = ""
    rooms: "list[Room] | dict[str, Room]" = attrs.field(factory=lambda: list[Room]())


@attrs.define
class World:
    items: list[Item] = attrs.field(factory=lambda: list[Item]())
    others: list[Item] = attrs.field(factory=lambda: list[Item]())
    numbers: list[int | float] = attrs.field(factory=lambda: list[int | float]())
    texts: tuple[str, ...] = ()
    spots: dict[str, Spot] = attrs.field(factory=lambda: dict[str, Spot]())
    pairs: dict[int, Pair] = attrs.field(factory=lambda: defaultdict[int, Pair](lambda: Pair(0)))
    ids: dict[UUID, str] = attrs.field(factory=lambda: dict[UUID, str]())
    rooms: list[Room] = attrs.field(factory=lambda: list[Room]())
    either: list[Pair] | list[Item] | dict[str, Spot] | None = None
    anything: object = None


def twins() -> list[Any]:
    """Values that are equal and encoded differently, or encoded alike and not the same objects."""
    return [0, 0.0, -0.0, False, 1, 1.0, True, 2**60, float(2**60), "1", "".join(["a", "b"]), "ab", "\ud800", "é", None]


def twin(value: Any) -> Any:
    """Another of the values that are equal to it, if there is any."""
    return next((other for other in POOL if other == value and type(other) is not type(value)), value)


POOL: Final = twins()
KINDS: Final[list[Callable[[Any], Item]]] = [
    Item,
    Item,
    Loose,
    lambda value: Item(value, b"x"),
    lambda value: Item(value, bytearray(b"x")),  # type: ignore[arg-type]  # bytes take them
    lambda value: Item(value, b"", (Item(1, bytearray(b"y")),)),  # type: ignore[arg-type]  # the same
]
WRONG: Final[list[Any]] = [Item([]), "no item", Item(1, "no bytes")]  # type: ignore[arg-type]  # which they are to be


def make_item(make: Callable[[Any], Item], value: Any) -> Item:
    return make(value)


index = st.integers(0, 12)
items = st.builds(make_item, st.sampled_from(KINDS), st.sampled_from(POOL)) | st.sampled_from(
    [*map(Item, POOL), *map(Item, POOL)]
)
runs = st.lists(items, max_size=8)
numbers = st.sampled_from([value for value in POOL if type(value) in {int, float}])
texts = st.sampled_from(["", "a", "b", "ab", "\ud800", "é"])
spots = st.builds(Spot, numbers)
pairs = st.builds(Pair, st.integers(0, 2), st.sampled_from([0.5, (Pair(1),)]))
flags = st.booleans()
values = st.sampled_from(POOL)
few_numbers, few_texts, few_pairs = (st.lists(each, max_size=8) for each in (numbers, texts, pairs))
some_spots = st.dictionaries(texts | st.integers(0, 20).map(str), spots, max_size=8)
some_pairs = st.dictionaries(index, pairs, max_size=8)
list_changes = st.sampled_from(["append", "insert", "extend", "pop", "cut", "replace", "twin", "turn"])
container_changes = st.sampled_from(["copy", "alias", "swap", "room", "inner", "either", "anything"])
other_changes = st.sampled_from(["number", "text", "spot", "pair", "id", "drop", "order", "rename"])


def lists(world: World) -> list[list[Item]]:
    """All lists of items, wherever they are."""
    found = [world.items, world.others, *(room.items for room in world.rooms)]
    for room in world.rooms:
        found += [inner.items for inner in (room.rooms if isinstance(room.rooms, list) else room.rooms.values())]
    return found


def pick(options: list[T], draw: Callable[[Any], Any]) -> T:
    place: int = draw(index)
    return options[place % len(options)]


def change_list(world: World, draw: Callable[[Any], Any]) -> None:
    known = lists(world)
    target = pick(known, draw)
    at = draw(index) % (len(target) + 1)
    match draw(list_changes):
        case "append":
            target.append(draw(items))
        case "insert":
            target.insert(at, draw(items))
        case "extend":
            target += draw(runs)
        case "pop":
            del target[at : at + 1]
        case "cut":
            del target[at : at + draw(index)]
        case "replace":
            target[at : at + 1] = draw(runs)
        case "twin":
            target[at : at + 1] = [Item(twin(each.value)) for each in target[at : at + 1]]
        case _:
            target.reverse()


def change_containers(world: World, draw: Callable[[Any], Any]) -> None:
    """New lists with the same items, one list in two places, lists inside of lists."""
    match draw(container_changes):
        case "copy":
            world.items = [*world.items[draw(index) :], draw(items)]
        case "alias":
            world.others = world.items
        case "swap":
            world.items, world.others = world.others, world.items
        case "room":
            world.rooms.insert(draw(index), Room(world.items if draw(flags) else draw(runs)))
        case "inner":
            for room in world.rooms[-1:]:
                room.name += "x"
                inner = Room(draw(runs))
                room.rooms = [inner] if draw(flags) else {"inner": inner}
        case "either":
            chosen = [None, draw(few_pairs), world.items, world.spots, [Item(1)]]
            world.either = pick(chosen, draw)
        case _:
            world.anything = [world.numbers, {"$set": 1}, "\0", '"\\u00000', b"x"][draw(index) % 5]


def change_others(world: World, draw: Callable[[Any], Any]) -> None:
    match draw(other_changes):
        case "number":
            world.numbers[draw(index) :] = draw(few_numbers)
        case "text":
            world.texts = (*world.texts[draw(index) :], *draw(few_texts))
        case "spot":
            world.spots |= draw(some_spots)
        case "pair":
            world.pairs.update(draw(some_pairs))
        case "id":
            world.ids[UUID(int=draw(index))] = draw(texts)
        case "drop":
            for key in list(world.spots)[draw(index) :][:1]:
                del world.spots[key]
        case "order":
            world.spots = dict(reversed(world.spots.items()))
        case _:
            at = draw(index)
            world.spots = {key + "x" * (place == at): spot for place, (key, spot) in enumerate(world.spots.items())}


def change_the_unchangeable(world: World, draw: Callable[[Any], Any]) -> None:
    """What only looks fixed: subclasses of frozen classes, and bytearrays in the place of bytes."""
    for item in [each for known in lists(world) for each in known]:
        if isinstance(item, Loose):
            item.value = draw(values)  # type: ignore[misc]  # frozen, to a type checker
        for each in (item, *item.parts):
            raw: Any = each.raw
            if isinstance(raw, bytearray):
                raw[:] = b"%d" % draw(index)


CHANGES: Final = [change_list, change_list, change_containers, change_others, change_the_unchangeable]
changes, lengths = st.sampled_from(CHANGES), st.integers(1, 12)
CODEC: Final = StateConverter().state_codec(World)


def mistakes(encode: Callable[[Any], bytes], state: World) -> str:
    with pytest.raises(ValidationError) as caught:
        encode(state)
    return str(caught.value)


def new_world() -> World:
    world = World([Item(value) for value in POOL[:8]], numbers=[0, 1, 1.0, 2**60], texts=("a", "b", "ab", "b"))
    world.spots = {f"spot {place}": Spot(place) for place in range(8)}
    world.pairs.update({place: Pair(place) for place in range(5)})
    return world


def check(draw: Callable[[Any], Any]) -> None:
    """Changes a world, and encodes it now and then."""
    world, encoder = new_world(), CODEC.encoder()
    for _ in range(draw(lengths)):
        draw(changes)(world, draw)
        if draw(flags):
            assert encoder.encode(world) == CODEC.encode(world)
            if (wrong := draw(index)) < len(WRONG):
                known = lists(world)
                target = pick(known, draw)
                target.append(WRONG[wrong])
                assert mistakes(encoder.encode, world) == mistakes(CODEC.encode, world)
                target.pop()
    encoded = encoder.encode(world)
    assert encoded == CODEC.encode(world)
    assert encoder.encode(world) is encoded


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FEW", "FEW_LEAVES"):
        monkeypatch.setattr(remembering, name, 1)
    monkeypatch.setattr(fragments, "CHUNK", 3)
    monkeypatch.setattr(fragments, "MISSES", 3)


def search(*, max_examples: int | None = None) -> None:
    @given(st.data())
    def run(data: st.DataObject) -> None:
        check(data.draw)

    if max_examples is None:
        run = settings(max_examples=settings().max_examples // 2)(run)
    else:
        run = settings(max_examples=max_examples, derandomize=True, database=None, phases=[Phase.generate])(run)
    run()


def test_an_encoder_makes_what_a_codec_makes() -> None:
    search()


fits = Chunk.fits
checked = Checks.check


def fits_equal(self: Chunk, keys: list[Any] | None, items: list[Any], at: int) -> bool:
    end = at + len(self.items)
    return self.fixed and self.items == items[at:end] and (self.keys is None or self.keys == (keys or [])[at:end])


def fits_whatever_the_keys(self: Chunk, keys: list[Any] | None, items: list[Any], at: int) -> bool:
    return fits(self, keys and (self.keys or [])[:0] + [None] * at + (self.keys or []), items, at)


def fits_by_its_ends(self: Chunk, keys: list[Any] | None, items: list[Any], at: int) -> bool:
    end = at + len(self.items)
    same = end <= len(items) and all(map(operator.is_, self.items[::2], items[at:end:2]))
    return self.fixed and same and fits(attrs.evolve(self, items=[*items[at:end]]), keys, items, at)


def fits_though_it_can_change(self: Chunk, keys: list[Any] | None, items: list[Any], at: int) -> bool:
    return fits(attrs.evolve(self, fixed=True), keys, items, at)


def checks_no_parts(self: Checks, kind: type[Any], fields: list[Any]) -> Callable[[Any], bool]:
    return lambda value: type(value) is kind


def checks_no_class(self: Checks, kind: type[Any], fields: list[Any]) -> Callable[[Any], bool]:
    found = [(name, check) for name, check in fields if check is not None]
    return lambda value: all(check(getattr(value, name)) for name, check in found)


PLANTS: Final[list[tuple[str, type, str, Any]]] = [
    ("what is equal passes for the same", Chunk, "fits", fits_equal),
    ("keys are not compared", Chunk, "fits", fits_whatever_the_keys),
    ("not every item is compared", Chunk, "fits", fits_by_its_ends),
    ("what can change is kept", Chunk, "fits", fits_though_it_can_change),
    ("parts of a frozen object are not looked at", Checks, "_fields", checks_no_parts),
    ("a subclass passes for its base", Checks, "_fields", checks_no_class),
]


@pytest.fixture
def planted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    _, owner, name, plant = request.param
    monkeypatch.setattr(owner, name, plant)
    with pytest.MonkeyPatch.context() as patch:
        # Checks are made with the codec.
        patch.setitem(globals(), "CODEC", StateConverter().state_codec(World))
        yield


@pytest.mark.parametrize("planted", PLANTS, ids=lambda plant: plant[0], indirect=True)
@pytest.mark.usefixtures("planted")
def test_the_search_finds(request: pytest.FixtureRequest) -> None:
    with pytest.raises(AssertionError):
        search(max_examples=400)
