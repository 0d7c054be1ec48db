"""The stored form of an actor's state: canonical JSON with Python's names.

bytes are base64, datetimes ISO 8601, sets sorted arrays, ints plain whatever their size. Where any value is allowed
(`object`), and where the arms of a union would look alike, small objects with keys such as "$bytes" and "$type" say
what is meant. Dicts keep their order, so that a change of order is a change.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

from trivet.conversion.converter import Converter
from trivet.conversion.hooks import two_speeds
from trivet.conversion.plain import marks
from trivet.conversion.remembering import Remembering, StateEncoder
from trivet.conversion.repeatable import is_repeatable
from trivet.conversion.stored_json import check_json, dump_json, load_json
from trivet.protocol.values import Value


class StateCodec:
    """State of one type to bytes and back. Equal states whose dicts have the same order give equal bytes."""

    def __init__(
        self,
        unstructure: Callable[[Any], Any],
        structure: Callable[[Any], Any],
        make_encoder: Callable[[], StateEncoder],
        *,
        repeatable: bool,
    ) -> None:
        self._unstructure = unstructure
        self._structure = structure
        self._make_encoder = make_encoder
        self.repeatable: Final = repeatable
        """Whether the same bytes are decoded to the same state, today and tomorrow."""

    def encoder(self) -> StateEncoder:
        """For one living state, to be encoded again and again as it changes."""
        return self._make_encoder()

    def encode(self, state: Any) -> bytes:
        """The state as it is stored.

        Raises ValidationError for a state that is not of its type, so that nothing is stored that cannot be loaded.
        """
        return dump_json(self._unstructure(state))

    def decode(self, data: bytes) -> Any:
        """The state that was stored.

        Raises ValidationError, which names paths, for JSON that is not such a state, and DecodeError for what is no
        JSON.
        """
        value = load_json(data)
        marks.possible = b'"$' in data or b"\\u0024" in data
        try:
            return self._structure(value)
        finally:
            marks.possible = True

    def to_plain(self, data: bytes) -> object:
        """What is stored as it stands, whatever its type was: dicts, lists, str, int, float, bool and None.

        For migrations, which change it before it is decoded. Raises DecodeError for what is no JSON.
        """
        return load_json(data)

    def from_plain(self, value: object) -> bytes:
        """What `to_plain` gives, as bytes. The value is not checked against the type of the state: `decode` does that.

        Raises ValidationError for what JSON would not give back as it is: a tuple, NaN, a key that is not a str.
        """
        check_json(value)
        return dump_json(value)


class StateConverter(Converter):
    """Prepares codecs for the types of states. Fields outside of `__init__` are stored too, and restored where their
    class is not frozen; fields that are not there take their defaults, and those that are no more are ignored.
    """

    def __init__(self) -> None:
        super().__init__(None, stored=True)
        self._remembering = Remembering(self._reader, self._unstructuring[0])

    def state_codec(self, type_: object) -> StateCodec:
        """DefinitionError for a type that cannot be stored."""
        shape = self.shape(type_)
        remembering = self._remembering

        @cache  # for all encoders, when the first is asked for
        def unstructure() -> Callable[[Any], Any]:
            return two_speeds(remembering.hook(shape), self._unstructuring[1].hook(shape))

        current = remembering.current if remembering.leads(shape) else None

        def make_encoder() -> StateEncoder:
            return StateEncoder(unstructure(), current)

        return StateCodec(
            self.unstructurer_of(shape), self.structurer_of(shape), make_encoder, repeatable=is_repeatable(shape)
        )


_values: Final = StateConverter().state_codec(list[object])


def dump_values(values: Sequence[Value]) -> bytes:
    """The arguments of an action that will run later, as JSON that a person can read.

    Datetimes keep their microseconds and time zones, ints and floats stay apart, which the protocol's own JSON would
    not do. Raises ValidationError.
    """
    return _values.encode(list(values))


def load_values(data: bytes) -> list[Value]:
    """What `dump_values` was given, tuples as lists. Raises ValidationError or DecodeError for anything else."""
    values: list[Value] = _values.decode(data)
    return values
