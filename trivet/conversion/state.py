"""The stored form of an actor's state: canonical JSON with Python's names.

bytes are base64, datetimes ISO 8601, sets sorted arrays, ints plain whatever their size. Where any value is allowed
(`object`), and where the arms of a union would look alike, small objects with keys such as "$bytes" and "$type" say
what is meant. Dicts keep their order, so that a change of order is a change.
"""

import json
from collections.abc import Callable
from typing import Any, Final

import attrs

from trivet.conversion.converter import Converter
from trivet.conversion.leaves import invalid
from trivet.errors import DecodeError

_to_json: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
).encode


@attrs.frozen
class StateCodec:
    """State of one type to bytes and back. Equal states whose dicts have the same order give equal bytes.

    `encode` raises ValidationError for a state that is not of its type, so that nothing is stored that cannot be
    loaded. `decode` raises ValidationError for JSON that is not such a state, and DecodeError for what is no JSON.
    """

    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


class StateConverter(Converter):
    """Prepares codecs for the types of states. Fields outside of `__init__` are stored too, and restored where their
    class is not frozen; fields that are not there take their defaults, and those that are no more are ignored.
    """

    def __init__(self) -> None:
        super().__init__(None, stored=True)

    def state_codec(self, type_: object) -> StateCodec:
        """DefinitionError for a type that cannot be stored."""
        shape = self.shape(type_)
        unstructure, structure = self.unstructurer_of(shape), self.structurer_of(shape)

        def encode(state: Any) -> bytes:
            plain = unstructure(state)
            try:
                text = _to_json(plain)
            except ValueError:
                # More digits than Python turns into text (sys.set_int_max_str_digits).
                raise invalid("an int in the state is too large to be stored") from None
            try:
                return text.encode()
            except UnicodeEncodeError:
                # Lone surrogates have no UTF-8; escaped, they are still JSON.
                return json.dumps(plain, separators=(",", ":")).encode()

        def decode(data: bytes) -> Any:
            try:
                plain = json.loads(data)
            except (ValueError, RecursionError) as error:
                raise DecodeError(f"stored state is not JSON: {error}") from error
            return structure(plain)

        return StateCodec(encode, decode)
