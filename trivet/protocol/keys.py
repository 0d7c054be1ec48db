"""Actor keys: a tuple of texts that, with the actor's name, says which actor is meant.

A key is written in two ways. Serialised, as in control messages, nothing is lost. As a query parameter of a
gateway path its components are joined with commas and nothing is escaped: `("a,b",)` reads as
`("a", "b")` and `("",)` as `()`.
"""

import re
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from trivet.errors import PublicError
from trivet.limits import Limits

Key: TypeAlias = tuple[str, ...]

_EMPTY_KEY: Final = "/"
_EMPTY_COMPONENT: Final = "\\0"
# An escape, a separator, a run of anything else, or a backslash at the end.
_TOKEN: Final = re.compile(r"\\.|/|[^\\/]+|\\", re.DOTALL)


def as_key(key: str | Sequence[str]) -> Key:
    """The key that a user gave: one text is a key of one component. Raises TypeError for anything but texts."""
    given: Any = (key,) if isinstance(key, str) else key
    parts: tuple[Any, ...] = tuple(given) if hasattr(given, "__iter__") else (given,)
    if not all(isinstance(part, str) for part in parts):
        raise TypeError(f"a key is a str or several, not {key!r}")
    return parts


def serialise_key(key: Key) -> str:
    r"""The components joined by `/`, with `\` before `\` and `/` in them; an empty one is `\0`, none at all `/`."""
    if not key:
        return _EMPTY_KEY
    return "/".join(part.replace("\\", "\\\\").replace("/", "\\/") if part else _EMPTY_COMPONENT for part in key)


def parse_key(text: str) -> Key:
    r"""The key of a serialised one. Whatever RivetKit's parser takes, which is any text, reads as it reads there.

    So is `\0` anywhere in a component an empty one, `\` before another character that character, and `\` at the end
    itself.
    """
    if text in ("", _EMPTY_KEY):
        return ()
    parts: list[str] = []
    part = ""
    empty = False
    for token in _TOKEN.findall(text):
        if token == "/":
            parts.append("" if empty else part)
            part, empty = "", False
        elif token == _EMPTY_COMPONENT:
            empty = True
        elif token[0] == "\\" and len(token) == 2:
            part += token[1]
        else:
            part += token
            # A backslash at the end is kept even behind an empty component.
            empty = empty and token != "\\"
    parts.append("" if empty else part)
    return tuple(parts)


def parse_bounded_key(text: str, limits: Limits) -> Key:
    """The key of a serialised one from a peer. Raises PublicError as `check_key`, before it costs anything to read."""
    if len(text) > limits.key:
        raise PublicError("actor", "invalid_request", f"The actor key is longer than {limits.key} bytes.")
    key = parse_key(text)
    check_key(key, limits)
    return key


def to_query(key: Key) -> str | None:
    """The value of `rvt-key`, not yet percent-encoded; None, and no parameter at all, for `()`."""
    return ",".join(key) if key else None


def from_query(text: str | None) -> Key:
    """The key of an `rvt-key`."""
    return tuple(text.split(",")) if text else ()


def check_name(name: str, limits: Limits) -> None:
    """Raise PublicError `actor.invalid_request` for an actor name that is empty or too long."""
    if not name:
        raise PublicError("actor", "invalid_request", "The actor name must not be empty.")
    if len(name) > limits.name:
        raise PublicError("actor", "invalid_request", f"The actor name is longer than {limits.name} characters.")


def check_key(key: Key, limits: Limits) -> None:
    """Raise PublicError `actor.invalid_request` for a key that is too long, or has no UTF-8 form."""
    try:
        if any(len(part.encode()) > limits.key_component for part in key):
            message = f"A component of the actor key is longer than {limits.key_component} bytes."
        elif len(serialise_key(key).encode()) > limits.key:
            message = f"The actor key is longer than {limits.key} bytes."
        else:
            return
    except UnicodeEncodeError:
        message = "The actor key holds a lone surrogate."
    raise PublicError("actor", "invalid_request", message)
