"""What a long list or dict of fixed values was encoded from the last time, so that only what is new is encoded again.

The items are kept in chunks, each with its JSON. A chunk is used again where the very same objects (`is`, not `==`: 1,
1.0 and True are equal) stand in a row again. Where to look for that is a guess that may fail, and costs time alone.
"""

import re
import secrets
from collections.abc import Callable
from operator import is_
from typing import Any, Final, TypeAlias

import attrs

from trivet.conversion.stored_json import to_utf8

CHUNK: Final = 64
"""Items of a chunk. Comparing takes some 25 ns for an item and 1 us for a chunk, encoding one item some 4 us."""

MISSES: Final = 64
"""So many places that look like the beginning of a known chunk and are none end the search for one."""

Items: TypeAlias = list[Any]
Keys: TypeAlias = list[Any] | None
Write: TypeAlias = Callable[[Keys, Items], tuple[bytes, bool]]
"""From the keys (of a dict) and the items in a row to their JSON, and whether they are fixed."""


@attrs.frozen(eq=False)
class Chunk:
    """Items in a row and their JSON, without brackets. `fixed` says whether it can be used again."""

    keys: Keys
    items: Items
    text: bytes
    fixed: bool

    def fits(self, keys: Keys, items: Items, at: int) -> bool:
        """Whether the same objects stand there."""
        end = at + len(self.items)
        if not self.fixed or end > len(items) or not all(map(is_, self.items, items[at:end])):
            return False
        return self.keys is None or (keys is not None and all(map(is_, self.keys, keys[at:end])))

    def joined(self, other: "Chunk") -> "Chunk":
        """This one and the one after it as one."""
        keys = None if self.keys is None or other.keys is None else self.keys + other.keys
        return Chunk(keys, self.items + other.items, b"%b,%b" % (self.text, other.text), fixed=True)


class Trail:
    """The chunks of all lists, or of all dicts, of one type in one state."""

    def __init__(self) -> None:
        self._before: dict[int, list[Chunk]] = {}
        self._now: dict[int, list[Chunk]] = {}
        self._starts: dict[int, tuple[list[Chunk], int]] | None = None

    def chunks(self, container: object, keys: Keys, items: Items, write: Write) -> list[Chunk]:
        """The chunks of a list or a dict. What `write` raises passes through."""
        known = self._before.get(id(container))  # a guess: the id may be another's by now
        at = index = 0
        if known is None:
            known, index = self._start(keys, items, 0) or ([], 0)
        found: list[Chunk] = []
        while at < len(items):
            if index < len(known) and known[index].fits(keys, items, at):
                _add(found, known[index])
                at += len(known[index].items)
                index += 1
                continue
            end, known, index = self._next(known, index, keys, items, at)
            for start in range(at, end, CHUNK):
                stop = min(start + CHUNK, end)
                part, names = items[start:stop], None if keys is None else keys[start:stop]
                _add(found, Chunk(names, part, *write(names, part)))
            at = end
        self._now[id(container)] = found
        return found

    def _next(self, known: list[Chunk], index: int, keys: Keys, items: Items, at: int) -> tuple[int, list[Chunk], int]:
        """Where a known chunk stands again, after one that does not: the place, its list and its index there."""
        if index + 1 < len(known):
            place = at + len(known[index].items)  # where nothing but items of this chunk was replaced
            if known[index + 1].fits(keys, items, place):
                return place, known, index + 1
        return self._search(keys, items, at)

    def _search(self, keys: Keys, items: Items, at: int) -> tuple[int, list[Chunk], int]:
        """The next place where a known chunk stands, its list and its index there; the end where there is none."""
        misses = 0
        starts = self._known_starts()
        for place in range(at, len(items)) if starts else ():
            found = starts.get(id(items[place] if keys is None else keys[place]))
            if found is not None:
                if found[0][found[1]].fits(keys, items, place):
                    return place, *found
                misses += 1
                if misses == MISSES:
                    break
        return len(items), [], 0

    def _start(self, keys: Keys, items: Items, at: int) -> tuple[list[Chunk], int] | None:
        return self._known_starts().get(id(items[at] if keys is None else keys[at]))

    def _known_starts(self) -> dict[int, tuple[list[Chunk], int]]:
        """Known chunks by the identity of their first item, or key, which they keep alive."""
        if self._starts is None:
            self._starts = {
                id((chunk.items if chunk.keys is None else chunk.keys)[0]): (chunks, index)
                for chunks in self._before.values()
                for index, chunk in enumerate(chunks)
            }
        return self._starts

    def step(self) -> None:
        """From now on, what was encoded since the last step is what was encoded before."""
        self._before, self._now, self._starts = self._now, {}, None

    def forget(self) -> None:
        """What was encoded since the last step does not count."""
        self._now, self._starts = {}, None


def _add(chunks: list[Chunk], chunk: Chunk) -> None:
    """Append a chunk, as one with the last where both are small: many additions of one item make no small chunks."""
    if chunks and len(chunks[-1].items) + len(chunk.items) <= CHUNK and chunks[-1].fixed and chunk.fixed:
        chunks[-1] = chunks[-1].joined(chunk)
    else:
        chunks.append(chunk)


# No state can hold what looks like a token, since nobody knows how they look. One secret serves the process: to compile
# a pattern takes 0.14 ms, which each actor that woke would have to wait for.
_SECRET: Final = secrets.token_hex(16)
_TOKENS: Final = re.compile(rf'"\\u0000{_SECRET}([0-9]+)"')


class Memory:
    """What one state was encoded from the last time, and the tokens that stand for its lists and dicts this time."""

    def __init__(self) -> None:
        self._trails: dict[tuple[object, ...], Trail] = {}
        self._places: list[list[bytes]] = []

    def trail(self, *of: object) -> Trail:
        """The trail of lists, or of dicts, of one type. Items that move from one list to another stay known."""
        trail = self._trails.get(of)
        if trail is None:
            trail = self._trails[of] = Trail()
        return trail

    def place(self, begin: bytes, chunks: list[Chunk], end: bytes) -> str:
        """A token for what is encoded already."""
        pieces = [begin]
        for chunk in chunks:
            pieces += (chunk.text, b",")
        pieces[-1] = end
        self._places.append(pieces)
        return f"\0{_SECRET}{len(self._places) - 1}"

    def pieces(self, text: str) -> list[bytes]:
        """The JSON of the state, given a text with tokens in it."""
        if not self._places:
            return [to_utf8(text)]
        found: list[bytes] = []
        for index, part in enumerate(_TOKENS.split(text)):
            if index % 2:
                found += self._places[int(part)]
            else:
                found.append(to_utf8(part))
        return found

    def step(self) -> None:
        """The state was encoded."""
        self._places = []
        for trail in self._trails.values():
            trail.step()

    def forget(self) -> None:
        """The state could not be encoded."""
        self._places = []
        for trail in self._trails.values():
            trail.forget()
