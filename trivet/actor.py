"""What a user writes: an actor class with actions, events and hooks."""

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Final,
    Generic,
    Literal,
    NoReturn,
    ParamSpec,
    Protocol,
    TypeAlias,
    cast,
    overload,
)

from typing_extensions import TypeVar, Unpack

from trivet.event import Event, Ts
from trivet.options import Options
from trivet.raw import Request, Response, WebSocket

if TYPE_CHECKING:
    from logging import Logger, LoggerAdapter

    from trivet.client import Client
    from trivet.runtime.connection import Conn, Conns
    from trivet.runtime.emit import BroadcastResult
    from trivet.runtime.instance import Instance
    from trivet.runtime.schedules import Schedules
    from trivet.runtime.state import StoredState
    from trivet.runtime.statistics import ActorStatistics

S = TypeVar("S", default=None)
CS = TypeVar("CS", default=None)
CP = TypeVar("CP", default=object)
A = TypeVar("A", bound="Actor[Any, Any, Any]")
P = ParamSpec("P")
R = TypeVar("R")
# Covariant, so that a subclass may override an action as it may override a method.
A_co = TypeVar("A_co", bound="Actor[Any, Any, Any]", covariant=True)
R_co = TypeVar("R_co", covariant=True)
Raw_co = TypeVar("Raw_co", covariant=True)

Abandoned: TypeAlias = Literal["finish", "cancel"]


class Action(Generic[A_co, P, R_co, Raw_co]):
    """A method that clients may call. `R_co` is what the client gets; inside the actor it stays the plain method."""

    def __init__(
        self,
        fn: Callable[Concatenate[A_co, P], Raw_co],
        *,
        name: str | None = None,
        concurrent: bool | None = None,
        readonly: bool = False,
        timeout: float | None = None,
        abandoned: Abandoned = "finish",
        internal: bool = False,
    ) -> None:
        self.abandoned: Abandoned = abandoned
        self.internal = internal
        self.fn = fn
        self.wire_name = name
        self.attribute = getattr(fn, "__name__", "")
        self.concurrent = concurrent
        self.readonly = readonly
        self.timeout = timeout
        self.__doc__ = fn.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.attribute = name

    @overload
    def __get__(self, instance: None, owner: type[A]) -> "Action[A, P, R_co, Raw_co]": ...
    @overload
    def __get__(self, instance: object, owner: type[Any]) -> Callable[P, Raw_co]: ...
    def __get__(
        self, instance: object | None, owner: type[Any]
    ) -> "Action[Any, P, R_co, Raw_co] | Callable[P, Raw_co]":
        if instance is None:
            return self
        bound: Callable[P, Raw_co] = self.fn.__get__(instance, owner)
        return bound

    def __repr__(self) -> str:
        return f"<Action {self.wire_name or self.attribute}>"


class _ActionDecorator(Protocol):
    @overload
    def __call__(
        self, fn: Callable[Concatenate[A, P], Coroutine[Any, Any, R]], /
    ) -> Action[A, P, R, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[A, P], R], /) -> Action[A, P, R, R]: ...


@overload
def action(fn: Callable[Concatenate[A, P], Coroutine[Any, Any, R]], /) -> Action[A, P, R, Coroutine[Any, Any, R]]: ...
@overload
def action(fn: Callable[Concatenate[A, P], R], /) -> Action[A, P, R, R]: ...
@overload
def action(
    *,
    name: str | None = None,
    concurrent: bool | None = None,
    readonly: bool = False,
    timeout: float | None = None,
    abandoned: Abandoned = "finish",
    internal: bool = False,
) -> _ActionDecorator: ...
def action(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    concurrent: bool | None = None,
    readonly: bool = False,
    timeout: float | None = None,
    abandoned: Abandoned = "finish",
    internal: bool = False,
) -> Any:
    """Make a method callable by clients, with the same signature there.

    `name` is its name on the wire (default: the method's in camelCase; dots nest: "calculator.add"). `concurrent`:
    it neither takes nor waits for the actor's turn. `readonly`: it promises not to change state, so that no change is
    looked for; what it tells of others' changes is saved first all the same. `timeout` in seconds bounds an async body
    (default `Options.action_timeout`, then 60). `abandoned` says what happens to it when its client is gone for good:
    "finish" (default), or "cancel" an async body and drop a call that has not started. `internal`: for schedules alone.
    Clients, `self.client()` of actors among them, are answered `actor.action_not_found`, as if there were none; inside
    the actor it is the plain method.

    A UserError that it raises reaches the client as it is; any other exception as `rivetkit.internal_error`.
    """

    def decorate(fn: Callable[..., Any]) -> Action[Any, Any, Any, Any]:
        if not inspect.isfunction(fn):
            raise TypeError(f"@action takes a method, got {fn!r}")
        return Action(
            fn,
            name=name,
            concurrent=concurrent,
            readonly=readonly,
            timeout=timeout,
            abandoned=abandoned,
            internal=internal,
        )

    return decorate if fn is None else decorate(fn)


class _NotAlive:
    """Stands where an actor's life would be."""

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # the interpreter and tools ask for those
            raise AttributeError(name)
        raise RuntimeError("this actor does not live: instances are made by trivet, and reached through a client")


class Actor(Generic[S, CS, CP]):
    """Base of every actor class: `Actor[State, ConnState, Params]`, each of the three optional.

    The instance is the context of one life of one actor, kept under `name` and `key`. Plain attributes are variables
    of this life; `self.state` is the actor's state. Actions, `on_connect`, `on_disconnect` and `on_state_change` take
    the actor's turn, one at a time in arrival order; `run`, raw handlers and background work do not, and may take it
    with `async with self.turn():`. All of them may change state between two awaits without a lock.

    Without a `create_state` hook the state is `State()`. Without `create_conn_state` a connection's state is
    `ConnState()`. Every hook may be sync or async.
    """

    name: str = ""
    """The actor's name on the wire. A class may set it; otherwise it is the class's name in camelCase."""
    options: Options = Options()

    _instance: "Instance" = cast("Instance", _NotAlive())

    # -- context ------------------------------------------------------------------------------------------------------

    @property
    def state(self) -> S:
        """The actor's state. Raises PublicError `actor.state_not_enabled` for a class without one.

        Inside `on_state_change` it is a read-only view: writing raises `actor.state_mutation_reentrant`.
        """
        state: S = self._instance.read_state()
        return state

    @state.setter
    def state(self, value: S) -> None:
        self._instance.write_state(value)

    @property
    def conns(self) -> "Conns[CS, CP]":
        """The admitted connections of every kind, by id. Iterating walks a snapshot."""
        conns: Conns[CS, CP] = self._instance.conns
        return conns

    @property
    def conn(self) -> "Conn[CS, CP]":
        """The connection that caused what runs. Raises NoConnection in `run` and in lifecycle hooks."""
        conn: Conn[CS, CP] = self._instance.current_conn()
        return conn

    @property
    def conn_or_none(self) -> "Conn[CS, CP] | None":
        """The connection that caused what runs, or None."""
        conn: Conn[CS, CP] | None = self._instance.current_conn_or_none()
        return conn

    @property
    def request(self) -> Request:
        """The request that caused what runs, or opened its connection. Raises NoConnection where there is none."""
        return self._instance.current_request()

    @property
    def key(self) -> tuple[str, ...]:
        """The key that the actor lives under."""
        return self._instance.key

    @property
    def actor_id(self) -> str:
        """The actor's globally unique id."""
        return self._instance.actor_id

    @property
    def namespace(self) -> str:
        """The actor space that it lives in."""
        return self._instance.namespace

    @property
    def log(self) -> "LoggerAdapter[Logger]":
        """A logger that names this actor."""
        return self._instance.log

    @overload
    def broadcast(
        self,
        event: Event[*Ts],
        *args: *Ts,
        exclude: "Conn[CS, CP] | str | Iterable[Conn[CS, CP] | str]" = (),
        where: "Callable[[Conn[CS, CP]], bool] | None" = None,
    ) -> "BroadcastResult": ...
    @overload
    def broadcast(
        self,
        event: str,
        *args: object,
        exclude: "Conn[CS, CP] | str | Iterable[Conn[CS, CP] | str]" = (),
        where: "Callable[[Conn[CS, CP]], bool] | None" = None,
    ) -> "BroadcastResult": ...
    def broadcast(
        self,
        event: Event[*tuple[Any, ...]] | str,
        *args: object,
        exclude: "Conn[CS, CP] | str | Iterable[Conn[CS, CP] | str]" = (),
        where: "Callable[[Conn[CS, CP]], bool] | None" = None,
    ) -> "BroadcastResult":
        """Send an event to every connection that subscribed to it; returns to how many. Never waits.

        The caller is among them unless excluded: `exclude` takes a connection, an id, or several. `where` is asked
        once for each subscriber before any of them is sent to. Raises ValidationError, EncodeError or
        `message.outgoing_too_long` here, in the emitter, before any recipient is touched; where there is no recipient
        nothing is checked, except with `Options(strict=True)`. Slow recipients never slow the actor: the event's
        overflow policy applies to each of them. An event that blocks raises TypeError.
        """
        return self._instance.emitter.broadcast(event, args, exclude, where)

    @overload
    async def publish(
        self,
        event: Event[*Ts],
        *args: *Ts,
        exclude: "Conn[CS, CP] | str | Iterable[Conn[CS, CP] | str]" = (),
        where: "Callable[[Conn[CS, CP]], bool] | None" = None,
        timeout: float = 5,
    ) -> "BroadcastResult": ...
    @overload
    async def publish(
        self,
        event: str,
        *args: object,
        exclude: "Conn[CS, CP] | str | Iterable[Conn[CS, CP] | str]" = (),
        where: "Callable[[Conn[CS, CP]], bool] | None" = None,
        timeout: float = 5,
    ) -> "BroadcastResult": ...
    async def publish(
        self,
        event: Event[*tuple[Any, ...]] | str,
        *args: object,
        exclude: "Conn[CS, CP] | str | Iterable[Conn[CS, CP] | str]" = (),
        where: "Callable[[Conn[CS, CP]], bool] | None" = None,
        timeout: float = 5,
    ) -> "BroadcastResult":
        """`broadcast` once every recipient has room: the one way by which a slow client costs the actor.

        The event is emitted to all of them at one point of the actor's order, when none of them is at its soft bound.
        Raises trio.TooSlowError after `timeout` seconds, and then nobody has got it; the same when cancelled.
        """
        return await self._instance.emitter.publish(event, args, exclude, where, timeout)

    def statistics(self) -> "ActorStatistics":
        """Counts of this actor: its connections, what waits for it and for its clients, what was dropped."""
        return self._instance.statistics()

    def client(self) -> "Client":
        """A client of the actors in the same process and namespace. It never uses the network."""
        return self._instance.client()

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Take the actor's turn in `run`, a raw handler, a concurrent action or background work.

        Waits behind what had arrived before. Raises `actor.deadlock` where the turn is held by whoever waits for it.
        """
        return self._instance.turn()

    def start_soon(self, fn: Callable[[Unpack[Ts]], Awaitable[object]], *args: *Ts) -> None:
        """Run `fn` in the background until it ends or the actor's life does. What it raises is logged.

        Raises TypeError for a coroutine: pass the function and its arguments.
        """
        self._instance.start_background(fn, args)

    def destroy(self) -> None:
        """Ask for the end of this actor. Returns at once; what runs and what had arrived is finished first.

        Its connections are closed with 1000 `actor.stopped`, its state and schedules are forgotten, its key is free.
        """
        self._instance.request_destroy()

    def sleep(self) -> None:
        """Ask for sleep. Returns at once; what runs and what had arrived is finished first, then `on_sleep` runs.

        Connections stay, whatever `Options.sleep_with_connections` says, and what arrives for the actor wakes it.
        """
        self._instance.request_sleep()

    async def save(self) -> None:
        """Wait until everything that has changed up to now is saved. Raises PublicError `actor.save_failed`.

        For effects outside of trivet, that must not be seen before the state that goes with them. Cancelling stops
        waiting; it is saved all the same. Before the end of `on_create` there is nothing to save, and it returns.
        """
        await self._instance.save()

    @property
    def schedule(self) -> "Schedules":
        """Actions to be run later, kept with the state."""
        return self._instance.schedules

    @property
    def stored(self) -> "StoredState | None":
        """Inside `on_migrate`: the state as it was stored, to be changed where it is of an older version.

        None in the first life, and outside of `on_migrate` always: there `self.state` is what was stored.
        """
        return self._instance.stored

    def keep_awake(self) -> AbstractContextManager[None]:
        """`with self.keep_awake():` the actor does not go to sleep, and a stop waits within its grace.

        Inside the block alone: a call without `with` does nothing.
        """
        return self._instance.vigil()

    def wait_until(self, fn: Callable[[Unpack[Ts]], Awaitable[object]], *args: *Ts) -> None:
        """Run `fn` in the background, like `start_soon`; sleep and stop wait for it within the grace.

        Raises TypeError for a coroutine: pass the function and its arguments.
        """
        self._instance.finish_first(fn, args)

    # -- hooks --------------------------------------------------------------------------------------------------------
    # `create_state(input)` and `on_create(input)` are hooks too; their parameter is typed by the class that has them.

    def on_migrate(self, is_new: bool) -> Awaitable[None] | None:
        """First of all in each life, before there is state. What was stored is `self.stored`, and may be changed."""

    def on_wake(self) -> Awaitable[None] | None:
        """In each life once there is state, before the first connection."""

    def run(self) -> Awaitable[None] | None:
        """Background task of each life. When it raises, that is logged and the actor lives on."""

    def on_sleep(self) -> Awaitable[None] | None:
        """Last before sleep and before a stop of the server, not before a crash. What it changes is saved.

        Everything works in it, and its events arrive; what comes for the actor meanwhile waits for its next life.
        """

    def on_destroy(self) -> Awaitable[None] | None:
        """Last, when the actor is destroyed. Its connections are still there."""

    def on_before_connect(self, params: CP) -> Awaitable[None] | None:
        """Raise to refuse a connection, call or raw request. Runs in its own task, outside the turn."""

    def create_conn_state(self, params: CP) -> Awaitable[CS] | CS:
        """The state of a new connection. Raise to refuse it. Runs in its own task, outside the turn."""
        raise NotImplementedError  # never called: a class that does not override it gets ConnState()

    def on_connect(self, conn: "Conn[CS, CP]") -> Awaitable[None] | None:
        """The connection is in `conns`. When it raises, the connection is refused and `on_disconnect` does not run."""

    def on_disconnect(self, conn: "Conn[CS, CP]") -> Awaitable[None] | None:
        """Once, after the connection has left `conns`, if `on_connect` had run."""

    def on_state_change(self) -> Awaitable[None] | None:
        """Once after each turn that changed the state, before its response. State is read-only in it."""

    def on_before_action_response(self, name: str, args: list[Any], output: Any) -> Awaitable[Any] | Any:
        """Returns what the client shall get instead of `output`."""
        return output

    def on_request(self, request: Request) -> Awaitable[Response] | Response:
        """Answers raw HTTP requests, outside the turn."""
        raise NotImplementedError  # never called: without an override such requests are answered 404

    def on_websocket(self, websocket: WebSocket) -> Awaitable[None] | None:
        """Serves a raw WebSocket until it returns, outside the turn.

        `Limits.close_timeout` after the socket has ended it is cancelled: what takes longer is for `wait_until`.
        """


HOOKS: Final = (
    "create_state",
    "on_create",
    "on_migrate",
    "on_wake",
    "run",
    "on_sleep",
    "on_destroy",
    "on_before_connect",
    "create_conn_state",
    "on_connect",
    "on_disconnect",
    "on_state_change",
    "on_before_action_response",
    "on_request",
    "on_websocket",
)
"""Every hook that a class may define."""
