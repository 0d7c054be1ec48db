"""Which ends and errors are passing, and how long to wait before the next attempt.

| end of a connection                                                   | what happens                       |
| --------------------------------------------------------------------- | ---------------------------------- |
| no close frame (1006), 1001, 1012, 1013, 1014, 1005                   | reconnect                          |
| 1000, 1011 or 1013 with a passing `group.code` as its reason          | reconnect                          |
| 1011 without a `group.code` (a proxy or a crash)                      | reconnect                          |
| any other `group.code`, unless with 1000; an Error frame, no Init     | final, ActorError                  |
| 1000 with any other reason, or none: the server ended it on purpose   | final, ConnectionEnded             |
| every other code (1002, 1003, 1007, 1008, 1009, 4000-4999)            | final, ConnectionEnded             |

Passing codes are RivetKit's lifecycle signals, and what one broken message does to a connection that may well live
again. A connection that was never admitted is more easily given up: there, only lifecycle signals are passing.
"""

import math
import random
from typing import Final

import attrs

from trivet.errors import ActorError

LIFECYCLE_CODES: Final = frozenset(
    {
        "actor.not_found",
        "actor.starting",
        "actor.stopping",
        "actor.stopped",
        "actor.restarting",
        "actor.destroying",
        "actor.not_configured",
        "actor.dropped_reply",
        "ws.going_away",
        "guard.service_unavailable",
        "guard.actor_ready_timeout",
        "guard.actor_runner_failed",
        "guard.actor_wake_retries_exceeded",
        "guard.actor_stopped_while_waiting",
        "guard.tunnel_request_aborted",
        "guard.tunnel_message_timeout",
        "guard.tunnel_response_closed",
        "guard.gateway_response_start_timeout",
    }
)
"""The actor, or the way to it, is about to be there. An action that was answered with one of them has not run."""

BOUNDARY_CODES: Final = frozenset(
    {"actor.restarting", *(code for code in LIFECYCLE_CODES if code.startswith("guard."))}
) - {"guard.actor_ready_timeout", "guard.actor_runner_failed"}
"""Those that RivetKit's client retries for handles by id too, and only a few times."""

BROKEN_MESSAGE_CODES: Final = frozenset(
    {
        "actor.overloaded",
        "actor.send_failed",
        "connection.too_slow",
        "message.incoming_too_long",
        "message.outgoing_too_long",
    }
)
"""A connection that was admitted ended with one of these. Nothing is replayed, so that the next one may live."""

PASSING_CLOSE_CODES: Final = frozenset({1001, 1005, 1006, 1012, 1013, 1014})


def is_lifecycle(error: ActorError, *, creates: bool) -> bool:
    """Whether the same request may succeed in a moment.

    An actor that does not exist is an answer, unless the request would have created it: then it has just been
    destroyed.
    """
    name = f"{error.group}.{error.code}"
    if name == "actor.not_found":
        return creates
    return name in LIFECYCLE_CODES or (error.group == "actor" and error.code.startswith("destroyed_"))


def retry_delay(error: ActorError, *, by_key: bool, creates: bool, action: str, attempt: int) -> float | None:
    """Seconds until a stateless request is sent again after its `attempt`-th answer, or None: the answer stands.

    The codes and waits of RivetKit's client, except that a missing actor is not asked for again where asking does not
    create it. A handle by id names one life of an actor, which no waiting brings back.
    """
    name = f"{error.group}.{error.code}"
    if name in BOUNDARY_CODES:
        return 0.025 * 2 ** (attempt - 1) if attempt < 5 and action != "destroy" else None
    if by_key and is_lifecycle(error, creates=creates):
        return 0.1 if attempt < (60 if creates else 24) else None
    return None


def is_passing(code: int, error: ActorError | None, *, admitted: bool, creates: bool) -> bool:
    """Whether a connection that was closed with `code`, and the error its reason names, is worth another attempt."""
    if error is not None and code in {1000, 1011, 1013}:
        if is_lifecycle(error, creates=creates):
            return True
        return admitted and f"{error.group}.{error.code}" in BROKEN_MESSAGE_CODES
    return code in PASSING_CLOSE_CODES or code == 1011


@attrs.define
class Backoff:
    """Waits that grow from `first` to at most `longest` seconds, each with full jitter.

    Full jitter, a uniform choice between nothing and the whole wait, keeps a crowd of clients that lost the same server
    from returning in step.
    """

    first: float = 0.25
    longest: float = 30.0
    rng: random.Random = attrs.field(factory=random.Random, repr=False)
    attempts: int = 0

    def next(self, longest: float = math.inf) -> float:
        """Seconds to wait now, at most `longest`."""
        whole = min(self.longest, longest, self.first * 2.0 ** min(self.attempts, 32))
        self.attempts += 1
        return self.rng.uniform(0.0, whole)

    def reset(self) -> None:
        """After a success."""
        self.attempts = 0
