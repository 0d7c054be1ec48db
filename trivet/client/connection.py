"""An events connection: one logical connection that outlives its transports."""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, Generic, Literal, ParamSpec, Self, TypeAlias, TypeVar, overload

import trio
from typing_extensions import TypeVarTuple

from trivet.actor import Action, Actor
from trivet.client.actions import ActionsProxy
from trivet.client.backend import Backend, MessageStream, Target
from trivet.client.calls import Calls, PendingCall, PendingSync
from trivet.client.contracts import Contracts, RemoteAction
from trivet.client.ending import CLOSED_HERE, Closed, Ending, ending_of_close, ending_of_error
from trivet.client.listeners import (
    DEFAULT_BUFFER,
    CallbackListener,
    EventStream,
    Listener,
    Listeners,
    Missing,
    OnGap,
    Overflow,
    TaskListener,
    is_async,
)
from trivet.client.observers import Observers
from trivet.client.outgoing import Outgoing, extension_frame
from trivet.client.retry import Backoff
from trivet.client.session import Session
from trivet.client.subscriptions import Subscriptions
from trivet.definition import ActorDefinition
from trivet.errors import ActorError, ConnectionLost, DecodeError, Dropped, Gap
from trivet.event import Event
from trivet.limits import Limits
from trivet.nurseries import open_quiet_nursery
from trivet.protocol import extension
from trivet.protocol.messages import ActionRequest, ActionResponse, Error, Init, ToClient
from trivet.protocol.messages import Event as EventMessage
from trivet.protocol.values import UNDEFINED, Value
from trivet.raw import WebSocketClosed

Status: TypeAlias = Literal["idle", "connecting", "connected", "disconnected", "closed"]

A = TypeVar("A", bound=Actor[Any, Any, Any])
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

logger = logging.getLogger("trivet.client")

DROPPED_EVENT = "trivet.dropped"
"""What a trivet server tells clients without the extension of what an overflow policy left out: {event, count}."""
STABLE_AFTER = 5.0
"""A connection that lived so many seconds has its next attempt at once; a shorter one goes on backing off."""


class Connection(Generic[A]):
    """A connection to one actor, open inside `async with`.

    Entering waits until the actor has admitted the connection. It raises ActorError when the actor refused it, and
    ConnectionLost when the network did not lead there within `Limits.connect_timeout`. Listeners may be added before.

    When the network fails the connection comes back by itself, trying with full jitter. A trivet server keeps its
    session for a while (30 s by default): a connection that is back in time misses nothing and repeats nothing. The
    events come that the actor emitted meanwhile, calls that were on their way are answered, `conn_id` stays.

    Otherwise there is a new session. It subscribes again, tells every subscription that there was one with a Gap, then
    tells `on_open`, then sends the calls that waited. Calls that were sent and not answered raise
    ConnectionLost(maybe_executed=True). So it is after every interruption with a server that speaks RivetKit's protocol
    only, which gives no Gap: there `on_close` tells it.

    A connection that the actor ended on purpose stays ended: calls and event streams raise ConnectionEnded, or the
    ActorError that the actor gave as its reason; a call that was on its way may have run.

    Leaving closes the connection within `Limits.close_timeout`; when it is left by a cancellation, within half a
    second. Whatever still waits is settled with ConnectionEnded.
    """

    def __init__(
        self,
        backend: Backend,
        target: Target,
        contracts: Contracts,
        definition: ActorDefinition | None,
        params: Callable[[], Awaitable[Value]],
        limits: Limits,
        reconnect: bool,
    ) -> None:
        self._backend = backend
        self._codec = backend.codec
        self._target = target
        self._contracts = contracts
        self._definition = definition
        self._params = params
        self._limits = limits
        self._reconnect = reconnect
        self._backoff = Backoff()
        self._status: Status = "idle"
        self._actor_id: str | None = None
        self._conn_id: str | None = None
        self._outgoing = Outgoing()
        self._calls = Calls(self._outgoing, limits)
        self._subscriptions = Subscriptions(
            self._outgoing, self._codec, limits, self._calls.new_id, lambda name, error: self._refused(name, error)
        )
        self._session: Session | None = None
        self._extended = False
        self._undecided = False
        self._unusable: Ending | None = None
        self._missing: list[Listener] = []
        self._lost_because = ""
        self._on_error: Observers[Exception] = Observers(self._log)
        self._on_open: Observers[()] = Observers(self._report)
        self._on_close: Observers[Closed] = Observers(self._report)
        self._on_status: Observers[Status] = Observers(self._report)
        self._on_gap: Observers[Missing] = Observers(self._report)
        self._listeners = Listeners(self._subscribe, self._subscriptions.wait, self._report)
        self._admitted = False
        self._ever_admitted = False
        self._said: ActorError | None = None
        self._end: Ending | None = None
        self._settled = trio.Event()
        self._finished = trio.Event()
        self._connected = False
        self._manager: AbstractAsyncContextManager[None] | None = None
        self._nursery: trio.Nursery | None = None
        self._transport_nursery: trio.Nursery | None = None

    # -- life ---------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._manager is not None:
            raise RuntimeError("a connection is entered once; ask the handle for another")
        self._manager = self._open()
        await self._manager.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        assert self._manager is not None
        return await self._manager.__aexit__(exc_type, exc, traceback)

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[None]:
        try:
            async with open_quiet_nursery() as nursery:
                self._nursery = nursery
                self._listeners.start(nursery)
                nursery.start_soon(self._run)
                try:
                    await self._settled.wait()
                    if self._end is not None:
                        raise self._end.to_entering()
                    yield
                except BaseException as error:
                    await self._close(error)
                    raise
                else:
                    await self._close(None)
        finally:
            self._finish(CLOSED_HERE)

    async def _close(self, error: BaseException | None) -> None:
        """Let the writer say goodbye, for a bounded time."""
        self._finish(CLOSED_HERE)
        if not self._connected or not (error is None or isinstance(error, Exception)):
            return  # what cancels the body has cancelled the connection's task too; its stream says a short goodbye
        with trio.move_on_after(self._limits.close_timeout):
            try:
                await self._finished.wait()
            except trio.Cancelled:
                if error is None:
                    raise
                # The body's own error says more than a cancellation that came while it was on its way out.

    @property
    def status(self) -> Status:
        """`idle` before it is entered, then `connecting`, `connected`, `disconnected` between attempts, `closed`."""
        return self._status

    @property
    def actor_id(self) -> str | None:
        """The id of the actor, once connected."""
        return self._actor_id

    @property
    def conn_id(self) -> str | None:
        """The id of the current session, once connected; a new session has another."""
        return self._conn_id

    # -- calls --------------------------------------------------------------------------------------------------------

    @property
    def actions(self) -> Any:
        """The actor's actions as methods: `await room.actions.send_message("bob", "hi")`. Untyped; `call` is typed."""
        return ActionsProxy(self._contracts, self._definition, self._call)

    @overload
    async def call(self, action: Action[A, P, R, Any], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def call(self, action: str, /, *args: Any) -> Any: ...
    async def call(self, action: Action[A, P, R, Any] | str, /, *args: Any, **kwargs: Any) -> Any:
        """Call an action and return its result; every event that the action emitted was delivered before.

        `action` is the declared one, or its name on the wire: then arguments and result are plain values.

        While disconnected the call waits, at most `Limits.action_timeout`. Raises ActorError for the actor's answer,
        ConnectionLost when none came, ConnectionEnded when the connection is over, EncodeError and ValidationError for
        arguments that cannot be sent, ActorError `message.incoming_too_long` for too large ones. While the server has
        not acknowledged 1,024 messages, or 1 MiB of them, calls wait too.

        Cancelling stops waiting: a call that was not sent will not be. A trivet server is told of one that was sent: it
        never runs if it has not started, and is cancelled if it is async. With another server it may run. A Trio
        deadline that is nearer than the action's timeout travels with the call.
        """
        return await self._call(self._contracts.action(self._definition, action), args, kwargs)

    async def _call(
        self,
        action: RemoteAction,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        on_answer: Callable[[], None] | None = None,
    ) -> Any:
        await self._check_open("calling")
        call_id = self._calls.new_id()
        payload = self._codec.encode_to_server(ActionRequest(call_id, action.name, action.dump(args, kwargs)))
        if len(payload) > self._limits.incoming_message:
            raise ActorError("message", "incoming_too_long", "Incoming message too long")
        call = PendingCall(
            call_id,
            payload,
            self._backend.capture_context(),
            action.timeout or self._limits.action_timeout,
            trio.current_effective_deadline(),
            on_answer=on_answer,
        )
        return action.load(await self._calls.send(call_id, call, self._ended))

    async def sync(self) -> None:
        """Wait until every event that the actor emitted before it got this, and that is for this connection, is here.

        Sync listeners have run then, and streams have the events.

        Raises Unsupported where the server speaks RivetKit's protocol only, in which no message but an action of the
        actor's own has an answer; else what `call` raises. It may be repeated without harm.
        """
        await self._check_open("waiting")
        sync_id = self._calls.new_id()
        await self._calls.send(("sync", sync_id), PendingSync(sync_id), self._ended)

    async def _check_open(self, what: str) -> None:
        if self._end is not None:
            # Where a cancellation has ended the connection, it is what the caller shall see.
            await trio.lowlevel.checkpoint_if_cancelled()
            raise self._end.to_exception()
        if self._manager is None:
            raise RuntimeError(f"enter the connection before {what}: async with handle.connect() as connection")

    def _ended(self) -> Exception | None:
        return None if self._end is None else self._end.to_exception()

    # -- events -------------------------------------------------------------------------------------------------------

    @overload
    def on(
        self, event: Event[*Ts], callback: Callable[[*Ts], object], *, on_gap: OnGap | None = None
    ) -> Callable[[], None]: ...
    @overload
    def on(self, event: str, callback: Callable[..., object], *, on_gap: OnGap | None = None) -> Callable[[], None]: ...
    def on(self, event: Any, callback: Callable[..., Any], *, on_gap: OnGap | None = None) -> Callable[[], None]:
        """Call `callback` for each such event from now on; returns what ends that.

        A sync callback runs in the reader, in wire order: all for events that came before a call's answer have run
        when the call returns; it should be quick. An async function has a task and a queue of its own (1,024 events;
        overflowing it is reported as Lagged), and may call actions. An exception of either goes to `on_error`.

        `on_gap` is called, between the events, where some are or may be missing, with a Gap or a Dropped; for an async
        function in its task, and it may be one itself. Without it the connection's `on_gap` is told.

        A subscription that the server refuses is reported to `on_error`, and its callbacks are gone; the connection
        lives. (Where the server speaks RivetKit's protocol only, a refusal ends the connection.)

        After the returned function was called no callback begins any more. Calling it again does no harm.
        """
        return self._listen(event, callback, once=False, on_gap=on_gap)

    @overload
    def once(self, event: Event[*Ts], callback: Callable[[*Ts], object]) -> Callable[[], None]: ...
    @overload
    def once(self, event: str, callback: Callable[..., object]) -> Callable[[], None]: ...
    def once(self, event: Any, callback: Callable[..., Any]) -> Callable[[], None]:
        """Like `on`, for the next such event only."""
        return self._listen(event, callback, once=True)

    def _listen(
        self, event: Any, callback: Callable[..., Any], once: bool, on_gap: OnGap | None = None
    ) -> Callable[[], None]:
        remote = self._contracts.event(self._definition, event)
        listener: CallbackListener | TaskListener
        if is_async(callback):
            listener = TaskListener(self._listeners, remote, callback, once, self._report, on_gap)
            self._listeners.add(listener)
            self._listeners.spawn(listener)
        else:
            listener = CallbackListener(self._listeners, remote, callback, once, on_gap)
            self._listeners.add(listener)

        def unsubscribe() -> None:
            self._listeners.remove(listener)
            listener.finish(lambda: None, drop=True)

        return unsubscribe

    # The checkers see that each of these is a case of the third; the first that matches is what is meant.
    @overload
    def events(  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload]
        self, event: "Event[()]", *, buffer: int = DEFAULT_BUFFER, overflow: Overflow = "raise"
    ) -> EventStream[None]: ...
    @overload
    def events(
        self, event: Event[T], *, buffer: int = DEFAULT_BUFFER, overflow: Overflow = "raise"
    ) -> EventStream[T]: ...
    @overload
    def events(  # type: ignore[overload-cannot-match]
        self, event: Event[*Ts], *, buffer: int = DEFAULT_BUFFER, overflow: Overflow = "raise"
    ) -> EventStream[tuple[*Ts]]: ...
    @overload
    def events(self, event: str, *, buffer: int = DEFAULT_BUFFER, overflow: Overflow = "raise") -> EventStream[Any]: ...
    def events(self, event: Any, *, buffer: int = DEFAULT_BUFFER, overflow: Overflow = "raise") -> EventStream[Any]:
        """Such events to iterate over: `async with room.events(ChatRoom.message_received) as messages`.

        At most `buffer` of them wait. When more do, `overflow="raise"` leaves out what comes and raises Lagged, with
        the exact count, where the first of them stood; `"drop_oldest"` leaves out the oldest and says nothing.
        """
        return EventStream(self._listeners, self._contracts.event(self._definition, event), buffer, overflow)

    @overload
    def snapshot(  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload]
        self, event: "Event[()]", action: Action[A, P, R, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> AbstractAsyncContextManager[tuple[R, EventStream[None]]]: ...
    @overload
    def snapshot(
        self, event: Event[T], action: Action[A, P, R, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> AbstractAsyncContextManager[tuple[R, EventStream[T]]]: ...
    @overload
    def snapshot(
        self, event: Event[*Ts], action: Action[A, P, R, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> AbstractAsyncContextManager[tuple[R, EventStream[tuple[*Ts]]]]: ...
    @overload
    def snapshot(
        self, event: str, action: str, /, *args: Any
    ) -> AbstractAsyncContextManager[tuple[Any, EventStream[Any]]]: ...
    @asynccontextmanager
    async def snapshot(self, event: Any, action: Any, /, *args: Any, **kwargs: Any) -> AsyncGenerator[Any]:
        """What an action returns, and the events that follow it:

            async with room.snapshot(ChatRoom.message_received, ChatRoom.history) as (history, messages):
                async for message in messages: ...

        It subscribes, calls, and leaves out the events that came before the answer, because what they tell is in the
        answer. Nothing is lost or doubled between the two, exactly, when the action is a serial one, and whatever
        changes the state that it reads does so and emits the event without letting another turn between: in one serial
        action or other turn, or without an `await` between. Then each such change lies before the snapshot with its
        event, or after it with its event. A concurrent action gives such a snapshot if it reads and returns without
        an `await`.

        Raises what `events` and `call` raise. Later, the stream raises Gap when the session was lost, and Dropped or
        Lagged when events were left out: then it is time for another snapshot.
        """
        remote = self._contracts.action(self._definition, action)
        remote_event = self._contracts.event(self._definition, event)
        stream: EventStream[Any] = EventStream(self._listeners, remote_event, DEFAULT_BUFFER, "raise")
        async with stream:
            yield await self._call(remote, args, kwargs, on_answer=stream.restart), stream

    def on_open(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call it each time the connection has opened; add it before entering to hear of the first time."""
        return self._on_open.add(callback)

    def on_close(self, callback: Callable[[Closed], object]) -> Callable[[], None]:
        """Call it each time an open connection has closed, for good or not."""
        return self._on_close.add(callback)

    def on_error(self, callback: Callable[[Exception], object]) -> Callable[[], None]:
        """Call it for what has no caller: errors of listeners, undecodable frames. Without one they are logged."""
        return self._on_error.add(callback)

    def on_gap(self, callback: Callable[[Missing], object]) -> Callable[[], None]:
        """Call it where events are, or may be, missing: with a Gap when the session was lost and a new one has begun,
        with a Dropped when the actor's overflow policy left some out. It runs in the reader, between the events.

        Streams raise theirs, and callbacks with an `on_gap` of their own are told, whether there is one or not. What
        neither of them tells to a callback is reported to `on_error`.
        """
        return self._on_gap.add(callback)

    def on_status_change(self, callback: Callable[[Status], object]) -> Callable[[], None]:
        """Call it with each new status."""
        return self._on_status.add(callback)

    # -- subscriptions on the wire ------------------------------------------------------------------------------------

    def _subscribe(self, name: str, wanted: bool) -> None:
        if wanted:
            self._subscriptions.subscribe(name)
        else:
            self._subscriptions.unsubscribe(name)

    def _refused(self, name: str, error: ActorError) -> None:
        self._listeners.refuse(name, error)

    def _mark(self, listeners: list[Listener], reason: Missing) -> None:
        told = self._listeners.mark(listeners, reason)
        if self._on_gap:
            self._on_gap.notify(reason)
        elif not told:
            self._report(reason)

    # -- the connection's task ----------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """Attempt after attempt. Never raises."""
        try:
            patience = trio.current_time() + self._limits.connect_timeout
            while not self._over():
                self._set_status("connecting")
                started = trio.current_time()
                ending = await self._attempt()
                now = trio.current_time()
                if self._over():
                    break
                if not self._reconnect or not ending.passing or (not self._ever_admitted and now >= patience):
                    self._finish(ending.given_up())
                    break
                logger.debug("%s: %s; trying again", self._target, ending.message)
                self._set_status("disconnected")
                if self._ever_admitted and now - started >= STABLE_AFTER:
                    self._backoff.reset()
                session = self._session
                delay = self._backoff.next() if session is None else self._backoff.next(session.patience)
                if not self._ever_admitted:
                    delay = min(delay, max(0.0, patience - now))
                await trio.sleep(delay)
        except Exception as error:
            self._finish(Ending(f"The connection broke down: {error!r}", passing=False, cause=error))
        finally:
            self._finish(CLOSED_HERE)
            self._finished.set()

    async def _attempt(self) -> Ending:
        """One transport, from opening to its end."""
        creates = self._target.creates
        try:
            params = await self._params()
        except Exception as error:
            if not self._ever_admitted:
                return Ending(f"The parameters could not be had: {error!r}", passing=False, cause=error)
            self._report(error)
            return Ending("The parameters could not be had", passing=True, lost=True)
        try:
            claim = None if self._session is None else self._session.claim()
            async with self._backend.open_stream(self._target, params, claim) as stream:
                self._said = self._unusable = None
                self._connected = self._undecided = True
                self._extended = stream.extended
                try:
                    async with open_quiet_nursery() as nursery:
                        self._transport_nursery = nursery
                        nursery.start_soon(self._write, stream)
                        ending = await self._read(stream)
                finally:
                    self._connected = False
                self._detach(ending)
                return ending
        except (ActorError, ConnectionLost) as error:
            return ending_of_error(error, creates=creates)

    async def _write(self, stream: MessageStream) -> None:
        try:
            while (frames := await self._outgoing.take()) is not None:
                for frame in frames:
                    await stream.send(frame)
            if stream.extended:
                await stream.send(extension_frame(extension.Bye()))
            await stream.aclose(1000, "")
        except WebSocketClosed:
            pass  # the reader learns it too, and why

    async def _read(self, stream: MessageStream) -> Ending:
        ending: Ending | None = None
        with trio.CancelScope() as opening:
            opening.deadline = trio.current_time() + self._limits.start_timeout + self._limits.connect_timeout
            while ending is None:
                try:
                    frame, extended = await stream.receive()
                except WebSocketClosed as closed:
                    ending = ending_of_close(
                        closed.code,
                        closed.reason,
                        admitted=self._admitted or (self._undecided and self._session is not None),
                        creates=self._target.creates,
                        said=self._said,
                    )
                    break
                if extended:
                    self._receive_extension(frame)
                else:
                    self._receive(frame)
                if self._admitted:
                    opening.deadline = float("inf")
                ending = self._unusable
        return ending or Ending("The actor did not answer in time", passing=True, lost=True)

    def _receive(self, frame: bytes | str) -> None:
        try:
            message = self._codec.decode_to_client(frame)
        except DecodeError as error:
            self._count(len(frame))
            self._report(error)
            return
        if isinstance(message, Init):
            self._attach(message)
        else:
            self._count(len(frame))
            self._handle(message)

    def _handle(self, message: ToClient) -> None:
        if isinstance(message, EventMessage):
            self._listeners.dispatch(message.name, message.args)
            if message.name == DROPPED_EVENT and not self._extended:
                self._handle_dropped_event(message.args)
        elif isinstance(message, ActionResponse):
            self._calls.answer(message.id, message.output)
        elif isinstance(message, Error):
            self._handle_error(message)

    def _handle_dropped_event(self, args: list[Value]) -> None:
        match args:
            case [{"event": str(event), "count": int(count)}, *_]:
                self._mark(self._listeners.named(event), Dropped(event, count))
            case _:  # an actor may have an event of that name
                pass

    def _receive_extension(self, frame: bytes | str) -> None:
        try:
            message = extension.decode_to_client(frame)
        except DecodeError as error:
            if self._session is not None:
                self._session.forget_token()  # nobody can say whether it counts
            self._report(error)
            return
        if extension.is_counted(message):
            self._count(len(frame))
        match message:
            case extension.Ack():
                self._outgoing.acknowledge(message.received)
            case extension.SessionOpened():
                if self._session is not None and self._admitted:
                    self._session.opened(message)
            case extension.Resumed():
                self._resume(message)
            case extension.Subscribed():
                self._subscriptions.granted(message.id)
            case extension.Refused():
                metadata = None if message.metadata is UNDEFINED else message.metadata
                self._subscriptions.refuse(
                    message.id, ActorError(message.group, message.code, message.message, metadata)
                )
            case extension.Synced():
                self._calls.answer(("sync", message.id))
            case extension.Dropped():
                self._mark(self._listeners.named(message.event), Dropped(message.event, message.count))

    def _handle_error(self, message: Error) -> None:
        metadata = None if message.metadata is UNDEFINED else message.metadata
        error = ActorError(message.group, message.code, message.message, metadata, actor=message.actor)
        if message.action_id is not None:
            self._calls.answer(message.action_id, error=error)
            return
        self._said = error
        if self._admitted:
            # It may stand for the answer of any of them, and RivetKit's client gives them up too.
            self._calls.fail_sent(lambda: Ending("", passing=False, error=error).to_exception())
            self._report(error)

    # -- sessions -----------------------------------------------------------------------------------------------------

    def _count(self, size: int) -> None:
        """A message of the session. One that comes before anything else says that the session is a new one."""
        if self._undecided:
            self._begin()
        if self._session is not None:
            self._session.count(size)

    def _begin(self) -> None:
        """The transport carries a new session."""
        self._undecided = False
        self._lose("the server did not go on with it", lambda: ConnectionLost("The session was lost"))
        self._session = Session(self._outgoing, self._extended)
        self._start_acknowledging(self._session)
        missing, self._missing = self._missing, []
        if missing:
            self._mark(missing, Gap(self._lost_because))

    def _attach(self, init: Init) -> None:
        if self._admitted or self._end is not None:
            return
        if self._undecided:
            self._begin()
        self._actor_id = init.actor_id
        self._conn_id = init.connection_id
        self._outgoing.begin(self._subscriptions.attach(), self._extended)
        self._opened()

    def _resume(self, message: extension.Resumed) -> None:
        session = self._session
        if self._end is not None:
            return
        if not self._undecided or session is None or not self._outgoing.resume(message.received):
            # It was given up here meanwhile, or the counts of the two sides differ.
            self._unusable = Ending("The session could not be gone on with", passing=True, lost=True)
            return
        self._undecided = False
        session.resumed()
        self._start_acknowledging(session)
        self._opened()

    def _opened(self) -> None:
        self._admitted = self._ever_admitted = True
        self._set_status("connected")
        self._settled.set()
        self._on_open.notify()

    def _start_acknowledging(self, session: Session) -> None:
        if session.extended and self._transport_nursery is not None:
            self._transport_nursery.start_soon(session.acknowledge)

    def _detach(self, ending: Ending) -> None:
        """The transport is gone, and the session too, unless it may have another one."""
        was_open, self._admitted = self._admitted, False
        self._outgoing.pause()
        reconnects = self._reconnect and ending.passing and self._end is None
        session = self._session
        broken = ending.code == 1006 and session is not None and session.resumable and reconnects
        if self._unusable is not None or not (broken or self._undecided):
            self._lose(ending.message, ending.to_unanswered)
        elif session is not None and not self._undecided and self._nursery is not None:
            session.broken()
            self._nursery.start_soon(self._expire, session)
        if was_open:
            code = 1006 if ending.code is None else ending.code
            self._on_close.notify(Closed(code, ending.reason, reconnects))

    async def _expire(self, session: Session) -> None:
        """Lose a session that has had no transport for so long that the server has forgotten it."""
        with session.waiting:
            await trio.sleep_until(session.expires)
            if session is self._session:
                self._lose(
                    "there was no connection for too long", lambda: ConnectionLost("The connection did not come back")
                )

    def _lose(self, reason: str, unanswered: Callable[[], Exception]) -> None:
        """The session is over: its calls have no answers, its subscriptions a gap before the next session's events."""
        session, self._session = self._session, None
        if session is None:
            return
        session.resumed()
        self._subscriptions.detach()
        self._calls.fail_sent(unanswered)
        if session.extended:
            self._missing = self._listeners.all()
            self._lost_because = reason

    def _over(self) -> bool:
        return self._end is not None

    def _finish(self, ending: Ending) -> None:
        """The connection is over. Only the first reason counts."""
        if self._end is not None:
            return
        self._end = ending
        if self._ever_admitted and ending is not CLOSED_HERE and not self._on_close and not self._on_error:
            # A program that only listens to events would wait for ever, and never know what for.
            logger.warning("the connection to %s is over: %s", self._target, ending.message)
        self._outgoing.close()
        self._calls.fail_all(ending.to_exception, ending.to_unanswered)
        self._subscriptions.close()
        self._listeners.finish((lambda: None) if ending is CLOSED_HERE else ending.to_exception)
        self._set_status("closed")
        self._settled.set()

    def _set_status(self, status: Status) -> None:
        if status != self._status and self._status != "closed":
            self._status = status
            self._on_status.notify(status)

    def _report(self, error: Exception) -> None:
        if self._on_error:
            self._on_error.notify(error)
        else:
            self._log(error)

    def _log(self, error: Exception) -> None:
        logger.error("connection to %s: %s", self._target, error, exc_info=error)
