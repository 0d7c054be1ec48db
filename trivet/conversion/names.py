"""The names of fields on the wire."""

import re
from collections.abc import Mapping
from typing import Final

WIRE_KEY: Final = "wire"

_WORD_BREAK: Final = re.compile(r"(?<=[^_])_+([a-zA-Z0-9])")


def camel_case(name: str) -> str:
    """`send_message` → `sendMessage`, as JavaScript spells it.

    Underscores between words go, and the letter after them becomes a capital; nothing else changes. So a name that
    is camelCase already stays, leading and trailing underscores stay (`_id` → `_id`), and a digit keeps its place
    (`line_2` → `line2`, `x2_y` → `x2Y`).
    """
    return _WORD_BREAK.sub(lambda match: match[1].upper(), name)


def same_name(name: str) -> str:
    """For names that travel as they are."""
    return name


def wire_name(name: str) -> Mapping[str, str]:
    """Metadata that gives one field its name on the wire, for attrs classes and dataclasses alike:
    `attrs.field(metadata=wire_name("ID"))`.
    """
    return {WIRE_KEY: name}
