"""The errors that the runtime itself answers with, in RivetKit's words where it has them."""

from trivet.errors import ActorRef, PublicError
from trivet.protocol.messages import Error
from trivet.protocol.values import UNDEFINED, Value


def action_not_found(name: str) -> PublicError:
    """A call of what is no action."""
    return PublicError("actor", "action_not_found", f"Action `{name}` was not found.")


def action_timed_out() -> PublicError:
    """An async body ran longer than its timeout."""
    return PublicError("actor", "action_timed_out", "Action timed out")


def call_cancelled() -> PublicError:
    """The client did not want the result any more."""
    return PublicError("actor", "aborted", "The call was cancelled.")


def forbidden() -> PublicError:
    """A subscription was refused."""
    return PublicError("auth", "forbidden", "Forbidden")


def outgoing_too_long() -> PublicError:
    """A result or an event over `Limits.outgoing_message`."""
    return PublicError("message", "outgoing_too_long", "Outgoing message too long")


def overloaded(message: str) -> PublicError:
    """A bound on waiting calls is reached."""
    return PublicError("actor", "overloaded", message)


def stopping() -> PublicError:
    """The actor, or the server, takes no new work."""
    return PublicError("actor", "stopping", "The actor is stopping.")


def cut_off() -> PublicError:
    """A call that had begun was not done in time. Clients call again after `stopping`: not after this."""
    return PublicError("actor", "shutdown_timeout", "The actor was shut down before this was done.")


class NextLife(PublicError):
    """The actor goes to sleep or restarts: what is asked of it now is for its next life."""

    def __init__(self) -> None:
        super().__init__("actor", "stopping", "The actor is stopping.")


def save_failed() -> PublicError:
    """What a call has changed could not be saved, and so has not happened."""
    return PublicError("actor", "save_failed", "The actor could not be saved.")


def not_found() -> PublicError:
    """No actor of that key or id."""
    return PublicError("actor", "not_found", "The actor does not exist or was destroyed.")


def not_registered(name: str) -> PublicError:
    """No actor class of that name."""
    return PublicError("actor", "not_registered", f"There is no actor called `{name}`.")


def duplicate_key(key: str, actor_id: str) -> PublicError:
    """`create` of a key that an actor has."""
    metadata = {"existing_actor_id": actor_id, "key": key}
    message = f"Actor key '{key}' already in use for actor '{actor_id}'"
    return PublicError("actor", "duplicate_key", message, metadata)


def error_message(error: PublicError, action_id: int | None = None, actor: ActorRef | None = None) -> Error:
    """The message that carries an error. Metadata None is no metadata."""
    metadata: Value = UNDEFINED if error.metadata is None else error.metadata
    return Error(error.group, error.code, error.message, metadata, action_id, actor)
