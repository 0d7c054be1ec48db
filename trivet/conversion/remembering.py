"""Unstructuring that remembers: what a long list or dict of fixed values was encoded to is used again.

The hooks leave a token in the place of such a list or dict; the JSON of the rest is made around the tokens, and each is
then replaced by what its list or dict was encoded to. All other values go through the hooks that remember nothing.
"""

import threading
from collections.abc import Callable, Iterator
from typing import Any, Final
from uuid import UUID

from trivet.conversion.annotations import ShapeReader
from trivet.conversion.fixed import Checks, inherits, is_fixed, parts
from trivet.conversion.fragments import Items, Keys, Memory
from trivet.conversion.hooks import UNIFORM
from trivet.conversion.leaves import Hook, is_dict, mismatch
from trivet.conversion.shapes import Collection, Dictionary, Leaf, Shape, resolved
from trivet.conversion.stored_json import dump_json, dump_text, to_json, to_utf8
from trivet.conversion.unstructuring import Unstructuring

FEW: Final = 32
FEW_LEAVES: Final = 512
"""Fewer items, or strings and numbers, are encoded as fast as they are compared: a microsecond buys much there."""

# Different keys of exactly these types are different in JSON too, so that chunks of a dict cannot share one.
_DISTINCT_KEYS: Final = frozenset({str, int, UUID})


class _UnsuitedKey(Exception):
    """A key of a subclass, whose text another key may have too."""


_NOTHING: Final = Memory()


class Current(threading.local):
    """The memory of the state that is being encoded, for each thread, since hooks are shared."""

    def __init__(self) -> None:
        self.memory = _NOTHING


def is_remembered(shape: Shape) -> bool:
    """Whether it is a list, a tuple or a dict of fixed values."""
    match shape:
        case Collection():
            return shape.python_type in {list, tuple} and is_fixed(shape.item)
        case Dictionary():
            key = resolved(shape.key)
            return isinstance(key, Leaf) and key.python_type in _DISTINCT_KEYS and is_fixed(shape.value)
        case _:
            return False


class Remembering(Unstructuring):
    """Makes the hooks that remember. `others` makes those for what is not remembered."""

    def __init__(self, reader: ShapeReader, others: Unstructuring) -> None:
        super().__init__(reader, detailed=False, stored=True)
        self.current = Current()
        self._others = others
        self._checks = Checks()
        self._leads: dict[Shape, bool] = {}

    def hook(self, shape: Shape) -> Hook:
        return super().hook(shape) if self.leads(shape) else self._others.hook(shape)

    def leads(self, shape: Shape) -> bool:
        """Whether there is anything to remember in values of this shape, or below."""
        if shape not in self._leads:
            seen: set[Shape] = set()
            pending = [resolved(shape)]
            while pending and not is_remembered(pending[-1]):
                seen.add(pending[-1])
                pending += [each for each in _in_order(pending.pop()) if each not in seen]
            self._leads[shape] = bool(pending)
        return self._leads[shape]

    def collection(self, shape: Collection) -> Hook:
        if not is_remembered(shape):
            return super().collection(shape)
        inner = resolved(shape.item)
        plain, item, check = self._others.hook(shape), self._others.hook(inner), self._checks.check(inner)
        current, name, few = self.current, shape.name, _few(inner)
        accepts: Any = shape.accepts

        def write(_: Keys, items: Items) -> tuple[bytes, bool]:
            text = to_json([item(part) for part in items])
            return to_utf8(text[1:-1]), check is None or all(map(check, items))

        def unstructure(value: Any, _: object = None) -> Any:
            if not isinstance(value, accepts):
                raise mismatch(name, value)
            if len(value) < few:
                return plain(value)
            memory = current.memory
            return memory.place(b"[", memory.trail(list, inner).chunks(value, None, list(value), write), b"]")

        return unstructure

    def dictionary(self, shape: Dictionary) -> Hook:
        if not is_remembered(shape):
            return super().dictionary(shape)
        inner, names = resolved(shape.value), resolved(shape.key)
        assert isinstance(names, Leaf)
        plain, item, check = self._others.hook(shape), self._others.hook(inner), self._checks.check(inner)
        key, kind = self._others.key(names), names.python_type
        current, name, few = self.current, shape.name, _few(inner)

        def write(keys: Keys, items: Items) -> tuple[bytes, bool]:
            assert keys is not None
            if list(map(type, keys)).count(kind) != len(keys):
                raise _UnsuitedKey
            text = to_json({key(name): item(part) for name, part in zip(keys, items, strict=True)})
            return to_utf8(text[1:-1]), check is None or all(map(check, items))

        def unstructure(value: Any, _: object = None) -> Any:
            if not is_dict(value):
                raise mismatch(name, value)
            if len(value) < few or not inherits(value.__class__, dict, "__iter__", "__len__", "values", "items"):
                return plain(value)
            memory = current.memory
            try:
                chunks = memory.trail(kind, inner).chunks(value, list(value), list(value.values()), write)
            except _UnsuitedKey:
                return plain(value)
            return memory.place(b"{", chunks, b"}")

        return unstructure


def _in_order(shape: Shape) -> Iterator[Shape]:
    """The parts of a shape, but for those of sets: they are sorted by their JSON, which a token would hide."""
    if not (isinstance(shape, Collection) and shape.python_type in {set, frozenset}):
        yield from map(resolved, parts(shape))


def _few(item: Shape) -> int:
    return FEW_LEAVES if isinstance(item, Leaf) and item.python_type in UNIFORM else FEW


class StateEncoder:
    """Encodes one state again and again, each time only what is new in it. One for each living state.

    The bytes are those of `StateCodec.encode`, and so are the errors, after which it goes on as if nothing had been
    asked. Of lists, tuples and dicts whose items cannot change, it keeps the items and their JSON (as much memory again
    as the state takes encoded) and encodes items that it has not seen there before. That is the case for frozen attrs
    classes and dataclasses, NamedTuples, tuples, str, numbers and so on, whose parts are of such types as well.
    Everything else is encoded as a whole: 10,000 mutable objects cost some 30 ms each time, where 10,000 frozen ones
    with a new one at their end cost 1 ms.

    `object.__setattr__` on a frozen object that was encoded goes unnoticed.
    """

    def __init__(self, unstructure: Callable[[Any], Any], current: Current | None) -> None:
        self._unstructure = unstructure
        self._current = current  # None where nothing is to be remembered
        self._memory = Memory()
        self._pieces: list[bytes] = []
        self._encoded = b""

    def encode(self, state: Any) -> bytes:
        """The state as it is stored: the very same bytes object as the last time, if nothing has changed.

        Raises ValidationError for a state that is not of its type.
        """
        if self._current is None:
            encoded = dump_json(self._unstructure(state))
            if encoded != self._encoded:
                self._encoded = encoded
            return self._encoded
        memory = self._memory
        self._current.memory = memory
        try:
            pieces = memory.pieces(dump_text(self._unstructure(state)))
        except BaseException:
            memory.forget()
            raise
        finally:
            self._current.memory = _NOTHING
        memory.step()
        if pieces != self._pieces:
            self._pieces, self._encoded = pieces, b"".join(pieces)
        return self._encoded
