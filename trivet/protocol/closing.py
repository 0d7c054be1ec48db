"""Reasons of WebSocket close frames: `group.code`, and `#ray` where a gateway gave the request an id.

A client that reads one raises the same error as for an answer with that group and code.
"""

import re
from typing import Final

import attrs

MAX_REASON: Final = 123
"""Bytes: a control frame holds 125, and the close code takes two (RFC 6455, section 5.5)."""

_REASON: Final = re.compile(r"([^.#\s]+)\.([^.#\s]+)(?:\.[^#\s]*)?(?:#([^#\s]*).*)?", re.DOTALL)


@attrs.frozen
class CloseReason:
    """A reason that names an error."""

    group: str
    code: str
    ray_id: str | None = None


def fit_reason(text: str) -> str:
    """The text cut to what a close frame holds, between characters. A lone surrogate becomes `?`."""
    return text.encode(errors="replace")[:MAX_REASON].decode(errors="ignore")


def format_reason(group: str, code: str, ray_id: str | None = None) -> str:
    """`group.code#ray`. The ray id goes where it does not fit, and then the end of the code."""
    reason = f"{group}.{code}"
    if ray_id is not None and len(f"{reason}#{ray_id}".encode(errors="replace")) <= MAX_REASON:
        reason += f"#{ray_id}"
    return fit_reason(reason)


def parse_reason(reason: str) -> CloseReason | None:
    """The error that a reason names, or None where it is some other text."""
    match = _REASON.fullmatch(reason)
    if match is None:
        return None
    group, code, ray_id = match.groups()
    return CloseReason(group, code, ray_id or None)
