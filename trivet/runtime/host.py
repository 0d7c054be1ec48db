"""All live actors of one registry: key to actor, create, find, stop."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final, TypeAlias

import attrs
import trio

from trivet.errors import PublicError
from trivet.limits import Limits
from trivet.nurseries import open_quiet_nursery
from trivet.options import Durability
from trivet.protocol.ids import new_actor_id
from trivet.protocol.keys import check_key, serialise_key
from trivet.protocol.values import UNDEFINED, Value
from trivet.registry import Registry, check_registry
from trivet.runtime import answers, ending, life
from trivet.runtime.alarms import AlarmClock
from trivet.runtime.backlog import Backlog
from trivet.runtime.clocks import default_wall_clock
from trivet.runtime.flush import FlushTask
from trivet.runtime.instance import Instance
from trivet.runtime.lifecycle import Goal, Phase
from trivet.runtime.logs import logger
from trivet.runtime.once import Once
from trivet.runtime.session import Session
from trivet.runtime.timers import Timers
from trivet.store import ActorRow, MemoryStore, Store, Stored, StoreError, check_store

_NO_FAILURES: Final = (("actor", "not_found"), ("guard", "service_unavailable"))
"""Errors of a wake that say nothing about the actor."""

_Address: TypeAlias = tuple[str, str, tuple[str, ...]]


@attrs.frozen
class HostStatistics:
    """Counts of one host. `queued_bytes` wait in outboxes, or to be acknowledged; what many wait for counts once."""

    actors: int
    connections: int
    queued_bytes: int
    timers: int


class Host:
    """The actors of a registry, in one process. Made by `open_host`."""

    def __init__(
        self,
        registry: Registry,
        limits: Limits,
        store: Store,
        actors: trio.Nursery,
        tasks: trio.Nursery,
        wall_clock: Callable[[], float],
        durability: Durability,
    ) -> None:
        self.registry = registry
        self.limits = limits
        self.store = store
        self.durability: Durability = durability
        """Of actors whose options say nothing else."""
        self.wall_clock = wall_clock
        """Seconds since 1970."""
        self.timers = Timers()
        self.flushes = FlushTask()
        self.alarms = AlarmClock(self)
        self.backlog = Backlog(limits)
        self.tasks = tasks
        """Where the tasks of connections run, each owned by its connection's TaskScope."""
        self.stopping = False
        self.sessions: dict[str, Session] = {}
        """Those that can be resumed, and those that ended while their client was away, by their tokens."""
        self._actors = actors
        self._by_address: dict[_Address, Instance] = {}
        self._by_id: dict[str, Instance] = {}
        self._looked_up: dict[_Address, Once] = {}

    # With `soon` an actor will do that is only about to be awake, if no code of its own comes before the first call:
    # that waits, and fails with what the start raises. Then these need not be checkpoints.

    async def get(self, namespace: str, name: str, key: tuple[str, ...], *, soon: bool = False) -> Instance:
        """The actor of that name and key, awake. Raises PublicError `actor.not_found`."""
        found = await self._find((namespace, name, key), None, soon)
        if found is None:
            raise answers.not_found()
        return found[0]

    async def get_or_create(
        self,
        namespace: str,
        name: str,
        key: tuple[str, ...],
        input: Value = UNDEFINED,
        *,
        soon: bool = False,
    ) -> tuple[Instance, bool]:
        """The actor of that name and key, awake, and whether it was created for this call.

        Raises PublicError: what its hooks raise at the start, `actor.stopping` when the host stops.
        """
        found = await self._find((namespace, name, key), (input,), soon)
        assert found is not None
        return found

    async def create(
        self,
        namespace: str,
        name: str,
        key: tuple[str, ...],
        input: Value = UNDEFINED,
    ) -> Instance:
        """A new actor. Raises PublicError `actor.duplicate_key` where there is one."""
        instance, created = await self.get_or_create(namespace, name, key, input)
        if not created:
            raise answers.duplicate_key(serialise_key(key), instance.actor_id)
        return instance

    async def by_id(self, actor_id: str, *, soon: bool = False) -> Instance:
        """The actor of that id, awake. Raises PublicError `actor.not_found`."""
        while True:
            instance = self._by_id.get(actor_id)
            if instance is None:
                row = await self.store.find_id(actor_id)
                if row is None or row.name not in self.registry:
                    raise answers.not_found()
                found = await self._find((row.namespace, row.name, row.key), None, soon)
                if found is None or found[0].actor_id != actor_id:
                    raise answers.not_found()
                return found[0]
            if await _is_up(instance, soon):
                return instance

    # -- without waking ----------------------------------------------------------------------------------------------

    async def find(self, namespace: str, name: str, key: tuple[str, ...]) -> ActorRow | None:
        """Who the actor of that name and key is, if there is one. It may sleep on.

        Waits for the end of one that is being created or destroyed. Raises PublicError where there can be no such
        actor.
        """
        address = (namespace, name, key)
        self.check(*address)
        while (instance := self._by_address.get(address)) is not None:
            if await _is_there(instance):
                return instance.row
        return await self.store.find(*address)

    async def find_id(self, actor_id: str) -> ActorRow | None:
        """Who the actor of that id is, as `find`."""
        while (instance := self._by_id.get(actor_id)) is not None:
            if await _is_there(instance):
                return instance.row
        row = await self.store.find_id(actor_id)
        return row if row is not None and row.name in self.registry else None

    async def rows(self, namespace: str, name: str, after: tuple[float, str], limit: int) -> Sequence[ActorRow]:
        """The oldest actors of that name with a (created_at, actor_id) above `after`, those that sleep too.

        Those that are being destroyed are among them.
        """
        return await self.store.list(namespace, name, after, limit) if name in self.registry else ()

    def in_memory(self, actor_id: str) -> Instance | None:
        """The object of an actor that is awake, or has connections."""
        return self._by_id.get(actor_id)

    async def put_to_sleep(self, actor_id: str) -> None:
        """See to it that the actor sleeps. Raises PublicError `actor.not_found`."""
        if await self.find_id(actor_id) is None:
            raise answers.not_found()
        if (instance := self._by_id.get(actor_id)) is not None:
            await instance.sleep()

    async def destroy(self, actor_id: str) -> None:
        """Destroy the actor, which wakes for its `on_destroy`. Raises PublicError `actor.not_found`.

        One that cannot wake, because its state cannot be loaded or a hook raises, is removed all the same.
        """
        if await self.find_id(actor_id) is None:
            raise answers.not_found()
        try:
            instance = await self.by_id(actor_id)
        except PublicError as error:
            if self.stopping or (error.group, error.code) in _NO_FAILURES:
                raise
            logger.warning("actor %s cannot wake (%s), and is destroyed as it is", actor_id, error)
            await self.store.destroy(actor_id)
            if (woken := self._by_id.get(actor_id)) is None:
                return
            with suppress(PublicError):  # it had read what is destroyed now, and could be woken after all
                await woken.destroy()
        else:
            await instance.destroy()

    # -- waking ------------------------------------------------------------------------------------------------------

    async def _find(self, address: _Address, creation: tuple[Value] | None, soon: bool) -> tuple[Instance, bool] | None:
        """The actor of an address, awake, and whether it is new; made with the input `creation`, if that is given."""
        while True:
            instance = self._by_address.get(address)
            if instance is not None:
                if await _is_up(instance, soon):
                    return instance, False
                continue
            if address[1] not in self.registry:
                raise answers.not_registered(address[1])
            other = self._looked_up.get(address)
            if other is not None:  # one of them decides whether there is an actor
                await other.wait()
                continue
            try:
                stored = self.store.load_by_key_nowait(*address)
            except trio.WouldBlock:
                stored = None
            if stored is not None:
                self._bring_in(stored.row, is_new=False).wake(stored)
                continue
            looked_up = self._looked_up[address] = Once()
            try:
                row, stored = await self._look_up(address)
                if row is None:
                    self.check(*address)  # only here: the address of an actor that there is has been checked
                    if creation is None:
                        return None
                instance = self._bring_in(row or self._new_row(address), is_new=row is None)
            finally:
                del self._looked_up[address]
                looked_up.set()
            if row is not None:
                # At once: nobody else has brought it in since it was read, so this is what there is.
                instance.wake(stored)
            else:
                assert creation is not None
                instance.lifecycle.move(Phase.STARTING)
                self._actors.start_soon(instance.live, *creation)
                await instance.started.wait()
                if instance.start_error is not None:
                    raise instance.start_error
                return instance, True

    async def _look_up(self, address: _Address) -> tuple[ActorRow | None, Stored | None]:
        """Who the actor of an address is, if there is one, and what it wakes up with: mostly one read gives both."""
        try:
            stored = await self.store.load_by_key(*address)
        except StoreError:
            # Who it is may be told all the same. What is wrong with the rest is then a failure of that actor's start.
            return await self.store.find(*address), None
        return (None, None) if stored is None else (stored.row, stored)

    def _new_row(self, address: _Address) -> ActorRow:
        return ActorRow(new_actor_id(), *address, self.wall_clock())

    def _bring_in(self, row: ActorRow, *, is_new: bool) -> Instance:
        if self.stopping:
            raise answers.stopping()
        if len(self._by_id) >= self.limits.actors:
            raise PublicError("guard", "service_unavailable", "The server has too many actors.")
        instance = Instance(self, self.registry[row.name], row, is_new=is_new)
        self._by_address[row.namespace, row.name, row.key] = instance
        self._by_id[row.actor_id] = instance
        return instance

    def start(self, instance: Instance) -> None:
        """Run one life of an actor."""
        self._actors.start_soon(instance.live)

    def instances(self, namespace: str | None = None, name: str | None = None) -> list[Instance]:
        """The live actors, those that stop left out."""
        return [
            instance
            for instance in self._by_id.values()
            if namespace in (None, instance.namespace) and name in (None, instance.name) and not instance.stopping
        ]

    def check(self, namespace: str, name: str, key: tuple[str, ...]) -> None:
        """Raise PublicError where there can be no such actor: `actor.not_registered`, `actor.invalid_request`."""
        if name not in self.registry:
            raise answers.not_registered(name)
        if len(namespace) > self.limits.namespace:
            message = f"The namespace is longer than {self.limits.namespace} characters."
            raise PublicError("actor", "invalid_request", message)
        check_key(key, self.limits)

    def forget(self, instance: Instance) -> None:
        """An actor has ended."""
        self._by_address.pop((instance.namespace, instance.name, instance.key), None)
        self._by_id.pop(instance.actor_id, None)

    async def stop(self) -> None:
        """Refuse new work, let every actor finish what it has and be saved, tell the connections. Idempotent.

        Takes at most about `shutdown_grace`; what has not ended by then is cancelled.
        """
        self.stopping = True
        instances = list(self._by_id.values())
        for instance in instances:
            ending.request(instance, Goal.STOP)
        for instance in instances:
            if instance.phase is Phase.ASLEEP:
                life.say_goodbye(instance)
            else:
                await instance.ended.wait()

    def statistics(self) -> HostStatistics:
        """Counts, see HostStatistics."""
        connections = sum(len(instance.conns) for instance in self._by_id.values())
        return HostStatistics(len(self._by_id), connections, self.backlog.bytes, len(self.timers))


async def _is_up(instance: Instance, soon: bool) -> bool:
    """Whether this object is the actor, awake, or where `soon` will do about to be. False after the end of one that is
    no more. Raises PublicError.

    Of one that did not come to be nobody but its creator learns why: the next one may try.
    """
    if soon and not instance.is_new:
        instance.wake()
        if instance.phase is Phase.RUNNING or instance.takes_early_calls:
            return True
    await instance.ready()
    if instance.phase is Phase.RUNNING:
        return True
    if instance.phase is not Phase.GONE:
        if instance.host.stopping:  # there will be no other
            raise answers.stopping()
        await instance.ended.wait()
    return False


async def _is_there(instance: Instance) -> bool:
    """Whether there is this actor: asked again when its creation or its destruction is over."""
    if instance.is_new:
        await instance.started.wait()
    elif instance.lifecycle.goal is Goal.DESTROY:
        await instance.ended.wait()
    else:
        return True
    return False


@asynccontextmanager
async def open_host(
    registry: Registry,
    limits: Limits | None = None,
    *,
    store: Store | None = None,
    wall_clock: Callable[[], float] | None = None,
    durability: Durability = "gated",
) -> AsyncGenerator[Host]:
    """A host for the time of the `async with`. Leaving it stops gracefully; leaving by an exception cancels.

    Without a `store` the actors are kept in memory, as long as the host. Without a `wall_clock` schedules go by the
    machine's, or in virtual time by Trio's.
    """
    check_registry(registry, "open_host")
    check_store(store, "open_host")
    clock = wall_clock or default_wall_clock()
    async with open_quiet_nursery() as tasks, open_quiet_nursery() as actors:
        host = Host(registry, limits or Limits(), store or MemoryStore(), actors, tasks, clock, durability)
        tasks.start_soon(host.timers.run)
        tasks.start_soon(host.flushes.run)
        tasks.start_soon(host.alarms.run)
        yield host
        await host.stop()
