"""What a client needs from whatever leads to the actors: a network, or the same process."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeAlias

import attrs

from trivet.client.outgoing import Frame
from trivet.protocol.codec import Codec
from trivet.protocol.subprotocols import SessionClaim
from trivet.protocol.values import UNDEFINED, Value
from trivet.raw import Response, WebSocket


@attrs.frozen
class ByKey:
    """The actor under a name and key. `creates`: it is created, with `input`, if it is not there."""

    name: str
    key: tuple[str, ...]
    creates: bool = False
    input: Value = attrs.field(default=UNDEFINED, repr=False)
    """Shown nowhere: it may be secret."""

    def __str__(self) -> str:
        return f"{self.name}[{','.join(self.key)}]"


@attrs.frozen
class ById:
    """The actor with that id, whatever its name."""

    actor_id: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.name}({self.actor_id})"

    @property
    def creates(self) -> bool:
        return False


Target: TypeAlias = ByKey | ById


class MessageStream(Protocol):
    """One transport of an events connection: encoded messages, whole and in order."""

    @property
    def extended(self) -> bool:
        """Whether the other side speaks trivet's extension."""
        ...

    async def send(self, frame: Frame) -> None:
        """Send one message, waiting for room. Raises WebSocketClosed."""
        ...

    async def receive(self) -> tuple[bytes | str, bool]:
        """The next message, and whether it is one of the extension.

        Raises WebSocketClosed, after what had arrived before the close.
        """
        ...

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """Say goodbye, and wait for the answer within a deadline. `receive` raises WebSocketClosed then."""
        ...


class Backend(ABC):
    """The way to the actors. Every method raises ActorError for an answer, and ConnectionLost for the lack of one."""

    @property
    @abstractmethod
    def codec(self) -> Codec:
        """The encoding of calls and messages."""

    @abstractmethod
    async def resolve(self, target: Target) -> str:
        """The id of the actor."""

    @abstractmethod
    async def create(self, name: str, key: tuple[str, ...], input: Value) -> str:
        """Create the actor; its id. ActorError `actor.duplicate_key` where there is one."""

    @abstractmethod
    async def call(self, target: Target, action: str, args: list[Value], params: Value, timeout: float) -> Value:
        """A stateless call. One attempt: a lifecycle error is raised like any other."""

    @abstractmethod
    def open_stream(
        self, target: Target, params: Value, claim: SessionClaim | None
    ) -> AbstractAsyncContextManager[MessageStream]:
        """A transport for one events connection, in a new session, or in the claimed one if the server agrees.

        Leaving ends it at once.
        """

    @abstractmethod
    async def fetch(
        self,
        target: Target,
        path: str,
        method: str,
        headers: Mapping[str, str],
        body: bytes,
        params: Value,
        timeout: float,
    ) -> Response:
        """A raw request. The actor's answer is returned whatever its status. One attempt."""

    @abstractmethod
    def websocket(self, target: Target, path: str, params: Value) -> AbstractAsyncContextManager[WebSocket]:
        """A raw WebSocket. Leaving closes it."""

    def capture_context(self) -> object:
        """Asked in the caller's task for each call; its frame carries it to `MessageStream.send`."""
        return None
