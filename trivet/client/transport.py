"""One transport of a connection: what is written to it, and what is made of what it brings."""

from collections.abc import Callable

import trio

from trivet.client.backend import MessageStream
from trivet.client.conversation import Conversation
from trivet.client.ending import Ending, ending_of_close
from trivet.client.outgoing import extension_frame
from trivet.client.session import Session
from trivet.errors import ActorError, DecodeError, Dropped
from trivet.limits import Limits
from trivet.nurseries import open_quiet_nursery
from trivet.protocol import extension
from trivet.protocol.messages import ActionResponse, Error, Event, Init, ToClient
from trivet.protocol.values import UNDEFINED, Value
from trivet.raw import WebSocketClosed

DROPPED_EVENT = "trivet.dropped"
"""What a trivet server tells clients without the extension of what an overflow policy left out: {event, count}."""


class Transport:
    """One transport, from its opening to its end.

    It carries a session from its first counted message on: a new one, unless the server says before anything else that
    it goes on with the one that was claimed. `opened` is called when the actor has admitted a new session, with its
    Init, or when it goes on with the old one, with None.
    """

    _nursery: trio.Nursery

    def __init__(
        self,
        conversation: Conversation,
        stream: MessageStream,
        limits: Limits,
        *,
        creates: bool,
        opened: Callable[[Init | None], None],
    ) -> None:
        self.admitted = False
        """Whether messages of the user may be sent on it."""
        self.undecided = True
        """Whether nothing has said yet which session it carries."""
        self.unusable: Ending | None = None
        """Why it is given up from here, and the session with it."""
        self._conversation = conversation
        self._stream = stream
        self._limits = limits
        self._creates = creates
        self._opened = opened
        self._said: ActorError | None = None

    async def run(self) -> Ending:
        """Write and read until it ends. The stream is still to be closed then."""
        async with open_quiet_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._write)
            return await self._read()

    async def _write(self) -> None:
        stream = self._stream
        try:
            while (frames := await self._conversation.outgoing.take()) is not None:
                for frame in frames:
                    await stream.send(frame)
            if stream.extended:
                await stream.send(extension_frame(extension.Bye()))
            await stream.aclose(1000, "")
        except WebSocketClosed:
            pass  # the reader learns it too, and why

    async def _read(self) -> Ending:
        ending: Ending | None = None
        with trio.CancelScope() as opening:
            opening.deadline = trio.current_time() + self._limits.start_timeout + self._limits.connect_timeout
            while ending is None:
                try:
                    frame, extended = await self._stream.receive()
                except WebSocketClosed as closed:
                    ending = ending_of_close(
                        closed.code,
                        closed.reason,
                        admitted=self.admitted or (self.undecided and self._conversation.session is not None),
                        creates=self._creates,
                        said=self._said,
                    )
                    break
                if extended:
                    self._receive_extension(frame)
                else:
                    self._receive(frame)
                if self.admitted:
                    opening.deadline = float("inf")
                ending = self.unusable
        return ending or Ending("The actor did not answer in time", passing=True, lost=True)

    # -- messages of RivetKit's protocol ------------------------------------------------------------------------------

    def _receive(self, frame: bytes | str) -> None:
        try:
            message = self._conversation.codec.decode_to_client(frame)
        except DecodeError as error:
            self._count(len(frame))
            self._conversation.notices.report(error)
            return
        if isinstance(message, Init):
            self._attach(message)
        else:
            self._count(len(frame))
            self._handle(message)

    def _handle(self, message: ToClient) -> None:
        if isinstance(message, Event):
            self._conversation.listeners.dispatch(message.name, message.args)
            if message.name == DROPPED_EVENT and not self._stream.extended:
                self._handle_dropped_event(message.args)
        elif isinstance(message, ActionResponse):
            self._conversation.calls.answer(message.id, message.output)
        elif isinstance(message, Error):
            self._handle_error(message)

    def _handle_dropped_event(self, args: list[Value]) -> None:
        match args:
            case [{"event": str(event), "count": int(count)}, *_]:
                self._dropped(event, count)
            case _:  # an actor may have an event of that name
                pass

    def _dropped(self, event: str, count: int) -> None:
        conversation = self._conversation
        conversation.mark(conversation.listeners.named(event), Dropped(event, count))

    def _handle_error(self, message: Error) -> None:
        calls = self._conversation.calls
        metadata = None if message.metadata is UNDEFINED else message.metadata
        error = ActorError(message.group, message.code, message.message, metadata, actor=message.actor)
        if message.action_id is not None:
            calls.answer(message.action_id, error=error)
            return
        self._said = error
        if self.admitted:
            # It may stand for the answer of any of them, and RivetKit's client gives them up too.
            calls.fail_sent(lambda: Ending("", passing=False, error=error).to_exception())
            self._conversation.notices.report(error)

    # -- messages of the extension ------------------------------------------------------------------------------------

    def _receive_extension(self, frame: bytes | str) -> None:
        conversation = self._conversation
        try:
            message = extension.decode_to_client(frame)
        except DecodeError as error:
            if conversation.session is not None:
                conversation.session.forget_token()  # nobody can say whether it counts
            conversation.notices.report(error)
            return
        if extension.is_counted(message):
            self._count(len(frame))
        match message:
            case extension.Ack():
                conversation.outgoing.acknowledge(message.received)
            case extension.SessionOpened():
                if conversation.session is not None and self.admitted:
                    conversation.session.opened(message)
            case extension.Resumed():
                self._resume(message)
            case extension.Subscribed():
                conversation.subscriptions.granted(message.id)
            case extension.Refused():
                metadata = None if message.metadata is UNDEFINED else message.metadata
                conversation.subscriptions.refuse(
                    message.id, ActorError(message.group, message.code, message.message, metadata)
                )
            case extension.Synced():
                conversation.calls.answer(("sync", message.id))
            case extension.Dropped():
                self._dropped(message.event, message.count)

    # -- which session it carries -------------------------------------------------------------------------------------

    def _count(self, size: int) -> None:
        """A message of the session. One that comes before anything else says that the session is a new one."""
        if self.undecided:
            self._begin()
        session = self._conversation.session
        if session is not None:
            session.count(size)

    def _begin(self) -> None:
        self.undecided = False
        self._carry(self._conversation.begin(self._stream.extended))

    def _attach(self, init: Init) -> None:
        conversation = self._conversation
        if self.admitted or conversation.over:
            return
        if self.undecided:
            self._begin()
        conversation.outgoing.begin(conversation.subscriptions.attach(), self._stream.extended)
        self.admitted = True
        self._opened(init)

    def _resume(self, message: extension.Resumed) -> None:
        conversation = self._conversation
        session = conversation.session
        if conversation.over:
            return
        if not self.undecided or session is None or not conversation.outgoing.resume(message.received):
            # It was given up here meanwhile, or the counts of the two sides differ.
            self.unusable = Ending("The session could not be gone on with", passing=True, lost=True)
            return
        self.undecided = False
        session.resumed()
        self._carry(session)
        self.admitted = True
        self._opened(None)

    def _carry(self, session: Session) -> None:
        if session.extended:
            self._nursery.start_soon(session.acknowledge)
