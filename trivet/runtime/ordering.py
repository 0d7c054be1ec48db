"""The messages of one connection in their order: each takes effect once every earlier one has started."""

from typing import TYPE_CHECKING

import attrs

from trivet.definition import ActionDefinition
from trivet.errors import PublicError
from trivet.protocol import extension
from trivet.protocol.messages import ActionRequest, SubscriptionRequest, ToServer
from trivet.runtime import answers, membership
from trivet.runtime.beside import start_concurrent
from trivet.runtime.calls import ActionJob
from trivet.runtime.context import Chain
from trivet.runtime.lifecycle import Phase
from trivet.runtime.subscribing import subscribe

if TYPE_CHECKING:
    from trivet.runtime.session import Session


@attrs.define(eq=False)
class Incoming:
    """A message that has not been released. `size` of calls alone, `deadline` in Trio's time."""

    message: ToServer | extension.Subscribe
    chain: Chain
    size: int = 0
    deadline: float | None = None

    @property
    def event(self) -> str | None:
        """The event that it subscribes to or unsubscribes from."""
        match self.message:
            case SubscriptionRequest(event_name=name) | extension.Subscribe(event=name):
                return name
            case _:
                return None


def take_call(session: "Session", message: ActionRequest, chain: Chain, size: int, deadline: float | None) -> None:
    """Release a call at once, or queue it behind what waits. One that is beyond the bounds is refused, and no more."""
    instance = session.instance
    limits = instance.host.limits
    if session.unanswered_calls >= limits.unanswered_calls:
        session.answer_error(message.id, answers.overloaded("Too many unanswered calls on this connection"))
        return
    if session.unanswered_bytes + size > limits.unanswered_bytes or instance.call_bytes + size > limits.inbox_bytes:
        session.answer_error(message.id, answers.overloaded("The unanswered calls are too large"))
        return
    incoming = Incoming(message, chain, size, deadline)
    if not session.waiting and session.admitted and not session.starting and instance.phase is Phase.RUNNING:
        action = instance.definition.actions.get(message.name)
        if action is None or not action.concurrent:
            charge(session, 1, size)
            _post(session, incoming, message, action)
            return
    queue(session, incoming)


def queue(session: "Session", incoming: Incoming) -> None:
    """Put a message behind what waits. What goes beyond the bounds ends the connection."""
    limits = session.instance.host.limits
    name = incoming.event
    if name is not None and len(name.encode()) > limits.event_name:
        session.protocol_error(PublicError("connection", "event_name_too_long", "The event name is too long"))
    elif len(session.waiting) >= limits.inbox:
        session.protocol_error(answers.overloaded("Too many messages wait on this connection"))
    else:
        if isinstance(incoming.message, ActionRequest):
            charge(session, 1, incoming.size)
        session.waiting.append(incoming)
        advance(session)


def advance(session: "Session") -> None:
    """Release what may start now. After the last of it, a connection that has ended gets its `on_disconnect`."""
    if session.admitted and not session.starting:
        _release(session)
        _say_goodbye(session)


def _say_goodbye(session: "Session") -> None:
    if session.ended and not session.waiting and not session.starting and not session.disconnect_posted:
        session.disconnect_posted = True
        membership.post_disconnect(session.instance, session.conn)


def _release(session: "Session") -> None:
    while session.waiting:
        if session.instance.defers:
            session.instance.wake_soon()
            return
        incoming = session.waiting[0]
        message = incoming.message
        if isinstance(message, ActionRequest):
            action = session.instance.definition.actions.get(message.name)
            if action is not None and action.concurrent:
                if session.posted:
                    return
                del session.waiting[0]
                session.starting = start_concurrent(session.instance, _job(session, incoming, message, action))
                if session.starting:
                    return
                continue  # it is answered; what is behind it goes on
            del session.waiting[0]
            _post(session, incoming, message, action)
        else:
            if session.posted:
                return
            del session.waiting[0]
            if not session.ended and not subscribe(session, message):
                return


def _job(session: "Session", incoming: Incoming, message: ActionRequest, action: ActionDefinition) -> ActionJob:
    job = ActionJob(session, message, action, incoming.chain, incoming.size)
    job.deadline = incoming.deadline
    if session.extended or action.abandoned == "cancel":
        session.calls[message.id] = job
    if session.ended:
        job.give_up()
    return job


def _post(session: "Session", incoming: Incoming, message: ActionRequest, action: ActionDefinition | None) -> None:
    if action is None:
        charge(session, -1, -incoming.size)
        session.answer_error(message.id, answers.action_not_found(message.name))
        return
    job = _job(session, incoming, message, action)
    try:
        session.instance.post_call(job)
    except PublicError as error:
        job.fail(error)
    else:
        session.posted += 1


def charge(session: "Session", calls: int, size: int) -> None:
    """So many calls more are unanswered, and so many bytes of them; fewer where negative."""
    session.unanswered_calls += calls
    session.unanswered_bytes += size
    session.instance.call_bytes += size


def write_off(session: "Session") -> None:
    """The calls that wait may never be released: they count against the actor no longer."""
    for incoming in session.waiting:
        charge(session, 0, -incoming.size)
        incoming.size = 0


def drop(session: "Session") -> None:
    """What waits is never released."""
    write_off(session)
    session.waiting.clear()


def cancel(session: "Session", call_id: int) -> None:
    """Nobody wants the result of a call any more. It overtakes what waits."""
    for incoming in session.waiting:
        if isinstance(incoming.message, ActionRequest) and incoming.message.id == call_id:
            session.waiting.remove(incoming)
            charge(session, -1, -incoming.size)
            session.answer_error(call_id, answers.call_cancelled())
            return
    job = session.calls.get(call_id)
    if job is not None:
        job.cancel()
