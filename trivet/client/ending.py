"""How connections end, and what their users are told."""

import attrs

from trivet.client.dial import NoTls
from trivet.client.retry import is_lifecycle, is_passing
from trivet.errors import ActorError, ConnectionEnded, ConnectionLost
from trivet.protocol.closing import parse_reason


def copy_error(error: ActorError) -> ActorError:
    """The same error, without a traceback, and of the class that clients see."""
    return ActorError(error.group, error.code, error.message, error.metadata, actor=error.actor, ray_id=error.ray_id)


@attrs.frozen
class Closed:
    """What `on_close` is told: the WebSocket close, and whether the connection will try to come back."""

    code: int
    reason: str
    reconnects: bool


@attrs.frozen
class Ending:
    """How one transport ended. `passing`: another attempt may succeed."""

    message: str
    passing: bool
    code: int | None = None
    reason: str = ""
    error: ActorError | None = None
    cause: Exception | None = None
    lost: bool = False
    """The network ended it, not the other side."""

    def to_exception(self) -> Exception:
        """For everything that is tried afterwards. A new one each time, since each is raised somewhere else."""
        if self.error is not None:
            return copy_error(self.error)
        ended = ConnectionEnded(self.message, code=self.code, reason=self.reason)
        ended.__cause__ = self.cause
        return ended

    def to_entering(self) -> Exception:
        """For whoever waits for the connection to open."""
        if self.cause is not None and not self.lost:
            return self.cause
        if self.error is None and self.lost:
            lost = ConnectionLost(self.message, maybe_executed=False)
            lost.__cause__ = self.cause
            return lost
        return self.to_exception()

    def to_unanswered(self) -> Exception:
        """For a call that was sent and not answered."""
        if self.passing or self.lost:
            return ConnectionLost(self.message)
        return self.to_exception()

    def given_up(self) -> "Ending":
        """The same end, with no further attempt."""
        return attrs.evolve(self, passing=False)


def ending_of_close(code: int, reason: str, *, admitted: bool, creates: bool, said: ActorError | None) -> Ending:
    """Judge a close. `said` is an error of the whole connection that the server had sent before."""
    named = parse_reason(reason)
    error: ActorError | None = None
    if named is not None:
        if said is not None and (said.group, said.code) == (named.group, named.code):
            error = said
        else:
            message = f"The connection was closed with {named.group}.{named.code}"
            error = ActorError(named.group, named.code, message, ray_id=named.ray_id)
    elif said is not None and not admitted:
        error = said
    passing = is_passing(code, error, admitted=admitted, creates=creates)
    if said is not None and not admitted:
        passing = is_lifecycle(said, creates=creates)
    what = f"{code} {reason}".rstrip()
    message = f"The connection was lost ({what})" if passing else f"The connection was ended ({what})"
    # A server may kick with any text, also one that looks like an error's name.
    kicked = code == 1000 and not passing
    return Ending(message, passing, code, reason, None if kicked else error, lost=passing)


def ending_of_error(error: Exception, *, creates: bool) -> Ending:
    """Judge an attempt that came to no connection."""
    if isinstance(error, ActorError):
        passing = is_lifecycle(error, creates=creates)
        return Ending(str(error), passing, error=copy_error(error))
    lost = isinstance(error, ConnectionLost)
    return Ending(str(error), lost and not isinstance(error, NoTls), cause=error, lost=lost)


CLOSED_HERE = Ending("The connection was closed here", passing=False, code=1000)
