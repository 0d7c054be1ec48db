"""Identifiers of actors and requests, as a Rivet Engine writes them: 30 digits in base 36.

The number is a version byte (1), a UUID and a 16-bit label, read with the little end first; its least significant digit
stands first too. Clients treat all of it as opaque.
"""

import re
import uuid
from typing import Final

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_LENGTH: Final = 30
_VERSION: Final = b"\x01"
_ID: Final = re.compile(r"[0-9a-z]{30}")


def encode_id(value: uuid.UUID, label: int = 0) -> str:
    """The id of this UUID. `label` is 0 to 65535; an engine puts the number of its datacenter there."""
    number = int.from_bytes(_VERSION + value.bytes + label.to_bytes(2, "big"), "little")
    digits: list[str] = []
    for _ in range(_LENGTH):
        number, digit = divmod(number, 36)
        digits.append(_DIGITS[digit])
    return "".join(digits)


def new_actor_id() -> str:
    """A random id for an actor."""
    return encode_id(uuid.uuid4())


def new_ray_id() -> str:
    """A random id for a request, which its answer and the log share."""
    return encode_id(uuid.uuid4())


def is_id(text: str) -> bool:
    """Whether the text looks like an id."""
    return _ID.fullmatch(text) is not None
