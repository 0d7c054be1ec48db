"""One events connection: its admission, its incoming messages in order, its subscriptions, its end."""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Self

from trivet.definition import ActionDefinition, EventDefinition
from trivet.errors import EncodeError, PublicError, internal_error
from trivet.protocol.closing import format_reason
from trivet.protocol.messages import ActionRequest, ActionResponse, Error, Init, SubscriptionRequest, ToClient, ToServer
from trivet.protocol.values import UNDEFINED, Value
from trivet.raw import Request
from trivet.runtime import answers
from trivet.runtime.admission import Admission
from trivet.runtime.calls import ActionJob
from trivet.runtime.connection import Conn, ConnStatistics
from trivet.runtime.context import Chain, current_chain
from trivet.runtime.hooks import with_timeout
from trivet.runtime.logs import logger
from trivet.runtime.outbox import Format, Outbox, Transport, log_too_slow
from trivet.runtime.scope import TaskScope

if TYPE_CHECKING:
    from trivet.runtime.instance import Instance

NORMAL: Final = 1000
GOING_AWAY: Final = 1001
INTERNAL: Final = 1011
TRY_AGAIN_LATER: Final = 1013


class Session:
    """What the carrier of an events connection talks to. Enter it, feed it, leave it when the transport is gone.

    Messages are handled in the order in which they are received: serial actions go to the actor's inbox, concurrent
    ones and subscriptions take effect once every earlier message of this connection has started. None of its methods
    blocks, so the reader that feeds it never stops.
    """

    __slots__ = (
        "_admission",
        "_admitted",
        "_chain",
        "_ended",
        "_incoming",
        "_kicked",
        "_params",
        "_posted",
        "_scope",
        "_starting",
        "_told",
        "_unanswered",
        "conn",
        "format",
        "instance",
        "outbox",
        "subscriptions",
    )

    def __init__(
        self,
        instance: "Instance",
        transport: Transport,
        format: Format,
        params: Value,
        request: Request,
    ) -> None:
        self.instance = instance
        self.format = format
        self.conn: Conn[Any, Any] = Conn(instance, "events", request)
        self.subscriptions: dict[str, None] = {}
        host = instance.host
        self._scope = TaskScope(host.tasks)
        self.outbox = Outbox(
            transport,
            format,
            flusher=instance.flusher,
            backlog=host.backlog,
            timers=host.timers,
            scope=self._scope,
            on_too_slow=self._too_slow,
        )
        self._params = params
        self._chain: Chain = current_chain()
        self._admission: Admission | None = None
        self._admitted = False
        self._ended = False
        self._kicked = False
        self._told = False
        # Messages that have not been released; serial actions released to the inbox but not started; whether a
        # concurrent action or a subscription was released and has not taken effect yet.
        self._incoming: deque[tuple[ToServer, Chain]] = deque()
        self._posted = 0
        self._starting = False
        self._unanswered = 0

    # -- admission and end --------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._admission = Admission(self.instance, self.conn, self._params, self._chain)
        if self.instance.definition.admits_inline:
            await self._admit(self._admission)
        else:
            self._scope.start_soon(self._admit, self._admission)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._end()
        self.outbox.break_()
        await self._scope.aclose()

    async def _admit(self, admission: Admission) -> None:
        try:
            await admission.prepare()
            self.conn._session = self
            await admission.admit(self._welcome)
        except PublicError as error:
            self._refuse(error)

    def _welcome(self) -> None:
        self._admitted = True
        if self._ended:  # it left, or was kicked, while on_connect ran
            self.instance.forget(self)
        else:
            self._send(Init(self.instance.actor_id, self.conn.id))
        self._advance()

    def _refuse(self, error: PublicError) -> None:
        if self._ended:
            return
        self._ended = True
        self._send(answers.error_message(error))
        self.outbox.close(self.format.close_frame(INTERNAL, format_reason(error.group, error.code)))

    def _end(self) -> None:
        """The connection leaves the actor. Its calls that have started, or were sent before it left, go on."""
        if self._ended:
            return
        self._ended = True
        self.instance.forget(self)
        if self._admission is not None:
            self._admission.withdraw()
        self._advance()

    def end(self, code: int, reason: str) -> None:
        """End the connection from this side: what is queued, then the close frame."""
        self._end()
        self.outbox.close(self.format.close_frame(code, reason))

    def kick(self, reason: str) -> None:
        """`conn.disconnect(reason)`."""
        self._kicked = True
        self._incoming.clear()
        self.end(NORMAL, reason)

    def _too_slow(self) -> None:
        log_too_slow(self.conn.id, self.outbox.statistics())
        self._end()
        self.outbox.abandon(self.format.close_frame(TRY_AGAIN_LATER, "connection.too_slow"))

    # -- what the transport says --------------------------------------------------------------------------------------

    def close(self, code: int, reason: str) -> None:
        """Answer the peer's close frame, or begin to close: after what is queued."""
        self.end(code, reason)

    def protocol_error(self, error: PublicError) -> None:
        """The peer sent what cannot be handled: its connection ends with 1011 and the error's name."""
        self._incoming.clear()
        self.end(INTERNAL, format_reason(error.group, error.code))

    def send_control(self, frame: bytes) -> None:
        """A ping or pong frame, in order with the rest."""
        self.outbox.put(frame)

    def receive(self, message: ToServer, *, chain: Chain = ()) -> None:
        """Handle a message after all earlier ones. `chain` are the turns that its sender, in this process, holds."""
        if self._ended:
            return
        limits = self.instance.host.limits
        if isinstance(message, ActionRequest):
            if self._unanswered >= limits.unanswered_calls:
                self.answer_error(
                    message.id, answers.overloaded("Too many unanswered calls on this connection"), count=False
                )
                return
            self._unanswered += 1
        elif len(self._incoming) >= limits.inbox:
            self.protocol_error(answers.overloaded("Too many messages wait on this connection"))
            return
        self._incoming.append((message, chain))
        self._advance()

    def _advance(self) -> None:
        """Release what may start now. After the last of it, a connection that has ended gets its `on_disconnect`."""
        if self._admitted and not self._starting:
            self._release()
            if self._ended and not self._incoming and not self._starting and not self._told:
                self._told = True
                self.instance.post_disconnect(self.conn)

    def _release(self) -> None:
        while self._incoming:
            message, chain = self._incoming[0]
            if isinstance(message, ActionRequest):
                action = self.instance.definition.actions.get(message.name)
                if action is not None and action.concurrent:
                    if self._posted:
                        return
                    self._incoming.popleft()
                    self._starting = True
                    self.instance.start_concurrent(ActionJob(self, message, action, chain))
                    return
                self._incoming.popleft()
                self._post(message, action, chain)
            else:
                if self._posted:
                    return
                self._incoming.popleft()
                if not self._subscribe(message):
                    return

    def _post(self, message: ActionRequest, action: ActionDefinition | None, chain: Chain) -> None:
        if action is None:
            self.answer_error(message.id, answers.action_not_found(message.name))
            return
        try:
            self.instance.post_call(ActionJob(self, message, action, chain))
        except PublicError as error:
            self.answer_error(message.id, error)
        else:
            self._posted += 1

    def started(self, concurrent: bool) -> bool:
        """A call has begun. False when it shall not run after all, for its connection was kicked."""
        if concurrent:
            self._starting = False
        else:
            self._posted -= 1
        if self._incoming or self._ended:
            self._advance()
        return not self._kicked

    # -- answers ------------------------------------------------------------------------------------------------------

    def answer(self, action_id: int, output: Value) -> None:
        """The result of a call. One that is too large or cannot travel is an error of that call alone."""
        self._unanswered -= 1
        if self._ended:
            return
        try:
            payload = self.format.codec.encode_to_client(ActionResponse(action_id, output))
        except EncodeError as error:
            logger.error("%s: the result of a call cannot travel: %s", self.instance.describe(), error)
            self._send(answers.error_message(internal_error(), action_id))
            return
        if len(payload) > self.instance.host.limits.outgoing_message:
            self._send(answers.error_message(answers.outgoing_too_long(), action_id))
        else:
            self.outbox.put(self.format.frame(payload))

    def answer_error(self, action_id: int, error: PublicError, *, count: bool = True) -> None:
        """The error of a call. The connection goes on."""
        if count:
            self._unanswered -= 1
        if not self._ended:
            self._send(answers.error_message(error, action_id, self.instance.ref))

    def _send(self, message: ToClient) -> None:
        codec = self.format.codec
        try:
            payload = codec.encode_to_client(message)
        except EncodeError as error:
            logger.error("%s: the metadata of an error cannot travel: %s", self.instance.describe(), error)
            assert isinstance(message, Error)
            payload = codec.encode_to_client(
                Error(message.group, message.code, message.message, UNDEFINED, message.action_id)
            )
        self.outbox.put(self.format.frame(payload))

    # -- subscriptions ------------------------------------------------------------------------------------------------

    def _subscribe(self, message: SubscriptionRequest) -> bool:
        """Put a subscription in force. False while its hook decides; the messages behind it wait for that."""
        if self._ended:
            return True
        name = message.event_name
        if not message.subscribe:
            self.instance.emitter.unsubscribe(self, name)
            return True
        if name in self.subscriptions:
            return True
        event = self.instance.definition.events.get(name)
        error = self._subscription_error(name, event)
        if error is not None:
            self.protocol_error(error)
            return False
        if event is None or event.subscribe_hook is None:
            self.instance.emitter.subscribe(self, name)
            return True
        self._starting = True
        self._scope.start_soon(self._ask, event, event.subscribe_hook)
        return False

    def _subscription_error(self, name: str, event: EventDefinition | None) -> PublicError | None:
        limits = self.instance.host.limits
        if len(name.encode()) > limits.event_name:
            return PublicError("connection", "event_name_too_long", "The event name is too long")
        if len(self.subscriptions) >= limits.subscriptions:
            return PublicError("connection", "too_many_subscriptions", "Too many subscriptions on this connection")
        if event is None and self.instance.definition.options.strict:
            return PublicError("actor", "event_not_found", "The actor has no such event")
        return None

    async def _ask(self, event: EventDefinition, hook: Callable[[Any, Any], Any]) -> None:
        instance = self.instance
        try:
            with instance.caused_by(self.conn, self._chain):
                allowed = await with_timeout(
                    instance.connect_hook_timeout, "can_subscribe", lambda: hook(instance.actor, self.conn)
                )
            if allowed is not True:
                raise answers.forbidden()
            if not self._ended:
                instance.emitter.subscribe(self, event.name)
        except Exception as exc:
            self.protocol_error(instance.public(exc, f"can_subscribe of {event.name}", self.conn))
        finally:  # also when the client has left: the calls behind it go on
            self._starting = False
            self._advance()

    def statistics(self) -> ConnStatistics:
        """Counts, see ConnStatistics."""
        queued = self.outbox.statistics()
        return ConnStatistics(
            queued.queued_messages,
            queued.queued_bytes,
            queued.sent_messages,
            self._unanswered,
            len(self.subscriptions),
        )

    @property
    def ended(self) -> bool:
        """Whether the connection has left the actor."""
        return self._ended
