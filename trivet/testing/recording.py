"""What actors did, taken down at the actors, and what clients saw, taken down at the clients.

Whatever lies between, from the emitter to the listeners, is what a check of delivery is about, so nothing is taken
down there. This is the one module of the kit that reaches into the runtime and the client: the actor's emitter and the
functions of its definition, a connection's calls and listeners.
"""

import copy
import types
from collections.abc import Awaitable, Callable, Generator, Hashable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, Literal, TypeAlias, cast

import attrs

from trivet.actor import Actor
from trivet.client.calls import Pending, PendingCall
from trivet.client.connection import Connection, Status
from trivet.client.ending import Closed
from trivet.client.listeners import Listener, Missing
from trivet.definition import ActionDefinition, ActorDefinition, EventDefinition
from trivet.errors import ActorError, Dropped, TrivetError
from trivet.protocol.codec import Codec, codec_for
from trivet.protocol.messages import ActionRequest
from trivet.protocol.messages import Event as EventMessage
from trivet.protocol.values import Value
from trivet.registry import Registry
from trivet.runtime import answers
from trivet.runtime.connection import Conn
from trivet.runtime.instance import Instance
from trivet.runtime.session import Session
from trivet.testing.network import Link

NEVER: Final = 1 << 60
"""A moment that does not come."""

_CODEC: Final = cast("Codec", codec_for("bare"))


def value_key(values: Iterable[Value]) -> bytes:
    """The same for what a client gets as for what was emitted, whatever Python types stand for it."""
    encoded = _CODEC.encode_action_request(list(values))
    return _CODEC.encode_action_request(_CODEC.decode_action_request(encoded))


# -- at the actor -----------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Called:
    """An action, or a hook of a connection, from its beginning to its return."""

    what: Literal["action", "on_connect", "on_disconnect"]
    name: str
    actor: str
    conn: str | None
    kind: str
    moment: int
    serial: bool
    args: tuple[bytes, ...] | None = None
    returned: int = NEVER
    raised: bool = False

    def __str__(self) -> str:
        return self.name


@attrs.define(eq=False)
class Emitted:
    """One event. `to` and `perhaps` are connections that get it if they are subscribed; `only` gets it in any case."""

    number: int
    actor: str
    moment: int
    event: str
    values: Sequence[Value]
    key: bytes
    conns: frozenset[str]
    to: frozenset[str] = frozenset()
    perhaps: frozenset[str] = frozenset()
    only: str | None = None
    cause: Called | None = None

    def __str__(self) -> str:
        return f"{self.event} #{self.number}"

    @property
    def text(self) -> str:
        """With its payload, cut off where it is long."""
        payload = ", ".join(map(repr, self.values))
        return f"{self} ({payload if len(payload) <= 80 else payload[:77] + '...'})"


Entry: TypeAlias = Called | Emitted

_current: ContextVar[Called | None] = ContextVar("trivet_testing_called", default=None)


# -- at the client ----------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class SentCall:
    """A call of a connection, in the order of sending."""

    moment: int
    id: int
    name: str
    args: tuple[bytes, ...]
    answers: int = 0
    error: ActorError | None = None
    given_up: bool = False
    """The caller does not wait any more, or was told that the call may or may not have run."""

    def __str__(self) -> str:
        return self.name


@attrs.define(eq=False)
class Subscription:
    """An event got its first listener, or lost its last."""

    moment: int
    event: str
    wanted: bool
    trace: "Trace | None" = None
    refused: bool = False


@attrs.define(eq=False)
class Arrived:
    """An event, an answer, or the news that events of a name were dropped, in the order of arrival."""

    moment: int
    event: str | None
    values: Sequence[Value] = ()
    key: bytes = b""
    call: SentCall | None = None
    dropped: tuple[str, int] | None = None


@attrs.define(eq=False)
class Trace:
    """One connection as the actor counts them: from its admission to its end, on however many transports."""

    name: str
    conn: str
    actor: str
    subscribed_first: list[Subscription]
    arrived: list[Arrived] = attrs.field(factory=list[Arrived])
    ended: int | None = None
    why: str = ""


@attrs.define(eq=False)
class Watched:
    """One `connect()` of a client, with the connections that it had one after the other."""

    name: str
    link: Link
    sent: list[SentCall | Subscription] = attrs.field(factory=list["SentCall | Subscription"])
    traces: list[Trace] = attrs.field(factory=list[Trace])
    early: list[Arrived] = attrs.field(factory=list[Arrived])
    connected: bool = False
    waiting: int = 0

    @property
    def live(self) -> Trace | None:
        """The connection that has not ended."""
        return self.traces[-1] if self.traces and self.traces[-1].ended is None else None

    @property
    def calls(self) -> list[SentCall]:
        return [sent for sent in self.sent if isinstance(sent, SentCall)]


# -- both -------------------------------------------------------------------------------------------------------------


class Journal:
    """What happened, in one order. The index of an entry is its moment."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.watched: list[Watched] = []
        self.crashes: list[int] = []
        self._emitted: dict[str, int] = {}
        self._running = 0
        self._hooks: dict[str, frozenset[str]] = {}

    @property
    def now(self) -> int:
        """The moment of whatever comes next."""
        return len(self.entries)

    @property
    def is_busy(self) -> bool:
        """Whether an action or a hook is running, or a client waits for an answer that can come."""
        return bool(self._running) or any(one.waiting for one in self.watched if one.connected and not _stuck(one))

    @property
    def impaired(self) -> set[str]:
        """The connections that what was sent to them may not reach."""
        return {one.traces[-1].conn for one in self.watched if one.traces and _stuck(one)}

    def has_hook(self, actor: str, hook: str) -> bool:
        """Whether the actor's class has that hook."""
        return hook in self._hooks.get(actor, ())

    def crashed(self) -> None:
        """All actors are gone."""
        self.crashes.append(self.now)

    # -- at the actor -------------------------------------------------------------------------------------------------

    @contextmanager
    def busy(self) -> Generator[None]:
        """Something runs that may change what is delivered."""
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    def begin(
        self,
        what: Literal["action", "on_connect", "on_disconnect"],
        name: str,
        actor: Actor[Any, Any, Any],
        serial: bool,
    ) -> Called:
        conn = actor.conn_or_none
        kind = "" if conn is None else conn.kind
        called = Called(what, name, actor.actor_id, None if conn is None else conn.id, kind, self.now, serial)
        self.entries.append(called)
        return called

    def end(self, called: Called, raised: bool) -> None:
        called.returned = self.now
        called.raised = raised
        self.entries.append(called)

    def adopt(self, instance: Instance) -> None:
        """Take down what this actor emits."""
        self._hooks[instance.actor_id] = instance.definition.hooks
        emitter: Any = instance.emitter
        emitter.broadcast = self._broadcasts(instance, emitter.broadcast)
        emitter.send = self._sends(instance, emitter.send)
        emitter.publish = self._publishes(instance, emitter.publish)
        emitter.publish_to = self._publishes_to(instance, emitter.publish_to)

    def _broadcasts(self, instance: Instance, broadcast: Callable[..., Any]) -> Callable[..., Any]:
        def recorded(event: Any, args: Sequence[object], exclude: Any = (), where: Any = None) -> Any:
            name, values = _checked(instance, event, args)
            excluded = _excluded(exclude)
            result = broadcast(event, args, excluded, where)
            self._note_broadcast(instance, name, values, excluded, where)
            return result

        return recorded

    def _publishes(self, instance: Instance, publish: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def recorded(event: Any, args: Sequence[object], exclude: Any, where: Any, *rest: Any) -> Any:
            name, values = _checked(instance, event, args)
            excluded = _excluded(exclude)
            result = await publish(event, args, excluded, where, *rest)
            self._note_broadcast(instance, name, values, excluded, where)  # it was emitted without a pause since
            return result

        return recorded

    def _sends(self, instance: Instance, send: Callable[..., Any]) -> Callable[..., Any]:
        def recorded(session: Session, event: Any, args: Sequence[object]) -> Any:
            name, values = _checked(instance, event, args)
            result = send(session, event, args)
            if result:
                self._note(instance, name, values, only=session.conn.id)
            return result

        return recorded

    def _publishes_to(
        self, instance: Instance, publish: Callable[..., Awaitable[Any]]
    ) -> Callable[..., Awaitable[Any]]:
        async def recorded(session: Session, event: Any, args: Sequence[object], *rest: Any) -> Any:
            name, values = _checked(instance, event, args)
            result = await publish(session, event, args, *rest)
            if result:
                self._note(instance, name, values, only=session.conn.id)
            return result

        return recorded

    def _note_broadcast(
        self, instance: Instance, name: str, values: Sequence[Value], excluded: tuple[Any, ...], where: Any
    ) -> None:
        out = {item.id if isinstance(item, Conn) else item for item in excluded}
        to: set[str] = set()
        perhaps: set[str] = set()
        for conn in instance.conns.values():
            if conn.kind == "events" and conn.id not in out:
                try:
                    chosen = where is None or bool(where(conn))
                except Exception:  # it need not have an answer for those that are not subscribed
                    perhaps.add(conn.id)
                else:
                    if chosen:
                        to.add(conn.id)
        self._note(instance, name, values, to=frozenset(to), perhaps=frozenset(perhaps))

    def _note(self, instance: Instance, name: str, values: Sequence[Value], **to: Any) -> None:
        number = self._emitted[instance.actor_id] = self._emitted.get(instance.actor_id, 0) + 1
        cause = _current.get()
        if cause is not None and (cause.returned != NEVER or cause.actor != instance.actor_id):
            cause = None
        conns = frozenset(instance.conns)
        self.entries.append(
            Emitted(number, instance.actor_id, self.now, name, values, value_key(values), conns, cause=cause, **to)
        )

    # -- at the client ------------------------------------------------------------------------------------------------

    def watch(self, connection: Connection[Any], link: Link) -> Watched:
        """Take down what a connection sends and sees."""
        count = sum(one.link is link for one in self.watched)
        watched = Watched(link.name if not count else f"{link.name}, connection {count + 1}", link)
        self.watched.append(watched)
        calls, listeners, codec = connection._calls, connection._listeners, connection._codec
        send, answer, dispatch, subscribe = calls.send, calls.answer, listeners.dispatch, listeners._subscribe
        mark, refuse = listeners.mark, listeners.refuse
        sent_calls: dict[int, SentCall] = {}

        async def recorded_send(key: Hashable, pending: Pending, ended: Callable[[], Exception | None]) -> Value:
            if not isinstance(pending, PendingCall):
                return await send(key, pending, ended)
            call_id = pending.id
            request = cast("ActionRequest", codec.decode_to_server(pending.payload))
            sent = SentCall(self.now, call_id, request.name, tuple(value_key([arg]) for arg in request.args))
            watched.sent.append(sent)
            sent_calls[call_id] = sent
            watched.waiting += 1
            try:
                return await send(key, pending, ended)
            except ActorError as error:
                sent.error = error
                raise
            except BaseException:
                sent.given_up = True
                raise
            finally:
                watched.waiting -= 1

        def arrive(arrived: Arrived) -> None:
            trace = watched.live if watched.connected else None
            (watched.early if trace is None else trace.arrived).append(arrived)

        def recorded_answer(key: Hashable, *args: Any, **kwargs: Any) -> bool:
            sent = sent_calls.get(key) if isinstance(key, int) else None
            if sent is not None:
                sent.answers += 1
                arrive(Arrived(self.now, None, call=sent))
            return answer(key, *args, **kwargs)

        def recorded_dispatch(name: str, payload: Sequence[Value]) -> None:
            arrive(Arrived(self.now, name, payload, value_key(payload)))
            dispatch(name, payload)

        def recorded_subscribe(name: str, wanted: bool) -> None:
            subscribe(name, wanted)
            if watched.traces:  # without a transport it is sent on the next, or is among the first of a new session
                watched.sent.append(Subscription(self.now, name, wanted, watched.traces[-1]))

        def recorded_mark(marked: Sequence[Listener], reason: Missing) -> bool:
            if isinstance(reason, Dropped):
                arrive(Arrived(self.now, None, dropped=(reason.event, reason.count)))
            return mark(marked, reason)

        def recorded_refuse(name: str, error: ActorError) -> None:
            asked = [*(watched.traces[-1].subscribed_first if watched.traces else ()), *watched.sent]
            for sent in reversed(asked):
                if isinstance(sent, Subscription) and sent.wanted and sent.event == name:
                    sent.refused = True
                    break
            refuse(name, error)

        def status_changed(status: Status) -> None:
            watched.connected = status == "connected"
            trace = watched.traces[-1] if watched.traces else None
            if status == "connected":
                conn_id, actor_id = connection.conn_id, connection.actor_id
                assert conn_id is not None
                assert actor_id is not None
                if trace is None or trace.conn != conn_id:
                    first = [
                        Subscription(self.now, name, True)
                        for name in dict.fromkeys(one.event.name for one in listeners.all())
                    ]
                    trace = Trace(watched.name, conn_id, actor_id, first)
                    watched.traces.append(trace)
                trace.ended = None
                trace.arrived += watched.early
                watched.early.clear()
            elif trace is not None and trace.ended is None:
                trace.ended = self.now

        def closed(how: Closed) -> None:
            if watched.traces:
                watched.traces[-1].why = f"{how.code} {how.reason}".rstrip()
                watched.traces[-1].ended = self.now

        patched: Any = connection
        patched._calls.send, patched._calls.answer = recorded_send, recorded_answer
        patched._listeners.dispatch, patched._listeners._subscribe = recorded_dispatch, recorded_subscribe
        patched._listeners.mark, patched._listeners.refuse = recorded_mark, recorded_refuse
        connection.on_status_change(status_changed)
        connection.on_close(closed)
        return watched


def _stuck(watched: Watched) -> bool:
    return watched.link.is_impaired or watched.link.is_down


def _excluded(exclude: Any) -> tuple[Any, ...]:
    return tuple([exclude] if isinstance(exclude, (Conn, str)) else cast("Iterable[Any]", exclude))


def _checked(instance: Instance, event: Any, args: Sequence[object]) -> tuple[str, Sequence[Value]]:
    """The event's name and payload as it travels. Raises what the emitter raises when it has a recipient."""
    definition = instance.definition
    known: EventDefinition | None
    known, name = instance.emitter._resolve(event)
    values = [definition.dump_any(arg) for arg in args] if known is None else known.dump(args)
    payload = _CODEC.encode_to_client(EventMessage(name, values))
    if len(payload) > instance.host.limits.outgoing_message:
        raise answers.outgoing_too_long()
    return name, values


# -- the registry of a world ------------------------------------------------------------------------------------------


def observed_registry(registry: Registry, journal: Journal) -> Registry:
    """The same registry, whose actors tell the journal what they do."""
    observed = copy.copy(registry)
    observed._definitions = {name: _observed(definition, journal) for name, definition in registry.items()}
    return observed


def _observed(definition: ActorDefinition, journal: Journal) -> ActorDefinition:
    wrapped = {name: _observed_action(action, journal) for name, action in definition.actions.items()}
    return attrs.evolve(
        definition,
        cls=_observed_class(definition, journal),
        actions=wrapped,
        by_action={action: wrapped[known.name] for action, known in definition.by_action.items()},
        events={name: _observed_event(event, journal) for name, event in definition.events.items()},
    )


def _observed_class(definition: ActorDefinition, journal: Journal) -> type[Actor[Any, Any, Any]]:
    cls = definition.cls

    def get_instance(self: Actor[Any, Any, Any]) -> Instance:
        return cast("Instance", vars(self)["_instance"])

    def set_instance(self: Actor[Any, Any, Any], instance: Instance) -> None:
        vars(self)["_instance"] = instance
        journal.adopt(instance)

    members: dict[str, Any] = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "_instance": property(get_instance, set_instance),
    }
    hooks: Sequence[Literal["on_connect", "on_disconnect"]] = ("on_connect", "on_disconnect")
    for hook in hooks:
        if hook in definition.hooks:
            members[hook] = _observed_hook(getattr(cls, hook), hook, journal)
    return cast(
        "type[Actor[Any, Any, Any]]", types.new_class(cls.__name__, (cls,), {}, lambda body: body.update(members))
    )


def _observed_hook(
    fn: Callable[..., Any], hook: Literal["on_connect", "on_disconnect"], journal: Journal
) -> Callable[..., Any]:
    async def observed(self: Actor[Any, Any, Any], conn: Conn[Any, Any]) -> None:
        called = journal.begin(hook, hook, self, True)
        called.conn, called.kind = conn.id, conn.kind
        await _run(journal, called, lambda: fn(self, conn))

    return observed


def _observed_action(action: ActionDefinition, journal: Journal) -> ActionDefinition:
    fn = action.fn

    def observed(actor: Actor[Any, Any, Any], *args: Any) -> Any:
        called = journal.begin("action", action.name, actor, not action.concurrent)
        try:
            called.args = tuple(value_key([value]) for value in action.signature.dump_args(args, {}))
        except (TrivetError, ValueError, TypeError):
            pass  # what the types let in they need not let out; then its name has to do
        token = _current.set(called)
        try:
            result = fn(actor, *args)
        except BaseException:
            journal.end(called, True)
            raise
        finally:
            _current.reset(token)
        if hasattr(result, "__await__"):
            return _run(journal, called, lambda: result)
        journal.end(called, False)
        return result

    return attrs.evolve(action, fn=observed)


async def _run(journal: Journal, called: Called, body: Callable[[], Any]) -> Any:
    raised = True
    token = _current.set(called)
    try:
        with journal.busy():
            result = body()
            if hasattr(result, "__await__"):
                result = await result
        raised = False
        return result
    finally:
        _current.reset(token)
        journal.end(called, raised)


def _observed_event(event: EventDefinition, journal: Journal) -> EventDefinition:
    hook: Callable[[Any, Any], Any] | None = event.subscribe_hook
    if hook is None:
        return event

    async def observed(actor: Any, conn: Any) -> Any:
        with journal.busy():
            allowed: Any = hook(actor, conn)
            return await allowed if hasattr(allowed, "__await__") else allowed

    return attrs.evolve(event, subscribe_hook=observed)


def journal_of(entries: Sequence[Entry]) -> Mapping[str, list[Emitted]]:
    """The events of each actor, in the order in which it emitted them."""
    found: dict[str, list[Emitted]] = {}
    for entry in entries:
        if isinstance(entry, Emitted):
            found.setdefault(entry.actor, []).append(entry)
    return found
