"""How names, literals and comments are written in TypeScript."""

import json
import re
from collections.abc import Iterable
from enum import Enum
from typing import Any, Final

from trivet.protocol.values import MAX_SAFE_INTEGER

# ECMAScript's reserved words, those of strict mode and of modules included.
# fmt: off
_RESERVED_WORDS: Final = frozenset({
    "arguments", "await", "break", "case", "catch", "class", "const", "continue", "debugger", "default", "delete", "do",
    "else", "enum", "eval", "export", "extends", "false", "finally", "for", "function", "if", "implements", "import",
    "in", "instanceof", "interface", "let", "new", "null", "package", "private", "protected", "public", "return",
    "static", "super", "switch", "this", "throw", "true", "try", "typeof", "var", "void", "while", "with", "yield",
})
_RESERVED_TYPES: Final = frozenset({
    "any", "bigint", "boolean", "never", "number", "object", "string", "symbol", "undefined", "unknown",
})
# fmt: on
# A declaration of such a name would hide what the other declarations mean by it.
_USED_TYPES: Final = frozenset({"Date", "EventPayload", "Registry", "Set", "Uint8Array"})

_IDENTIFIER: Final = re.compile(r"[^\W\d]\w*")


class Names:
    """Gives out names that are free and allowed."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = {*taken, *_RESERVED_WORDS}

    def parameter(self, name: str) -> str:
        """The name, or the name with underscores."""
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name

    def type(self, name: str) -> str:
        """The name without what no identifier has, numbered where another type has it."""
        base = re.sub(r"\W", "", name)
        if not _IDENTIFIER.fullmatch(base):
            base = f"_{base}"
        free, number = base, 1
        while free in self._taken:
            number += 1
            free = f"{base}{number}"
        self._taken.add(free)
        return free


def type_names() -> Names:
    """For the types of one file."""
    return Names(_RESERVED_TYPES | _USED_TYPES)


def is_identifier(name: str) -> bool:
    return _IDENTIFIER.fullmatch(name) is not None


def key(name: str) -> str:
    """The name of a property."""
    return name if is_identifier(name) else string(name)


def string(text: str) -> str:
    """A literal that stays on its line. Without surrogates it is written as it reads."""
    is_unicode = not any("\ud800" <= character <= "\udfff" for character in text)
    escaped = json.dumps(text, ensure_ascii=not is_unicode)
    return escaped.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def literal(value: Any) -> str:
    """The type of one plain value, or the nearest that TypeScript has."""
    if isinstance(value, Enum):
        value = value.value
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value)) if abs(value) <= MAX_SAFE_INTEGER else f"{int(value)}n"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) <= MAX_SAFE_INTEGER else "number"
    if isinstance(value, bytes):
        return "Uint8Array"
    return string(str.__str__(value))


def union(types: Iterable[str]) -> str:
    """Without repetition; nothing at all is never."""
    return " | ".join(dict.fromkeys(types)) or "never"


def comment(text: str | None, indent: str = "") -> list[str]:
    """A TSDoc comment, as lines; none for no text."""
    lines = (text or "").replace("*/", "*\\/").strip().splitlines()
    if not lines:
        return []
    if len(lines) == 1:
        return [f"{indent}/** {lines[0]} */"]
    return [f"{indent}/**", *(f"{indent} * {line}".rstrip() for line in lines), f"{indent} */"]
