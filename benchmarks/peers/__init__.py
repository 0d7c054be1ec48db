"""The servers that are measured: how each is started, and what its clients say and hear.

A peer's command prints the port on which it listens, on 127.0.0.1, as one line, and serves until its standard input
ends. Adding a peer is adding a module with a class like these, and a line in `PEERS`.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, Protocol, TypeAlias, get_args

import attrs

Role: TypeAlias = Literal["subscriber", "controller"]
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


class Peer(Protocol):
    """One server, and the protocol that its clients speak."""

    answers: int
    """Messages that the controller gets for each call."""

    def command(self, directory: Path) -> Sequence[str]:
        """What starts it. `directory` is empty and lives as long as the process. Raises Unavailable."""
        ...

    def opening(self, role: Role) -> bytes:
        """The upgrade request of a connection."""
        ...

    def greeting(self, role: Role) -> bytes:
        """What a connection sends once it is a WebSocket. Nothing may be lost after its answers."""
        ...

    def welcomes(self, role: Role) -> int:
        """How many messages a connection gets before the first event."""
        ...

    def call(self, number: int) -> bytes:
        """What the controller sends to have this event emitted to all subscribers."""
        ...

    def event_frame(self, number: int) -> bytes:
        """The frame that each subscriber gets for it, byte for byte."""
        ...

    def check_answer(self, number: int, message: bytes) -> None:
        """Raises Violation when the call was not answered as it should be."""
        ...


def _peers() -> Mapping[str, Callable[[Event], Peer]]:
    from benchmarks.peers.floor import CFloor, PythonFloor
    from benchmarks.peers.trivet_actor import TrivetActor

    return MappingProxyType({"trivet": TrivetActor, "floor-python": PythonFloor, "floor-c": CFloor})


PEERS: Final = ("trivet", "floor-python", "floor-c")
FLOORS: Final = ("floor-python", "floor-c")


def make_peer(name: str, event: Event) -> Peer:
    """The peer of this name in `PEERS`."""
    return _peers()[name](event)
