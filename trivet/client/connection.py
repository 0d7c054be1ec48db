"""An events connection: one logical connection that outlives its transports."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar, overload

import trio
from typing_extensions import TypeVarTuple

from trivet.actor import Action, Actor
from trivet.client.actions import ActionsProxy
from trivet.client.backend import Backend, Target
from trivet.client.buffer import DEFAULT_BUFFER, Missing, Overflow
from trivet.client.calls import PendingCall, PendingSync
from trivet.client.contracts import Contracts, RemoteAction
from trivet.client.conversation import Conversation
from trivet.client.ending import CLOSED_HERE, Closed
from trivet.client.link import Link
from trivet.client.listeners import CallbackListener, EventStream, OnGap, TaskListener, is_async
from trivet.client.observers import Notices, Status
from trivet.definition import ActorDefinition
from trivet.errors import ActorError
from trivet.event import Event
from trivet.limits import Limits
from trivet.nurseries import open_quiet_nursery
from trivet.protocol.messages import ActionRequest
from trivet.protocol.values import Value

__all__ = ["Connection", "Status"]

A = TypeVar("A", bound=Actor[Any, Any, Any])
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


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
        self._limits = limits
        self._notices = Notices(target)
        conversation = Conversation(self._codec, limits, self._notices)
        # trivet.testing takes down what goes through these.
        self._calls = conversation.calls
        self._listeners = conversation.listeners
        self._subscriptions = conversation.subscriptions
        self._link = Link(backend, target, params, limits, conversation, reconnect=reconnect)
        self._manager: AbstractAsyncContextManager[None] | None = None

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
        link = self._link
        try:
            async with open_quiet_nursery() as nursery:
                self._listeners.start(nursery)
                nursery.start_soon(link.run, nursery)
                try:
                    await link.settled.wait()
                    if link.end is not None:
                        raise link.end.to_entering()
                    yield
                except BaseException as error:
                    await self._close(error)
                    raise
                else:
                    await self._close(None)
        finally:
            link.finish(CLOSED_HERE)

    async def _close(self, error: BaseException | None) -> None:
        """Let the writer say goodbye, for a bounded time."""
        self._link.finish(CLOSED_HERE)
        if self._link.transport is None or not (error is None or isinstance(error, Exception)):
            return  # what cancels the body has cancelled the connection's task too; its stream says a short goodbye
        with trio.move_on_after(self._limits.close_timeout):
            try:
                await self._link.finished.wait()
            except trio.Cancelled:
                if error is None:
                    raise
                # The body's own error says more than a cancellation that came while it was on its way out.

    @property
    def status(self) -> Status:
        """`idle` before it is entered, then `connecting`, `connected`, `disconnected` between attempts, `closed`."""
        return self._link.status

    @property
    def actor_id(self) -> str | None:
        """The id of the actor, once connected."""
        return self._link.actor_id

    @property
    def conn_id(self) -> str | None:
        """The id of the current session, once connected; a new session has another."""
        return self._link.conn_id

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
        if error := self._ended():
            # Where a cancellation has ended the connection, it is what the caller shall see.
            await trio.lowlevel.checkpoint_if_cancelled()
            raise error
        if self._manager is None:
            raise RuntimeError(f"enter the connection before {what}: async with handle.connect() as connection")

    def _ended(self) -> Exception | None:
        return None if self._link.end is None else self._link.end.to_exception()

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
            listener = TaskListener(self._listeners, remote, callback, once, self._notices.report, on_gap)
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
        """Call it each time the connection has opened; add it before entering to hear of the first time.

        This and the next ones take plain functions, and return what ends that. An exception is reported to `on_error`.
        """
        return self._notices.open.add(callback)

    def on_close(self, callback: Callable[[Closed], object]) -> Callable[[], None]:
        """Call it each time an open connection has closed, for good or not."""
        return self._notices.close.add(callback)

    def on_error(self, callback: Callable[[Exception], object]) -> Callable[[], None]:
        """Call it for what has no caller: errors of listeners, undecodable frames. Without one they are logged."""
        return self._notices.error.add(callback)

    def on_gap(self, callback: Callable[[Missing], object]) -> Callable[[], None]:
        """Call it where events are, or may be, missing: with a Gap when the session was lost and a new one has begun,
        with a Dropped when the actor's overflow policy left some out. It runs in the reader, between the events.

        Streams raise theirs, and callbacks with an `on_gap` of their own are told, whether there is one or not. What
        neither of them tells to a callback is reported to `on_error`.
        """
        return self._notices.gap.add(callback)

    def on_status_change(self, callback: Callable[[Status], object]) -> Callable[[], None]:
        """Call it with each new status."""
        return self._notices.status.add(callback)
