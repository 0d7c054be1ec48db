"""Where the runtime logs, and how it writes what clients chose."""

import logging
from typing import Final

logger: Final = logging.getLogger("trivet")

_MOST: Final = 80


def printable(text: str) -> str:
    """Text of a client's choice for a log line: one line, without control characters, not longer than 80."""
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text[:_MOST])
    return shown if len(text) <= _MOST else shown + "..."
