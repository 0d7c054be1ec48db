"""What actors did, taken down at the actors; what clients saw is taken down at the clients, see `watching`.

Whatever lies between, from the emitter to the listeners, is what a check of delivery is about, so nothing is taken
down there. These are the two modules of the kit that reach into the runtime and the client: this one to the actor's
emitter and the functions of its definition, the other to a connection's calls and listeners.
"""

import copy
import types
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, cast

import attrs

from trivet.actor import Actor
from trivet.client.connection import Connection
from trivet.definition import ActionDefinition, ActorDefinition, EventDefinition
from trivet.errors import TrivetError
from trivet.protocol.messages import Event as EventMessage
from trivet.protocol.values import Value
from trivet.registry import Registry
from trivet.runtime import answers
from trivet.runtime.connection import Conn
from trivet.runtime.host import Host
from trivet.runtime.instance import Instance
from trivet.runtime.lifecycle import Phase
from trivet.runtime.session import Session
from trivet.store import StoreError
from trivet.testing.network import Link
from trivet.testing.places import check_places, wrap
from trivet.testing.records import CODEC, NEVER, Called, Emitted, Entry, Watched, value_key
from trivet.testing.watching import watch


class Journal:
    """What happened, in one order. The index of an entry is its moment."""

    def __init__(self) -> None:
        check_places()
        self.entries: list[Entry] = []
        self.watched: list[Watched] = []
        self.crashes: list[int] = []
        self.answers_count = True
        """Whether a client that waits for an answer makes it busy."""
        self._emitted: dict[str, int] = {}
        self._running = 0
        self._hooks: dict[str, frozenset[str]] = {}
        self._woke: dict[str, int] = {}
        self._asleep: frozenset[str] = frozenset()

    @property
    def now(self) -> int:
        """The moment of whatever comes next."""
        return len(self.entries)

    @property
    def is_busy(self) -> bool:
        """Whether an action or a hook is running, or a client waits for an answer that can come."""
        return bool(self._running) or (self.answers_count and any(one.waiting for one in self._reachable()))

    @property
    def unfinished(self) -> list[str]:
        """In words, what keeps it busy."""
        running = [
            f"{entry} is running"
            for moment, entry in enumerate(self.entries)
            if isinstance(entry, Called) and entry.moment == moment and entry.returned == NEVER
        ]
        waiting = [
            f"{one.name} waits for the answer to {call}"
            for one in self._reachable()
            for call in one.calls
            if not (call.answers or call.given_up)
        ]
        return running + waiting

    def _reachable(self) -> list[Watched]:
        return [one for one in self.watched if one.connected and not _stuck(one)]

    @property
    def impaired(self) -> set[str]:
        """The connections that what was sent to them may not reach."""
        return {one.traces[-1].conn for one in self.watched if one.traces and _stuck(one)}

    def has_hook(self, actor: str, hook: str) -> bool:
        """Whether the actor's class has that hook."""
        return hook in self._hooks.get(actor, ())

    async def stopping(self, host: Host) -> None:
        """All actors are about to end: note which of them sleep."""
        awake = {one.actor_id for one in host.instances() if one.phase is not Phase.ASLEEP}
        asleep: set[str] = set()
        for actor in self._hooks.keys() - awake:
            try:
                if await host.store.find_id(actor) is not None:  # it was not destroyed
                    asleep.add(actor)
            except StoreError:
                pass  # then it is not excused
        self._asleep = frozenset(asleep)

    def slept_to_the_end(self, actor: str, since: int | None) -> bool:
        """Whether it never lived again after that moment: what its next life would have seen to is not done."""
        return actor in self._asleep and (since is None or self._woke[actor] <= since)

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

    def end(self, called: Called) -> None:
        called.returned = self.now
        self.entries.append(called)

    def adopt(self, instance: Instance) -> None:
        """Take down what this actor emits."""
        self._hooks[instance.actor_id] = instance.definition.hooks
        self._woke[instance.actor_id] = self.now
        if "broadcast" in vars(instance.emitter):
            return  # another life of one that slept with its connections: it has kept its emitter
        for name, make in (
            ("broadcast", self._broadcasts),
            ("send", self._sends),
            ("publish", self._publishes),
            ("publish_to", self._publishes_to),
        ):
            wrap(instance.emitter, name, partial(make, instance))

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
        self.entries.append(Emitted(number, instance.actor_id, self.now, name, values, value_key(values), **to))

    # -- at the client ------------------------------------------------------------------------------------------------

    def watch(self, connection: Connection[Any], link: Link) -> Watched:
        """Take down what a connection sends and sees."""
        count = sum(one.link is link for one in self.watched)
        watched = Watched(link.name if not count else f"{link.name}, connection {count + 1}", link)
        self.watched.append(watched)
        watch(connection, watched, lambda: self.now)
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
    payload = CODEC.encode_to_client(EventMessage(name, values))
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
    wrapped = {action.name: _observed_action(action, journal) for action in definition.by_action.values()}
    return attrs.evolve(
        definition,
        cls=_observed_class(definition, journal),
        actions={name: wrapped[name] for name in definition.actions},
        internal_actions={name: wrapped[name] for name in definition.internal_actions},
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
        try:
            result = fn(actor, *args)
        except BaseException:
            journal.end(called)
            raise
        if hasattr(result, "__await__"):
            return _run(journal, called, lambda: result)
        journal.end(called)
        return result

    return attrs.evolve(action, fn=observed)


async def _run(journal: Journal, called: Called, body: Callable[[], Any]) -> Any:
    try:
        with journal.busy():
            result = body()
            return await result if hasattr(result, "__await__") else result
    finally:
        journal.end(called)


def _observed_event(event: EventDefinition, journal: Journal) -> EventDefinition:
    hook: Callable[[Any, Any], Any] | None = event.subscribe_hook
    if hook is None:
        return event

    async def observed(actor: Any, conn: Any) -> Any:
        with journal.busy():
            allowed: Any = hook(actor, conn)
            return await allowed if hasattr(allowed, "__await__") else allowed

    return attrs.evolve(event, subscribe_hook=observed)
