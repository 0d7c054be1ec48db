"""The messages of RivetKit's client protocol 4, whatever their encoding.

Values inside them are plain: what `trivet.protocol.values` lists. Field names follow the protocol's, in Python's case.
"""

from typing import Final, TypeAlias

import attrs

from trivet.errors import ActorRef
from trivet.protocol.values import UNDEFINED, Value

PROTOCOL_VERSION: Final = 4


@attrs.frozen
class Init:
    """Server to client, once, when the connection is admitted."""

    actor_id: str
    connection_id: str


@attrs.frozen
class Error:
    """Server to client: of one action, or of the whole connection (`action_id` None). Also an HTTP error's body."""

    group: str
    code: str
    message: str
    metadata: Value = UNDEFINED
    action_id: int | None = None
    actor: ActorRef | None = None


@attrs.frozen
class ActionResponse:
    """Server to client: the result of an action."""

    id: int
    output: Value


@attrs.frozen
class Event:
    """Server to client: an event with its positional arguments."""

    name: str
    args: list[Value]


@attrs.frozen
class ActionRequest:
    """Client to server. `id` is the client's, and any unsigned 64-bit integer."""

    id: int
    name: str
    args: list[Value]


@attrs.frozen
class SubscriptionRequest:
    """Client to server; there is no answer, and asking twice is asking once."""

    event_name: str
    subscribe: bool


ToClient: TypeAlias = Init | Error | ActionResponse | Event
ToServer: TypeAlias = ActionRequest | SubscriptionRequest
