"""What is taken down of a world: what actors did, and what clients sent and saw."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, TypeAlias, cast

import attrs

from trivet.errors import ActorError
from trivet.protocol.codec import Codec, codec_for
from trivet.protocol.values import Value
from trivet.testing.network import Link

NEVER: Final = 1 << 60
"""A moment that does not come."""

CODEC: Final = cast("Codec", codec_for("bare"))


def value_key(values: Iterable[Value]) -> bytes:
    """The same for what a client gets as for what was emitted, whatever Python types stand for it."""
    encoded = CODEC.encode_action_request(list(values))
    return CODEC.encode_action_request(CODEC.decode_action_request(encoded))


# -- at the actor -----------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Called:
    """An action, or a hook of a connection, from its beginning to its return."""

    what: Literal["action", "on_connect", "on_disconnect"]
    name: str
    actor: str
    conn: str | None
    kind: str
    moment: int
    serial: bool
    args: tuple[bytes, ...] | None = None
    returned: int = NEVER

    def __str__(self) -> str:
        return self.name


@attrs.define(eq=False)
class Emitted:
    """One event. `to` and `perhaps` are connections that get it if they are subscribed; `only` gets it in any case."""

    number: int
    actor: str
    moment: int
    event: str
    values: Sequence[Value]
    key: bytes
    to: frozenset[str] = frozenset()
    perhaps: frozenset[str] = frozenset()
    only: str | None = None

    def __str__(self) -> str:
        return f"{self.event} #{self.number}"

    @property
    def text(self) -> str:
        """With its payload, cut off where it is long."""
        payload = ", ".join(map(repr, self.values))
        return f"{self} ({payload if len(payload) <= 80 else payload[:77] + '...'})"


Entry: TypeAlias = Called | Emitted


def events_by_actor(entries: Sequence[Entry]) -> Mapping[str, list[Emitted]]:
    """The events of each actor, in the order in which it emitted them."""
    found: dict[str, list[Emitted]] = {}
    for entry in entries:
        if isinstance(entry, Emitted):
            found.setdefault(entry.actor, []).append(entry)
    return found


# -- at the client ----------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class SentCall:
    """A call of a connection, in the order of sending."""

    moment: int
    id: int
    name: str
    args: tuple[bytes, ...]
    answers: int = 0
    error: ActorError | None = None
    given_up: bool = False
    """The caller does not wait any more, or was told that the call may or may not have run."""

    def __str__(self) -> str:
        return self.name


@attrs.define(eq=False)
class Subscription:
    """An event got its first listener, or lost its last."""

    moment: int
    event: str
    wanted: bool
    trace: "Trace | None" = None
    refused: bool = False


@attrs.define(eq=False)
class Arrived:
    """What came to a connection, in the order of arrival: one of an event, an answer, a Dropped and a Gap."""

    moment: int
    event: str | None = None
    values: Sequence[Value] = ()
    key: bytes = b""
    call: SentCall | None = None
    synced: int | None = None
    """The answer to a `sync()` that was asked for at this moment."""
    dropped: tuple[str, int] | None = None
    gap: frozenset[str] = frozenset()
    """The events whose listeners were told of a gap."""


@attrs.define(eq=False)
class Trace:
    """One connection as the actor counts them: from its admission to its end, on however many transports."""

    name: str
    conn: str
    actor: str
    subscribed_first: list[Subscription]
    missed: frozenset[str]
    """The events that had listeners when the connection before this one was lost, and have had them since."""
    arrived: list[Arrived] = attrs.field(factory=list[Arrived])
    ended: int | None = None


@attrs.define(eq=False)
class Watched:
    """One `connect()` of a client, with the connections that it had one after the other."""

    name: str
    link: Link
    sent: list[SentCall | Subscription] = attrs.field(factory=list["SentCall | Subscription"])
    traces: list[Trace] = attrs.field(factory=list[Trace])
    early: list[Arrived] = attrs.field(factory=list[Arrived])
    connected: bool = False
    waiting: int = 0

    @property
    def live(self) -> Trace | None:
        """The connection that has not ended."""
        return self.traces[-1] if self.traces and self.traces[-1].ended is None else None

    @property
    def calls(self) -> list[SentCall]:
        return [sent for sent in self.sent if isinstance(sent, SentCall)]
