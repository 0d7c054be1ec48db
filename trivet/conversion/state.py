"""The stored form of an actor's state: canonical JSON with Python's names."""

from collections.abc import Callable
from typing import Any

import attrs


@attrs.frozen
class StateCodec:
    """State of one type to bytes and back. Equal states of equal order give equal bytes."""

    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


class StateConverter:
    """Prepares codecs for the types of states."""

    def state_codec(self, type_: object) -> StateCodec:
        """DefinitionError for a type that cannot be stored."""
        raise NotImplementedError
