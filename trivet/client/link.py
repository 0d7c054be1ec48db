"""How a connection is kept: one transport after the other, until it is over."""

import logging
from collections.abc import Awaitable, Callable

import trio

from trivet.client.backend import Backend, Target
from trivet.client.conversation import Conversation
from trivet.client.ending import CLOSED_HERE, Closed, Ending, ending_of_error
from trivet.client.observers import Status
from trivet.client.retry import Backoff
from trivet.client.transport import Transport
from trivet.errors import ActorError, ConnectionLost
from trivet.limits import Limits
from trivet.protocol.messages import Init
from trivet.protocol.values import Value

STABLE_AFTER = 5.0
"""A connection that lived so many seconds has its next attempt at once; a shorter one goes on backing off."""

logger = logging.getLogger("trivet.client")


class Link:
    """Attempts to lead a conversation over a transport, until one ends for good or `finish` is called."""

    def __init__(
        self,
        backend: Backend,
        target: Target,
        params: Callable[[], Awaitable[Value]],
        limits: Limits,
        conversation: Conversation,
        *,
        reconnect: bool,
    ) -> None:
        self.status: Status = "idle"
        self.actor_id: str | None = None
        self.conn_id: str | None = None
        self.transport: Transport | None = None
        """The one that is open."""
        self.end: Ending | None = None
        """Why it is over."""
        self.settled = trio.Event()
        """Set once the connection is open for the first time, or over."""
        self.finished = trio.Event()
        """Set once the last transport is gone."""
        self._backend = backend
        self._target = target
        self._params = params
        self._limits = limits
        self._conversation = conversation
        self._notices = conversation.notices
        self._reconnect = reconnect
        self._backoff = Backoff()
        self._ever_admitted = False

    async def run(self, nursery: trio.Nursery) -> None:
        """Attempt after attempt. Never raises. `nursery` holds what waits for a session's end, and outlives this."""
        try:
            patience = trio.current_time() + self._limits.connect_timeout
            while self.end is None:
                self._set_status("connecting")
                started = trio.current_time()
                ending = await self._attempt(nursery)
                now = trio.current_time()
                if self._is_over():
                    break
                if not self._reconnect or not ending.passing or (not self._ever_admitted and now >= patience):
                    self.finish(ending.given_up())
                    break
                logger.debug("%s: %s; trying again", self._target, ending.message)
                self._set_status("disconnected")
                if self._ever_admitted and now - started >= STABLE_AFTER:
                    self._backoff.reset()
                session = self._conversation.session
                delay = self._backoff.next() if session is None else self._backoff.next(session.patience)
                if not self._ever_admitted:
                    delay = min(delay, max(0.0, patience - now))
                await trio.sleep(delay)
        except Exception as error:
            self.finish(Ending(f"The connection broke down: {error!r}", passing=False, cause=error))
        finally:
            self.finish(CLOSED_HERE)
            self.finished.set()

    def _is_over(self) -> bool:
        return self.end is not None

    async def _attempt(self, nursery: trio.Nursery) -> Ending:
        """One transport, from opening to its end."""
        creates = self._target.creates
        try:
            params = await self._params()
        except Exception as error:
            if not self._ever_admitted:
                return Ending(f"The parameters could not be had: {error!r}", passing=False, cause=error)
            self._notices.report(error)
            return Ending("The parameters could not be had", passing=True, lost=True)
        try:
            claim = self._conversation.claim()
            async with self._backend.open_stream(self._target, params, claim) as stream:
                transport = Transport(self._conversation, stream, self._limits, creates=creates, opened=self._opened)
                self.transport = transport
                try:
                    ending = await transport.run()
                finally:
                    self.transport = None
                self._detach(transport, ending, nursery)
                return ending
        except (ActorError, ConnectionLost) as error:
            return ending_of_error(error, creates=creates)

    def _opened(self, init: Init | None) -> None:
        if init is not None:
            self.actor_id = init.actor_id
            self.conn_id = init.connection_id
        self._ever_admitted = True
        self._set_status("connected")
        self.settled.set()
        self._notices.open.notify()

    def _detach(self, transport: Transport, ending: Ending, nursery: trio.Nursery) -> None:
        """The transport is gone, and the session too, unless it may have another one."""
        conversation = self._conversation
        conversation.outgoing.pause()
        reconnects = self._reconnect and ending.passing and self.end is None
        session = conversation.session
        broken = ending.code == 1006 and session is not None and session.resumable and reconnects
        if transport.unusable is not None or not (broken or transport.undecided):
            conversation.lose(ending.message, ending.to_unanswered)
        elif session is not None and not transport.undecided:
            session.broken()
            nursery.start_soon(conversation.expire, session)
        if transport.admitted:
            code = 1006 if ending.code is None else ending.code
            self._notices.close.notify(Closed(code, ending.reason, reconnects))

    def finish(self, ending: Ending) -> None:
        """The connection is over. Only the first reason counts."""
        if self.end is not None:
            return
        self.end = ending
        unheard = not self._notices.close and not self._notices.error
        if self._ever_admitted and ending is not CLOSED_HERE and unheard:
            # A program that only listens to events would wait for ever, and never know what for.
            logger.warning("the connection to %s is over: %s", self._target, ending.message)
        self._conversation.finish(ending)
        self._set_status("closed")
        self.settled.set()

    def _set_status(self, status: Status) -> None:
        if status != self.status and self.status != "closed":
            self.status = status
            self._notices.status.notify(status)
