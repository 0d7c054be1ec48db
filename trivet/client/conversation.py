"""What a connection asks, is subscribed to and hears, whatever transport carries it."""

from collections.abc import Callable

import trio

from trivet.client.buffer import Missing
from trivet.client.calls import Calls
from trivet.client.ending import CLOSED_HERE, Ending
from trivet.client.listeners import Listener, Listeners
from trivet.client.observers import Notices
from trivet.client.outgoing import Outgoing
from trivet.client.session import Session
from trivet.client.subscriptions import Subscriptions
from trivet.errors import ActorError, ConnectionLost, Gap
from trivet.limits import Limits
from trivet.protocol.codec import Codec
from trivet.protocol.subprotocols import SessionClaim


class Conversation:
    """The parts of one connection, and the session that they are in: at most one at a time, one after the other."""

    def __init__(self, codec: Codec, limits: Limits, notices: Notices) -> None:
        self.codec = codec
        self.notices = notices
        self.outgoing = Outgoing()
        self.calls = Calls(self.outgoing, limits)
        self.subscriptions = Subscriptions(self.outgoing, codec, limits, self.calls.new_id, self._refused)
        self.listeners = Listeners(self._subscribe, self.subscriptions.wait, notices.report)
        self.session: Session | None = None
        """The current one, also while it has no transport."""
        self.over = False
        """Whether `finish` was called."""
        self._missing: list[Listener] = []
        self._lost_because = ""

    def _subscribe(self, name: str, wanted: bool) -> None:
        if wanted:
            self.subscriptions.subscribe(name)
        else:
            self.subscriptions.unsubscribe(name)

    def _refused(self, name: str, error: ActorError) -> None:
        self.listeners.refuse(name, error)

    def mark(self, listeners: list[Listener], reason: Missing) -> None:
        """Events are missing here: tell these listeners, and whoever asked to know for the whole connection."""
        told = self.listeners.mark(listeners, reason)
        if self.notices.gap:
            self.notices.gap.notify(reason)
        elif not told:
            self.notices.report(reason)

    # -- sessions -----------------------------------------------------------------------------------------------------

    def begin(self, extended: bool) -> Session:
        """A new session begins. Where the one before was lost, its listeners are told of a gap, before any event."""
        self.lose("the server did not go on with it", lambda: ConnectionLost("The session was lost"))
        session = self.session = Session(self.outgoing, extended)
        missing, self._missing = self._missing, []
        if missing:
            self.mark(missing, Gap(self._lost_because))
        return session

    def claim(self) -> SessionClaim | None:
        """What asks the server to go on with the current session."""
        return None if self.session is None else self.session.claim()

    async def expire(self, session: Session) -> None:
        """Lose a session that has had no transport for so long that the server has forgotten it."""
        with session.waiting:
            await trio.sleep_until(session.expires)
            if session is self.session:
                self.lose(
                    "there was no connection for too long", lambda: ConnectionLost("The connection did not come back")
                )

    def lose(self, reason: str, unanswered: Callable[[], Exception]) -> None:
        """The session is over: its calls have no answers, its subscriptions a gap before the next session's events."""
        session, self.session = self.session, None
        if session is None:
            return
        session.resumed()
        self.subscriptions.detach()
        self.calls.fail_sent(unanswered)
        if session.extended:
            self._missing = self.listeners.all()
            self._lost_because = reason

    def finish(self, ending: Ending) -> None:
        """The connection is over: nobody waits for anything any more."""
        self.over = True
        self.outgoing.close()
        self.calls.fail_all(ending.to_exception, ending.to_unanswered)
        self.subscriptions.close()
        self.listeners.finish((lambda: None) if ending is CLOSED_HERE else ending.to_exception)
