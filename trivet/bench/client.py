"""What a load generator has to know of a server: what its clients say and hear.

A load is a process of its own, so clients travel to it by name: "module:callable", and the arguments of the call.
"""

import importlib
import socket
from collections.abc import Mapping
from typing import Literal, Protocol, TypeAlias, cast, runtime_checkable

import attrs

Role: TypeAlias = Literal["subscriber", "controller"]


@attrs.frozen
class ClientSpec:
    """How a load process makes its client."""

    factory: str
    arguments: Mapping[str, str | int]

    def make(self) -> object:
        """The client."""
        module, _, name = self.factory.partition(":")
        return getattr(importlib.import_module(module), name)(**self.arguments)


class Reader(Protocol):
    """Cuts what a socket receives into messages."""

    sock: socket.socket

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that became whole. Raises Violation."""
        ...


class FanoutClient(Protocol):
    """The clients of a fan-out: subscribers, and a controller that has events emitted."""

    answers: int
    """Messages that the controller gets for each call."""
    events_per_call: int
    """Events that every subscriber gets for each call."""

    @property
    def event_bytes(self) -> int:
        """Of the first event, with its frame."""
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

    def is_event(self, number: int, message: bytes) -> bool:
        """Whether a subscriber got what it should get as the event with this number."""
        ...

    def check_answer(self, number: int, message: bytes) -> None:
        """Raises Violation when the call was not answered as it should be."""
        ...

    def heartbeat(self, message: bytes) -> bytes | None:
        """What to send for a message with which a server looks whether its client is there; None for all others."""
        ...


@runtime_checkable
class Acknowledging(Protocol):
    """What a client of a fan-out has beside that, whose subscribers tell the server what they have."""

    acknowledge_every: int
    """As soon as a subscriber has got so many events since the last time."""
    acknowledge_within: float
    """In so many seconds, when it has got fewer."""

    def acknowledgement(self, events: int) -> bytes:
        """What a subscriber sends that has so many events in all."""
        ...


class CallClient(Protocol):
    """A client whose requests are answered one by one."""

    ordered: bool
    """Whether the answers of one connection come in the order of its requests."""

    def connect(self, port: int, timeout: float, name: int) -> Reader:
        """A new connection to 127.0.0.1, ready for requests. Raises Violation, OSError."""
        ...

    def request(self, number: int) -> bytes:
        """What to send."""
        ...

    def answered(self, message: bytes) -> int | None:
        """Which request this answers; None where answers do not say. Raises Violation for a wrong one."""
        ...


def make_fanout_client(spec: ClientSpec) -> FanoutClient:
    """The client that a specification names."""
    return cast("FanoutClient", spec.make())


def make_call_client(spec: ClientSpec) -> CallClient:
    """The client that a specification names."""
    return cast("CallClient", spec.make())
