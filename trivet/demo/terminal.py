"""What the demo writes to the terminal."""

import logging
import os
import shutil
import sys
from typing import Final

from trivet.demo.room import flow

_DIM: Final = "\x1b[2m"
_PLAIN: Final = "\x1b[0m"


class FlowFormatter(logging.Formatter):
    """One line for each event: the time, then what happened, as far as the terminal is wide.

    Names and messages are strangers' texts: what is not printable, escape sequences for one, is not printed.
    """

    def __init__(self, *, colour: bool, width: int | None) -> None:
        super().__init__()
        self._colour = colour
        self._width = width

    def format(self, record: logging.LogRecord) -> str:
        time = self.formatTime(record, "%H:%M:%S")
        text = "".join(character if character.isprintable() else " " for character in record.getMessage())
        room = self._width - len(time) - 2 if self._width is not None else len(text)
        if len(text) > room:
            text = f"{text[: room - 1]}…"
        return f"{_DIM}{time}{_PLAIN}  {text}" if self._colour else f"{time}  {text}"


def show_flow() -> None:
    """Write events to standard output, and warnings and errors of everything else to standard error."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    terminal = sys.stdout.isatty()
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        FlowFormatter(
            colour=terminal and not os.environ.get("NO_COLOR"),
            width=max(shutil.get_terminal_size().columns, 40) if terminal else None,
        )
    )
    flow.addHandler(handler)
    flow.setLevel(logging.INFO)
    flow.propagate = False
