"""JSON text (RFC 8259) with RivetKit's markers, around the standard library's C encoder and decoder.

A value is walked before it is encoded, because the C encoder would turn keys of other types into texts and could not
escape; the walk copies only what has to change. A text is walked after it was decoded only if it can hold a marker, or
brackets enough to be nested too deeply.

Differences from the standard library: numbers are JavaScript's (see `trivet.protocol.values`), NaN, Infinity, lone
surrogates and numbers beyond a float64 are errors.
"""

import base64
import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final, cast

from trivet.errors import DecodeError, EncodeError
from trivet.protocol import compat, envelope
from trivet.protocol.compat import exact_type
from trivet.protocol.values import MAX_SAFE_INTEGER, UNDEFINED, Undefined, Value

_dump = json.JSONEncoder(ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":")).encode
_dump_ascii = json.JSONEncoder(check_circular=False, allow_nan=False, separators=(",", ":")).encode

_ALWAYS_PLAIN: Final = frozenset({str, bool, type(None)})
_NESTED: Final = frozenset({dict, list})


def _prepared(value: Any, depth: int) -> object:
    """The value as the C encoder should see it: itself, where nothing has to change."""
    # Any, because comparing exact types is twice as fast as isinstance, and type checkers cannot follow it.
    kind = exact_type(value)
    if kind is str or kind is bool or value is None:
        return value
    if kind is int:
        if -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER:
            return value
        compat.check_integer(value)
        return [compat.BIGINT_MARKER, str(value)]
    if kind is float:
        compat.check_finite(value)
        return value
    if kind is dict:
        return _prepared_dict(value, depth)
    if kind is list or kind is tuple:
        return _prepared_list(value, depth)
    if kind is bytes:
        return [compat.BYTES_MARKER, base64.b64encode(value).decode()]
    if kind is Undefined:
        return [compat.UNDEFINED_MARKER, 0]
    if kind is set or kind is frozenset:
        return [compat.SET_MARKER, _prepared_members(value, depth)]
    if kind is datetime:
        return compat.iso_8601(value)
    return _prepared(compat.simplified(value), depth)


def _prepared_dict(value: dict[object, object], depth: int) -> object:
    if depth == 0:
        raise compat.Unencodable(compat.TOO_DEEP)
    changed = None
    key: object = None
    try:
        for key, item in value.items():
            if not isinstance(key, str):
                compat.refuse_key(key)
            if type(item) in _ALWAYS_PLAIN:
                continue
            new = _prepared(item, depth - 1)
            if new is not item:
                if changed is None:
                    changed = value.copy()
                changed[key] = new
    except compat.Unencodable as error:
        error.places.append(compat.place(key))
        raise
    return value if changed is None else changed


def _prepared_list(value: list[object] | tuple[object, ...], depth: int) -> object:
    if depth == 0:
        raise compat.Unencodable(compat.TOO_DEEP)
    changed = None
    index = 0
    try:
        for index, item in enumerate(value):
            if type(item) in _ALWAYS_PLAIN:
                continue
            new = _prepared(item, depth - 1)
            if new is not item:
                if changed is None:
                    changed = list(value)
                changed[index] = new
    except compat.Unencodable as error:
        error.places.append(f"[{index}]")
        raise
    if len(value) == 2:
        first = value[0]
        if isinstance(first, str) and first[:1] == "$":
            return ["$" + first, value[1] if changed is None else changed[1]]
    return value if changed is None else changed


def _prepared_members(value: set[object] | frozenset[object], depth: int) -> list[object]:
    """The members of a marker, which are no array of their own: they are not escaped, whatever they are."""
    if depth == 0:
        raise compat.Unencodable(compat.TOO_DEEP)
    members: list[object] = []
    for member in value:
        try:
            members.append(_prepared(member, depth - 1))
        except compat.Unencodable as error:
            error.places.append(f".member({ascii(member)[:40]})")
            raise
    return members


def _plain(value: Any, depth: int) -> object:
    """The value as JSON.stringify writes it: no markers, and what is undefined is left out, or null in an array."""
    kind = exact_type(value)
    if kind is bool or kind is str or value is None:
        return value
    if kind is int:
        if -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER:
            return value
        raise compat.Unencodable("an integer beyond 2^53-1 is no JSON number; send a text instead")
    if kind is float:
        compat.check_finite(value)
        return value
    if kind is Undefined:
        return None
    if kind is datetime:
        return compat.iso_8601(value)
    if kind not in _NESTED:
        if kind is bytes or kind is set or kind is frozenset:
            raise compat.Unencodable(f"{kind.__name__} has no form in plain JSON")
        return _plain(list(value) if kind is tuple else compat.simplified(value), depth)
    if depth == 0:
        raise compat.Unencodable(compat.TOO_DEEP)
    key: object = None
    try:
        if kind is list:
            items: list[object] = []
            for item in value:
                key = len(items)
                items.append(_plain(item, depth - 1))
            return items
        members: dict[str, object] = {}
        for key, item in value.items():
            if not isinstance(key, str):
                compat.refuse_key(key)
            if item is not UNDEFINED:
                members[key] = _plain(item, depth - 1)
        return members
    except compat.Unencodable as error:
        error.places.append(compat.place(key))
        raise


def dumps(value: object, root: str = "value") -> str:
    """The JSON of a value, with markers. Raises EncodeError, in whose message `root` stands for the whole value.

    A lone surrogate is found only when the text is encoded: see `to_bytes`.
    """
    try:
        prepared = _prepared(value, compat.MAX_DEPTH)
        return str(prepared) if exact_type(prepared) is int else _dump(prepared)
    except compat.Unencodable as error:
        raise error.error(root) from None


def dumps_plain(value: object, root: str = "value") -> str:
    """ASCII JSON as JSON.stringify means it, without markers. Raises EncodeError.

    UNDEFINED is left out of objects, and null elsewhere; bytes, sets and integers beyond 2^53-1 are errors.
    """
    try:
        return _dump_ascii(_plain(value, compat.MAX_DEPTH))
    except compat.Unencodable as error:
        raise error.error(root) from None


def to_bytes(text: str, root: str = "message") -> bytes:
    """The UTF-8 of a JSON text. Raises EncodeError for a lone surrogate."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise EncodeError(f"{root}: {compat.LONE_SURROGATE}") from None


def _read_int(text: str) -> int | float:
    if len(text) > 17:
        return compat.number(float(text))
    value = int(text)
    return value if -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER else float(value)


def _read_float(text: str) -> int | float:
    return compat.number(float(text))


def _refuse_constant(name: str) -> object:
    raise DecodeError(f"{name} is no JSON")


_load = json.JSONDecoder(parse_int=_read_int, parse_float=_read_float, parse_constant=_refuse_constant).raw_decode
# A number costs a call from C to Python, but for those that nobody looks at.
_load_texts = json.JSONDecoder(parse_int=float, parse_float=float, parse_constant=_refuse_constant).raw_decode
_WHITESPACE: Final = " \t\n\r"


class Document:
    """A decoded text whose values are still to be revived, each for itself.

    `root` is what the text holds, markers and all. `walk` says whether values need reviving: it starts as the number of
    places where a marker can be, and a reader that has dealt with a marker itself takes one off. For a long text of
    which only texts will be read, `only_texts` leaves its numbers floats, in a third of the time. A reader that knows
    the text around the one value that it wants says where that starts, and the `tail` behind it.
    """

    __slots__ = ("root", "walk")

    def __init__(self, data: bytes | str, *, only_texts: bool = False, start: int = 0, tail: str = "") -> None:
        try:
            if isinstance(data, str):
                text = data
                if not text.isascii():
                    text.encode()
            else:
                text = data.decode()
            if not start:
                text = text.strip(_WHITESPACE)
            self.root: object
            self.root, end = (_load_texts if only_texts else _load)(text, start)
            escapes = "\\u" in text
            if escapes and ("\\ud" in text or "\\uD" in text):
                # A pair of escapes became one character by now; what is still a surrogate has no partner.
                _dump(self.root).encode()
        except UnicodeDecodeError:
            raise DecodeError("a text that is not UTF-8") from None
        except UnicodeEncodeError:
            raise DecodeError("a JSON text with a lone surrogate") from None
        except json.JSONDecodeError as error:
            raise DecodeError(f"invalid JSON at character {error.pos}: {error.msg}") from None
        except RecursionError:
            raise DecodeError("JSON nested too deeply") from None
        if end != len(text) - len(tail) or not text.endswith(tail):
            raise DecodeError(f"invalid JSON at character {end}: Extra data")
        self.walk = text.count('"$')
        if escapes and "\\u0024" in text:
            self.walk += 2
        if len(text) > 2 * compat.MAX_DEPTH and text.count("[") + text.count("{") > compat.MAX_DEPTH:
            self.walk += 2

    def value(self, raw: object) -> Value:
        """One value of the document, revived. Raises DecodeError."""
        if self.walk > 0:
            return _revived(raw, compat.MAX_DEPTH + 2)
        return raw  # type: ignore[return-value]  # it came from the decoder, which makes only values

    def id(self, raw: object) -> int:
        """The id of an action. Raises DecodeError."""
        if exact_type(raw) is list:
            self.walk -= 1
        return envelope.read_id(raw)

    def plain_value(self) -> Value:
        """The whole document, without reviving anything. Raises DecodeError where it is nested too deeply."""
        if self.walk > 0:
            _check_depth(self.root, compat.MAX_DEPTH)
        return self.root  # type: ignore[return-value]  # it came from the decoder, which makes only values


def _revived(raw: Any, depth: int) -> Value:
    """The raw structure with its markers replaced, in place where nothing else is needed."""
    kind = exact_type(raw)
    if kind is list:
        if depth == 0:
            raise DecodeError("JSON nested too deeply")
        if len(raw) == 2 and type(raw[0]) is str and raw[0][:1] == "$":
            return _marked(raw[0], raw[1], depth - 1)
        for index, item in enumerate(raw):
            if type(item) in _NESTED:
                raw[index] = _revived(item, depth - 1)
    elif kind is dict:
        if depth == 0:
            raise DecodeError("JSON nested too deeply")
        for key, item in raw.items():
            if type(item) in _NESTED:
                raw[key] = _revived(item, depth - 1)
    return raw  # type: ignore[no-any-return]  # it came from the decoder, which makes only values


def _marked(marker: str, argument: Any, depth: int) -> Value:
    if marker[:2] == "$$":
        return [marker[1:], _revived(argument, depth)]
    if marker != compat.SET_MARKER:
        return compat.revive_leaf(marker, argument)
    if type(argument) is not list:
        raise DecodeError("$Set needs an array")
    return compat.make_set([_revived(member, depth) for member in cast("list[object]", argument)])


def _check_depth(raw: Any, depth: int) -> None:
    if exact_type(raw) in _NESTED:
        if depth == 0:
            raise DecodeError("JSON nested too deeply")
        items: Iterable[object] = raw if exact_type(raw) is list else raw.values()
        for item in items:
            _check_depth(item, depth - 1)
