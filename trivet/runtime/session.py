"""One events connection: its admission, what its client says, the answers, its end. See ordering.py for the order."""

import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

import trio

from trivet.errors import PublicError
from trivet.protocol import extension
from trivet.protocol.closing import format_reason
from trivet.protocol.messages import ActionRequest, Init, ToServer
from trivet.protocol.messages import Event as EventMessage
from trivet.protocol.values import Value
from trivet.raw import Request
from trivet.runtime import answers, membership
from trivet.runtime.absence import Absence
from trivet.runtime.admission import Admission
from trivet.runtime.calls import ActionJob
from trivet.runtime.connection import Conn, ConnStatistics
from trivet.runtime.context import Chain, caused_by, current_chain
from trivet.runtime.ordering import Incoming, advance, cancel, charge, drop, queue, take_call, write_off
from trivet.runtime.outbox import Outbox, log_too_slow
from trivet.runtime.received import Received
from trivet.runtime.replies import Replies
from trivet.runtime.scope import TaskScope
from trivet.runtime.transport import Format, Transport

if TYPE_CHECKING:
    from trivet.runtime.instance import Instance

NORMAL: Final = 1000
GOING_AWAY: Final = 1001
INTERNAL: Final = 1011
SERVICE_RESTART: Final = 1012
TRY_AGAIN_LATER: Final = 1013


class Session:
    """What the carrier of an events connection talks to. Enter it, feed it, leave it when the transport is gone.

    With a client that speaks trivet's extension it is `extended`: when its transport breaks it stays in the actor for
    `Limits.resume_window`, under a token in `Host.sessions`, until `resume` gives it another transport.

    Messages are handled in the order in which they are received: serial actions go to the actor's inbox, concurrent
    ones and subscriptions take effect once every earlier message of this connection has started. None of its methods
    blocks, so the reader that feeds it never stops.
    """

    __slots__ = (
        "_admission",
        "_chain",
        "_first_transport",
        "_kicked",
        "_params",
        "_scope",
        "_timeouts",
        "_visiting",
        "absence",
        "admitted",
        "calls",
        "conn",
        "disconnect_posted",
        "ended",
        "extended",
        "farewell",
        "format",
        "instance",
        "outbox",
        "posted",
        "received",
        "replies",
        "starting",
        "subscriptions",
        "token",
        "unanswered_bytes",
        "unanswered_calls",
        "waiting",
    )

    def __init__(
        self,
        instance: "Instance",
        transport: Transport,
        format: Format,
        params: Value,
        request: Request,
        *,
        extended: bool = False,
    ) -> None:
        self.instance = instance
        self._first_transport = transport
        self.format = format
        self.extended = extended
        self.token = secrets.token_urlsafe(24) if extended else ""
        """What resumes it: 192 random bits."""
        self.farewell: tuple[int, str] | None = None
        """How it ended while its client was away."""
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
            dropped_frame=self._dropped_frame,
            on_broken=self._wait_for_client if extended else None,
        )
        self.replies = Replies(instance, self.outbox, format)
        self.received = Received(host.timers, self.replies) if extended else None
        self._visiting = True
        instance.visitors += 1  # until it is admitted, or not
        self._params = params
        self._chain: Chain = current_chain()
        self._admission: Admission | None = None
        self._kicked = False
        self._timeouts: dict[int, float] = {}
        """When calls that are about to come end, by their number."""
        self.absence = Absence(host.timers, host.limits.resume_window) if extended else None
        # What ordering.py goes by.
        self.admitted = False
        self.ended = False
        """Whether the connection has left the actor."""
        self.disconnect_posted = False
        self.waiting: list[Incoming] = []
        self.posted = 0
        """Serial actions that were released to the inbox and have not started."""
        self.starting = False
        """Whether a concurrent action or a subscription was released and has not taken effect yet."""
        self.calls: dict[int, ActionJob] = {}
        """Those that were released and can be called off, by their number."""
        self.unanswered_calls = 0
        self.unanswered_bytes = 0

    # -- admission and end --------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self.instance.definition.admits_inline:
            await self._admit()
        else:
            self._scope.start_soon(self._admit)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.leave(self._first_transport)

    async def leave(self, transport: Transport | None) -> None:
        """The transport is gone. An extended session that has not ended waits for its client to come back."""
        if transport is not self.outbox.transport and not self.ended:
            return  # another one has taken over
        if self.extended and self.admitted and not self.ended and self.instance.keeps_sessions:
            self.outbox.detach()
            self._wait_for_client()
            return
        self._end()
        self.outbox.break_()
        await self._scope.aclose()

    def _wait_for_client(self) -> None:
        """The outbox has no transport any more."""
        if self.received is not None:
            self.received.stop()
        if self.absence is not None and not self.ended:
            self.absence.begin(self.give_up)

    @property
    def away(self) -> bool:
        """Whether it waits for its client to come back."""
        return self.outbox.detached and not self.ended

    def give_up(self) -> None:
        """Wait for the client no longer."""
        self._end()
        self.outbox.break_()
        self._scope.cancel()

    def resume(self, transport: Transport, format: Format, received: int) -> bool:
        """Go on over another transport, whose client has so many counted messages. False when that cannot be."""
        old = self.outbox.transport
        if self.ended or not self.admitted or format is not self.format:
            return False
        if not self.outbox.attach(transport, received):
            return False
        if old is not None:
            old.abort()
        assert self.absence is not None
        assert self.received is not None
        self.absence.end()
        resumed = extension.Resumed(self.received.told_now())
        self.outbox.put_first(self.format.extension_frame(extension.encode(resumed)))
        return True

    async def _admit(self) -> None:
        try:
            while True:
                await self.instance.awake()
                self._admission = admission = Admission(self.instance, self.conn, self._params, self._chain)
                try:
                    await admission.prepare()
                    self.conn._session = self
                    await admission.admit(self._welcome)
                    return
                except answers.NextLife:
                    pass  # it went to sleep meanwhile: the next life admits
        except PublicError as error:
            self._refuse(error)
        finally:
            self._arrive()

    def _arrive(self) -> None:
        if self._visiting:
            self._visiting = False
            self.instance.leave()

    def _welcome(self) -> None:
        self.admitted = True
        if self.ended:  # it left, or was kicked, while on_connect ran
            membership.forget(self.instance, self)
        else:
            init = self.format.codec.encode_to_client(Init(self.instance.actor_id, self.conn.id))
            self.replies.out(partial(self.outbox.put_control, self.format.frame(init)))
            if self.extended:
                self.instance.host.sessions[self.token] = self
                opened = extension.SessionOpened(self.token, self.instance.host.limits.resume_window)
                self.replies.out(partial(self.replies.control, opened))
        advance(self)

    def _refuse(self, error: PublicError) -> None:
        if self.ended:
            return
        self.ended = True
        self._arrive()
        write_off(self)
        self.replies.send(answers.error_message(error))
        self._close(INTERNAL, format_reason(error.group, error.code))

    def _end(self) -> None:
        """The connection leaves the actor. Its calls that have started, or were sent before it left, go on."""
        if self.ended:
            return
        self.ended = True
        self._arrive()
        if not self.admitted:
            write_off(self)
        membership.forget(self.instance, self)
        if self._admission is not None:
            self._admission.withdraw()
        if self.received is not None:
            self.received.stop()
        if self.absence is not None:
            self.absence.end()
        self._abandon_calls()
        advance(self)
        if self.extended and self.farewell is None:
            self.instance.host.sessions.pop(self.token, None)

    def _abandon_calls(self) -> None:
        """What its calls do when their client is gone for good is their own policy."""
        for job in list(self.calls.values()):
            job.give_up()

    def end(self, code: int, reason: str) -> None:
        """End the connection, or answer its peer's close frame: what is queued, then ours. One away is told later."""
        if self.ended and self.farewell is not None:
            return  # its client will be told how it ended, and that was otherwise
        if self.away:
            self.farewell = (SERVICE_RESTART, "actor.restarting") if self._kicked else (code, reason)
            window = self.instance.host.limits.resume_window
            self.instance.host.timers.call_later(window, self._forget_farewell)
        self._end()
        self._close(code, reason)

    def _close(self, code: int, reason: str) -> None:
        """What was sent before, then the close frame. If that could not be saved there is one all the same."""
        undone = (code, reason)
        if self._kicked:  # that somebody was told to leave is then undone, as everything in its turn
            undone = (SERVICE_RESTART, "actor.restarting")
        self.replies.out(partial(self._say, code, reason), lambda _: self._say(*undone))

    def _say(self, code: int, reason: str) -> None:
        if self.farewell is not None:
            self.farewell = (code, reason)
        self.outbox.close(self.format.close_frame(code, reason))

    def _forget_farewell(self) -> None:
        self.instance.host.sessions.pop(self.token, None)

    def kick(self, reason: str) -> None:
        """`conn.disconnect(reason)`."""
        self._kicked = True
        drop(self)
        self.end(NORMAL, reason)

    def _too_slow(self) -> None:
        log_too_slow(self.conn.id, self.outbox.statistics())
        self._end()
        self.outbox.abandon(self.format.close_frame(TRY_AGAIN_LATER, "connection.too_slow"))

    # -- what the transport says --------------------------------------------------------------------------------------

    def protocol_error(self, error: PublicError) -> None:
        """The peer sent what cannot be handled: its connection ends with 1011 and the error's name."""
        drop(self)
        self.end(INTERNAL, format_reason(error.group, error.code))

    def send_control(self, frame: bytes) -> None:
        """A ping or pong frame, in order with the rest."""
        self.outbox.put_control(frame)

    def receive(self, message: ToServer, *, size: int = 1, chain: Chain = ()) -> None:
        """Handle a message after all earlier ones.

        `size` is that of its frame; `chain` are the turns that its sender, in this process, holds.
        """
        if self.received is not None:
            self.received.note(more=not self.ended)
        if self.ended:
            return
        if isinstance(message, ActionRequest):
            deadline = self._timeouts.pop(message.id, None) if self._timeouts else None
            take_call(self, message, chain, size, deadline)
        else:
            queue(self, Incoming(message, chain))

    def receive_extension(self, message: extension.ExtensionToServer, *, chain: Chain = ()) -> None:
        """Handle a message of the extension."""
        if message.counted and self.received is not None:
            self.received.note(more=not self.ended)
        if self.ended:
            return
        match message:
            case extension.Ack(received):
                if not self.outbox.acknowledge(received):
                    self.protocol_error(
                        PublicError("actor", "invalid_request", "An acknowledgement of what was not sent")
                    )
            case extension.Subscribe():
                queue(self, Incoming(message, chain))
            case extension.Sync(sync_id):
                self.replies.tell(extension.Synced(sync_id))
            case extension.Cancel(call_id):
                cancel(self, call_id)
            case extension.Timeout(call_id, seconds):
                if len(self._timeouts) < self.instance.host.limits.unanswered_calls:
                    self._timeouts[call_id] = trio.current_time() + seconds
            case extension.Bye():
                self.end(NORMAL, "")

    # -- the order of messages: see ordering.py ------------------------------------------------------------------------

    def forget_goodbye(self) -> None:
        """Its `on_disconnect` is another's to run."""
        self.disconnect_posted = True

    def renew(self) -> None:
        """The actor lives again. What its last life has not done will not be done."""
        self.posted = 0
        self.starting = False
        self.calls.clear()
        advance(self)

    def look_again(self) -> None:
        """The actor's life has ended. What has arrived since then wakes it."""
        if self.waiting:
            advance(self)

    def started(self, job: ActionJob) -> bool:
        """A call has begun. False when it shall not run after all: its connection was kicked, or it was cancelled."""
        if job.action.concurrent:
            self.starting = False
        else:
            self.posted -= 1
        if self.waiting or self.ended:
            advance(self)
        if self._kicked or (self.ended and job.action.abandoned == "cancel"):
            job.fail(answers.stopping())
            return False
        if job.cancelled:
            job.fail(answers.call_cancelled())
            return False
        return True

    # -- answers ------------------------------------------------------------------------------------------------------

    def answer(self, job: ActionJob, output: Value) -> None:
        """The result of a call. One that is too large or cannot travel is an error of that call alone."""
        self._settle(job)
        if not self.ended:
            self.replies.answer(job.id, output, job.action)

    def answer_error(self, action_id: int, error: PublicError, job: ActionJob | None = None) -> None:
        """The error of a call. The connection goes on."""
        if job is not None:
            self._settle(job)
        if not self.ended:
            self.replies.answer_error(action_id, error)

    def _settle(self, job: ActionJob) -> None:
        charge(self, -1, -job.size)
        if self.calls.get(job.id) is job:
            del self.calls[job.id]

    def _dropped_frame(self, event: str, count: int) -> bytes:
        """Tells the client that events gave way: RivetKit's clients by an event of this name."""
        if self.extended:
            return self.format.extension_frame(extension.encode(extension.Dropped(event, count)))
        told = EventMessage("trivet.dropped", [{"event": event, "count": count}])
        return self.format.frame(self.format.codec.encode_to_client(told))

    # -- subscriptions: see subscribing.py ----------------------------------------------------------------------------

    def decide(self, ask: Callable[[], Awaitable[None]]) -> None:
        """Let a hook decide. The messages behind it wait, and a stop too: until then this connection has not left."""
        decided = trio.Event()
        self.starting = True
        self.instance.run_outside(decided.wait)
        self._scope.start_soon(self._decide, ask, decided)

    async def _decide(self, ask: Callable[[], Awaitable[None]], decided: trio.Event) -> None:
        try:
            with caused_by(self.instance, self.conn, self._chain):
                await ask()
        finally:  # also when the client has left: the calls behind it go on
            self.starting = False
            advance(self)
            decided.set()

    def statistics(self) -> ConnStatistics:
        """Counts, see ConnStatistics."""
        queued = self.outbox.statistics()
        return ConnStatistics(
            queued.queued_messages,
            queued.queued_bytes,
            queued.sent_messages,
            queued.unacknowledged,
            queued.dropped,
            self.unanswered_calls,
            len(self.subscriptions),
        )
