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
from trivet.client.calls import Calls
from trivet.client.contracts import Contracts, RemoteAction
from trivet.client.ending import CLOSED_HERE, Closed, Ending, ending_of_close, ending_of_error
from trivet.client.listeners import (
    DEFAULT_BUFFER,
    CallbackListener,
    EventStream,
    Listeners,
    Overflow,
    TaskListener,
    is_async,
)
from trivet.client.outgoing import Outbound, Outgoing
from trivet.client.retry import Backoff
from trivet.definition import ActorDefinition
from trivet.errors import ActorError, ConnectionLost, DecodeError
from trivet.event import Event
from trivet.limits import Limits
from trivet.nurseries import open_quiet_nursery
from trivet.protocol.messages import ActionRequest, ActionResponse, Error, Init, SubscriptionRequest, ToClient
from trivet.protocol.messages import Event as EventMessage
from trivet.protocol.values import UNDEFINED, Value
from trivet.raw import WebSocketClosed

Status: TypeAlias = Literal["idle", "connecting", "connected", "disconnected", "closed"]

A = TypeVar("A", bound=Actor[Any, Any, Any])
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Args = TypeVarTuple("Args")

logger = logging.getLogger("trivet.client")

STABLE_AFTER = 5.0
"""A connection that lived so many seconds has its next attempt at once; a shorter one goes on backing off."""


class Observers(Generic[*Args]):
    """Callbacks for one thing that happens to a connection."""

    def __init__(self, report: Callable[[Exception], None]) -> None:
        self._callbacks: dict[object, Callable[[*Args], object]] = {}
        self._report = report

    def __bool__(self) -> bool:
        return bool(self._callbacks)

    def add(self, callback: Callable[[*Args], object]) -> Callable[[], None]:
        """Returns what removes it; calling that twice does no harm."""
        token = object()
        self._callbacks[token] = callback

        def unsubscribe() -> None:
            self._callbacks.pop(token, None)

        return unsubscribe

    def notify(self, *args: *Args) -> None:
        for token, callback in list(self._callbacks.items()):
            if token in self._callbacks:
                try:
                    callback(*args)
                except Exception as error:
                    self._report(error)


class Connection(Generic[A]):
    """A connection to one actor, open inside `async with`.

    Entering waits until the actor has admitted the connection. It raises ActorError when the actor refused it, and
    ConnectionLost when the network did not lead there within `Limits.connect_timeout`. Listeners may be added before.

    When the network fails the connection comes back by itself: it waits with full jitter, between 250 ms and 30 s,
    subscribes again, then tells `on_open`, then sends the calls that waited. Events that the actor emitted meanwhile
    are not repeated. Calls that were sent and not answered raise ConnectionLost(maybe_executed=True). A connection
    that the actor ended on purpose stays ended: calls and event streams raise ConnectionEnded, or the ActorError that
    the actor gave as its reason; a call that was on its way may have run.

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
        self._subscribing: dict[str, Outbound] = {}
        self._on_error: Observers[Exception] = Observers(self._log)
        self._on_open: Observers[()] = Observers(self._report)
        self._on_close: Observers[Closed] = Observers(self._report)
        self._on_status: Observers[Status] = Observers(self._report)
        self._listeners = Listeners(self._subscribe, self._report)
        self._admitted = False
        self._ever_admitted = False
        self._said: ActorError | None = None
        self._end: Ending | None = None
        self._settled = trio.Event()
        self._finished = trio.Event()
        self._connected = False
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
        try:
            async with open_quiet_nursery() as nursery:
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
        """The id of the current connection, once connected; each reconnect has another."""
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
        arguments that cannot be sent, ActorError `message.incoming_too_long` for too large ones. Cancelling stops
        waiting: a call that was not sent will not be; one that was sent may run.
        """
        return await self._call(self._contracts.action(self._definition, action), args, kwargs)

    async def _call(self, action: RemoteAction, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._end is not None:
            # Where a cancellation has ended the connection, it is what the caller shall see.
            await trio.lowlevel.checkpoint_if_cancelled()
            raise self._end.to_exception()
        if self._manager is None:
            raise RuntimeError("enter the connection before calling: async with handle.connect() as connection")
        call_id = self._calls.new_id()
        payload = self._codec.encode_to_server(ActionRequest(call_id, action.name, action.dump(args, kwargs)))
        if len(payload) > self._limits.incoming_message:
            raise ActorError("message", "incoming_too_long", "Incoming message too long")
        output = await self._calls.send(call_id, payload, self._backend.capture_context(), self._ended)
        return action.load(output)

    def _ended(self) -> Exception | None:
        return None if self._end is None else self._end.to_exception()

    # -- events -------------------------------------------------------------------------------------------------------

    @overload
    def on(self, event: Event[*Ts], callback: Callable[[*Ts], object]) -> Callable[[], None]: ...
    @overload
    def on(self, event: str, callback: Callable[..., object]) -> Callable[[], None]: ...
    def on(self, event: Any, callback: Callable[..., Any]) -> Callable[[], None]:
        """Call `callback` for each such event from now on; returns what ends that.

        A sync callback runs in the reader, in wire order: all for events that came before a call's answer have run
        when the call returns; it should be quick. An async function has a task and a queue of its own (1,024 events;
        overflowing it is reported as Lagged), and may call actions. An exception of either goes to `on_error`.

        After the returned function was called no callback begins any more. Calling it again does no harm.
        """
        return self._listen(event, callback, once=False)

    @overload
    def once(self, event: Event[*Ts], callback: Callable[[*Ts], object]) -> Callable[[], None]: ...
    @overload
    def once(self, event: str, callback: Callable[..., object]) -> Callable[[], None]: ...
    def once(self, event: Any, callback: Callable[..., Any]) -> Callable[[], None]:
        """Like `on`, for the next such event only."""
        return self._listen(event, callback, once=True)

    def _listen(self, event: Any, callback: Callable[..., Any], once: bool) -> Callable[[], None]:
        remote = self._contracts.event(self._definition, event)
        listener: CallbackListener | TaskListener
        if is_async(callback):
            listener = TaskListener(self._listeners, remote, callback, once, self._report)
            self._listeners.add(listener)
            self._listeners.spawn(listener)
        else:
            listener = CallbackListener(self._listeners, remote, callback, once)
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

    def on_open(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call it each time the connection has opened; add it before entering to hear of the first time."""
        return self._on_open.add(callback)

    def on_close(self, callback: Callable[[Closed], object]) -> Callable[[], None]:
        """Call it each time an open connection has closed, for good or not."""
        return self._on_close.add(callback)

    def on_error(self, callback: Callable[[Exception], object]) -> Callable[[], None]:
        """Call it for what has no caller: errors of listeners, undecodable frames. Without one they are logged."""
        return self._on_error.add(callback)

    def on_status_change(self, callback: Callable[[Status], object]) -> Callable[[], None]:
        """Call it with each new status."""
        return self._on_status.add(callback)

    # -- subscriptions on the wire ------------------------------------------------------------------------------------

    def _subscribe(self, name: str, wanted: bool) -> None:
        item = self._subscription(name, wanted)
        if wanted and len(self._listeners.names) >= self._limits.subscriptions:
            raise ActorError("connection", "too_many_subscriptions", "Too many subscriptions")
        if not self._admitted:
            return  # every name is subscribed to once there is a connection
        waiting = self._subscribing.pop(name, None)
        if waiting is not None and self._outgoing.withdraw(waiting):
            return  # the opposite had not been sent: the server is as wanted
        self._subscribing[name] = item
        self._outgoing.put(item)

    def _subscription(self, name: str, wanted: bool) -> Outbound:
        if not 0 < len(name.encode()) <= self._limits.event_name:
            raise ValueError(f"an event name has 1 to {self._limits.event_name} bytes")
        return Outbound(self._codec.encode_to_server(SubscriptionRequest(name, wanted)))

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
                delay = self._backoff.next()
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
            async with self._backend.open_stream(self._target, params) as stream:
                self._said = None
                self._connected = True
                try:
                    async with open_quiet_nursery() as nursery:
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
            while (item := await self._outgoing.take()) is not None:
                await stream.send(item.payload, item.context)
            await stream.aclose(1000, "")
        except WebSocketClosed:
            pass  # the reader learns it too, and why

    async def _read(self, stream: MessageStream) -> Ending:
        ending: Ending | None = None
        with trio.CancelScope() as opening:
            opening.deadline = trio.current_time() + self._limits.start_timeout + self._limits.connect_timeout
            while ending is None:
                try:
                    frame = await stream.receive()
                except WebSocketClosed as closed:
                    ending = ending_of_close(
                        closed.code,
                        closed.reason,
                        admitted=self._admitted,
                        creates=self._target.creates,
                        said=self._said,
                    )
                    break
                try:
                    message = self._codec.decode_to_client(frame)
                except DecodeError as error:
                    self._report(error)
                    continue
                if isinstance(message, Init):
                    opening.deadline = float("inf")
                self._handle(message)
        return ending or Ending("The actor did not answer in time", passing=True, lost=True)

    def _handle(self, message: ToClient) -> None:
        if isinstance(message, EventMessage):
            self._listeners.dispatch(message.name, message.args)
        elif isinstance(message, ActionResponse):
            self._calls.answer(message.id, message.output)
        elif isinstance(message, Init):
            self._attach(message)
        else:
            self._handle_error(message)

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

    def _attach(self, init: Init) -> None:
        if self._admitted or self._end is not None:
            return
        self._admitted = self._ever_admitted = True
        self._actor_id = init.actor_id
        self._conn_id = init.connection_id
        self._subscribing = {name: self._subscription(name, True) for name in self._listeners.names}
        self._outgoing.resume(self._subscribing.values())
        self._set_status("connected")
        self._settled.set()
        self._on_open.notify()

    def _detach(self, ending: Ending) -> None:
        """The transport is gone."""
        was_open, self._admitted = self._admitted, False
        self._outgoing.pause()
        for item in self._subscribing.values():
            self._outgoing.withdraw(item)
        self._subscribing = {}
        self._calls.fail_sent(ending.to_unanswered)
        if was_open:
            reconnects = self._reconnect and ending.passing and self._end is None
            code = 1006 if ending.code is None else ending.code
            self._on_close.notify(Closed(code, ending.reason, reconnects))

    def _over(self) -> bool:
        return self._end is not None

    def _finish(self, ending: Ending) -> None:
        """The connection is over. Only the first reason counts."""
        if self._end is not None:
            return
        self._end = ending
        self._outgoing.close()
        self._calls.fail_all(ending.to_exception, ending.to_unanswered)
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
