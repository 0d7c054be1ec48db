"""Every error of trivet, divided by what the caller should do about it.

    TrivetError
    ├── ActorError         an actor, or the way to it, answered with an error: `group`, `code`, `message`, `metadata`
    │   └── PublicError    the same, raised inside the server: reaches the client as it is
    │       └── UserError  what actor code raises to tell its client something (group "user")
    ├── ConnectionLost     the connection ended before an answer came; the call may have run
    ├── ConnectionEnded    the connection is over and will not come back: closed here, kicked or refused there
    ├── Gap                the session was lost: events between it and the next one may be missing
    ├── Dropped            the actor's overflow policy left out exactly `count` events of that name
    ├── Lagged             this consumer was too slow, and missed exactly `count` events
    ├── Unsupported        the server does not speak the part of the protocol that this needs
    ├── NoConnection       `self.conn` where no connection caused what runs
    ├── EncodeError        a value that cannot travel
    ├── DecodeError        bytes or values that are not what they should be
    └── DefinitionError    a mistake in an actor class, found at import or registration

Any other exception that leaves actor code reaches the client as `rivetkit.internal_error`, without its text.
"""

from collections.abc import Mapping
from typing import Any, Final

import attrs

INTERNAL_ERROR_MESSAGE: Final = "An internal error occurred"


class TrivetError(Exception):
    """Base of every error that trivet raises on purpose."""


@attrs.frozen
class ActorRef:
    """Which life of which actor an error came from. `key` is the serialised key, None where unknown."""

    actor_id: str
    generation: int
    key: str | None = None


class ActorError(TrivetError):
    """An answer that is an error.

    `group` and `code` are RivetKit's vocabulary (`actor.not_found`, `user.my_code`); `metadata` is any plain value
    that the raiser attached, or None. `actor` names the actor where the answer named it, and `ray_id` the request
    where the gateway gave it an id.
    """

    def __init__(
        self,
        group: str,
        code: str,
        message: str,
        metadata: Any = None,
        *,
        actor: ActorRef | None = None,
        ray_id: str | None = None,
    ) -> None:
        super().__init__(group, code, message, metadata)
        self.group = group
        self.code = code
        self.message = message
        self.metadata = metadata
        self.actor = actor
        self.ray_id = ray_id

    def __str__(self) -> str:
        return f"{self.group}.{self.code}: {self.message}"


class PublicError(ActorError):
    """An error that the server tells its client as it is: group, code, message and metadata."""


class UserError(PublicError):
    """Raise it in actor code to tell the client something. HTTP status 400.

    `code` is for programs (default "user_error"), `message` for people, `metadata` any value that can travel.
    """

    def __init__(self, message: str, *, code: str = "user_error", metadata: Any = None) -> None:
        super().__init__("user", code, message, metadata)


class ConnectionLost(TrivetError):
    """The connection broke before the answer came. `maybe_executed`: the action may have run, or may yet run."""

    def __init__(self, message: str, *, maybe_executed: bool = True) -> None:
        super().__init__(message)
        self.maybe_executed = maybe_executed


class ConnectionEnded(TrivetError):
    """The connection is over for good. `code` and `reason` are those of the WebSocket close, where there was one."""

    def __init__(self, message: str, *, code: int | None = None, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class Lagged(TrivetError):
    """An `events()` consumer fell behind its buffer; exactly `count` events before the next one are gone."""

    def __init__(self, count: int) -> None:
        super().__init__(f"{count} events were dropped because this consumer was too slow")
        self.count = count


class Gap(TrivetError):
    """The session was lost, and a new one began: events that were emitted between the two are not known to be here.

    Whoever holds a copy of the actor's state reads it again. `reason` says in English why the session was lost.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"events may be missing: {reason}")
        self.reason = reason


class Dropped(TrivetError):
    """Exactly `count` events of that name were left out here, by the overflow policy that the actor declares."""

    def __init__(self, event: str, count: int) -> None:
        super().__init__(f"{count} events {event!r} were dropped by their overflow policy")
        self.event = event
        self.count = count


class Unsupported(TrivetError):
    """The server speaks RivetKit's protocol only, which cannot say what was asked for."""


class NoConnection(TrivetError):
    """`self.conn` was read where no connection caused what runs: in `run` and in the lifecycle hooks."""


class EncodeError(TrivetError, ValueError):
    """A value that cannot travel. The message names its place, as in `args[0].user: ...`."""


class DecodeError(TrivetError, ValueError):
    """Bytes that no peer should have sent. The only error that a decoder raises."""


class DefinitionError(TrivetError, TypeError):
    """An actor class that cannot work. Raised at import or at registration; the message says what to do."""


# HTTP statuses as RivetKit answers them; a client looks at the number only to tell success from failure. User errors
# are 400 (RivetKit's documentation), though its server sends 500. Group-wide entries have the code None.
_STATUS: Final[Mapping[tuple[str, str | None], int]] = {
    ("user", None): 400,
    ("auth", "forbidden"): 403,
    ("actor", "not_found"): 404,
    ("actor", "action_not_found"): 404,
    ("actor", "no_request_handler"): 404,
    ("actor", "no_websocket_handler"): 404,
    ("actor", "not_registered"): 404,
    ("api", "not_found"): 404,
    ("actor", "method_not_allowed"): 405,
    ("actor", "action_timed_out"): 408,
    ("actor", "invalid_request"): 400,
    ("actor", "validation_error"): 400,
    ("actor", "aborted"): 400,
    ("actor", "duplicate_key"): 400,
    ("actor", "deadlock"): 409,
    ("actor", "overloaded"): 503,
    ("actor", "stopping"): 503,
    ("actor", "restarting"): 503,
    ("message", None): 400,
    ("queue", None): 400,
    ("guard", "rate_limit"): 429,
    ("guard", "service_unavailable"): 503,
    ("guard", None): 400,
    ("api", None): 400,
    ("namespace", None): 400,
    ("validation", None): 400,
}


def http_status(error: ActorError) -> int:
    """The HTTP status that answers with this error."""
    status = _STATUS.get((error.group, error.code))
    return status or _STATUS.get((error.group, None), 500)


def internal_error() -> PublicError:
    """What a client is told when actor code raises anything but a PublicError. The text stays in the log."""
    return PublicError("rivetkit", "internal_error", INTERNAL_ERROR_MESSAGE)
