"""Who gets which event: subscriptions, and the hooks that decide about them."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from trivet.definition import EventDefinition
from trivet.errors import PublicError
from trivet.protocol import extension
from trivet.protocol.messages import SubscriptionRequest
from trivet.protocol.values import UNDEFINED
from trivet.runtime import answers
from trivet.runtime.hooks import with_timeout

if TYPE_CHECKING:
    from trivet.runtime.session import Session


def subscribe(session: "Session", message: SubscriptionRequest | extension.Subscribe) -> bool:
    """Put a subscription in force, or end one. False while its hook decides; the messages behind it wait for that."""
    if isinstance(message, SubscriptionRequest):
        name, answer_to = message.event_name, None
        if not message.subscribe:
            session.instance.emitter.unsubscribe(session, name)
            return True
    else:
        name, answer_to = message.event, message.id
    if name in session.subscriptions:
        _subscribed(session, name, answer_to)
        return True
    event = session.instance.definition.events.get(name)
    error = _error(session, event)
    if error is not None:
        _refuse(session, error, answer_to)
        return answer_to is not None
    if event is None or event.subscribe_hook is None:
        _subscribed(session, name, answer_to)
        return True
    session.decide(partial(_ask, session, event, event.subscribe_hook, answer_to))
    return False


def _error(session: "Session", event: EventDefinition | None) -> PublicError | None:
    if len(session.subscriptions) >= session.instance.host.limits.subscriptions:
        return PublicError("connection", "too_many_subscriptions", "Too many subscriptions on this connection")
    if event is None and session.instance.definition.options.strict:
        return PublicError("actor", "event_not_found", "The actor has no such event")
    return None


async def _ask(
    session: "Session", event: EventDefinition, hook: Callable[[Any, Any], Any], answer_to: int | None
) -> None:
    instance, conn = session.instance, session.conn
    try:
        allowed = await with_timeout(instance.connect_hook_timeout, "can_subscribe", lambda: hook(instance.actor, conn))
        if allowed is not True:
            raise answers.forbidden()
        if not session.ended:
            _subscribed(session, event.name, answer_to)
    except Exception as exc:
        _refuse(session, instance.public(exc, f"can_subscribe of {event.name}", conn), answer_to)


def _subscribed(session: "Session", name: str, answer_to: int | None) -> None:
    if name not in session.subscriptions:
        session.instance.emitter.subscribe(session, name)
    if answer_to is not None:
        session.replies.tell(extension.Subscribed(answer_to))


def _refuse(session: "Session", error: PublicError, answer_to: int | None) -> None:
    """RivetKit's clients have no frame for it: their connection ends."""
    if answer_to is None:
        session.protocol_error(error)
    elif not session.ended:
        metadata = UNDEFINED if error.metadata is None else error.metadata
        session.replies.tell(extension.Refused(answer_to, error.group, error.code, error.message, metadata))
