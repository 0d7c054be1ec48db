"""The servers that are measured: how each is started, and what its clients say and hear.

A peer's command prints the port on which it listens, on 127.0.0.1, as one line, and serves until its standard input
ends; where it is several processes, their ids follow the port. Adding a peer is adding a class like these, and a line
in `PEERS` or, for calls, in `echoes.ECHOES`.
"""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, Protocol, TypeAlias, get_args

import attrs

Encoding: TypeAlias = Literal["json", "cbor", "bare"]
ENCODINGS: Final[tuple[Encoding, ...]] = get_args(Encoding)

# An event is {"id": "0000000012", "text": "xxx..."}: the digits are found again in the frame of any encoding.
NUMBER_WIDTH: Final = 10
SMALLEST_EVENT: Final = len('{"id":"","text":""}') + NUMBER_WIDTH


@attrs.frozen
class Event:
    """What every event of a run looks like: `size` bytes as compact JSON, whatever encoding it travels in."""

    size: int
    encoding: Encoding

    def value(self, number: int) -> dict[str, str]:
        """The event with this number."""
        return {"id": f"{number:0{NUMBER_WIDTH}d}", "text": "x" * (self.size - SMALLEST_EVENT)}


class Unavailable(Exception):
    """A peer cannot run here. The message says why."""


class Startable(Protocol):
    """A server as it is started."""

    def command(self, directory: Path) -> Sequence[str]:
        """What starts it. `directory` is empty and lives as long as the process. Raises Unavailable."""
        ...


def need(*modules: str) -> None:
    """Raises Unavailable unless these can be imported."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise Unavailable(f"{module} is not installed: `pip install --group bench`")
