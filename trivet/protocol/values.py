"""The plain values that travel, and what they are in JavaScript.

| Python                    | JavaScript                                   |
| ------------------------- | -------------------------------------------- |
| None                      | null                                         |
| UNDEFINED                 | undefined                                    |
| bool, str                 | boolean, string                              |
| int up to 2^53-1          | number                                       |
| int beyond                | BigInt                                       |
| float (finite)            | number                                       |
| bytes                     | Uint8Array                                   |
| list, tuple               | array                                        |
| dict with str keys        | object                                       |
| set, frozenset            | Set                                          |
| datetime (aware)          | Date; in JSON an ISO 8601 string             |

A decoder gives one Python type for one JavaScript value in every encoding: an integral number up to 2^53-1 is an int
however it was written, a larger number a float, a BigInt always an int.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Final, Literal, TypeAlias, final

MAX_SAFE_INTEGER: Final = 2**53 - 1


@final
class Undefined:
    """The type of UNDEFINED."""

    _instance: "Undefined | None" = None

    def __new__(cls) -> "Undefined":
        if cls._instance is None:
            cls._instance = super().__new__(cls)
        return cls._instance

    def __repr__(self) -> str:
        return "UNDEFINED"

    def __bool__(self) -> Literal[False]:
        return False

    def __reduce__(self) -> str:
        return "UNDEFINED"


UNDEFINED: Final = Undefined()
"""JavaScript's undefined: an argument, an input or a result that is not there."""

Value: TypeAlias = (
    Undefined
    | bool
    | int
    | float
    | str
    | bytes
    | datetime
    | Sequence["Value"]
    | AbstractSet["Value"]
    | Mapping[str, "Value"]
    | None
)
