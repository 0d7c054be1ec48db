"""All live actors of one registry: key to actor, create, find, stop."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TypeAlias

import attrs
import trio

from trivet.errors import PublicError
from trivet.limits import Limits
from trivet.nurseries import open_quiet_nursery
from trivet.protocol.keys import check_key, serialise_key
from trivet.protocol.values import UNDEFINED, Value
from trivet.registry import Registry, check_registry
from trivet.runtime import answers
from trivet.runtime.flush import FlushTask
from trivet.runtime.instance import Instance
from trivet.runtime.outbox import Backlog
from trivet.runtime.session import Session
from trivet.runtime.timers import Timers

_Address: TypeAlias = tuple[str, str, tuple[str, ...]]


@attrs.frozen
class HostStatistics:
    """Counts of one host. `queued_bytes` wait in outboxes for clients that do not read fast enough."""

    actors: int
    connections: int
    queued_bytes: int
    timers: int


class Host:
    """The actors of a registry, in one process. Made by `open_host`."""

    def __init__(self, registry: Registry, limits: Limits, actors: trio.Nursery, tasks: trio.Nursery) -> None:
        self.registry = registry
        self.limits = limits
        self.timers = Timers()
        self.flushes = FlushTask()
        self.backlog = Backlog(limits)
        self.tasks = tasks
        """Where the tasks of connections run, each owned by its connection's TaskScope."""
        self.stopping = False
        self.sessions: dict[str, Session] = {}
        """Those that can be resumed, and those that ended while their client was away, by their tokens."""
        self._actors = actors
        self._by_address: dict[_Address, Instance] = {}
        self._by_id: dict[str, Instance] = {}

    async def get(self, namespace: str, name: str, key: tuple[str, ...]) -> Instance:
        """The actor of that name and key. Raises PublicError `actor.not_found`."""
        self.check(namespace, name, key)
        while True:
            instance = self._by_address.get((namespace, name, key))
            if instance is None:
                raise answers.not_found()
            if await _is_up(instance):
                return instance

    async def get_or_create(
        self,
        namespace: str,
        name: str,
        key: tuple[str, ...],
        input: Value = UNDEFINED,
    ) -> tuple[Instance, bool]:
        """The actor of that name and key, and whether it was created for this call.

        Raises PublicError: what its hooks raise at the start, `actor.stopping` when the host stops.
        """
        self.check(namespace, name, key)
        while True:
            instance = self._by_address.get((namespace, name, key))
            if instance is None:
                return await self._create(namespace, name, key, input), True
            if await _is_up(instance):
                return instance, False

    async def create(
        self,
        namespace: str,
        name: str,
        key: tuple[str, ...],
        input: Value = UNDEFINED,
    ) -> Instance:
        """A new actor. Raises PublicError `actor.duplicate_key` where there is one."""
        self.check(namespace, name, key)
        while (instance := self._by_address.get((namespace, name, key))) is not None:
            if await _is_up(instance):
                raise answers.duplicate_key(serialise_key(key), instance.actor_id)
        return await self._create(namespace, name, key, input)

    async def by_id(self, actor_id: str) -> Instance:
        """The actor of that id. Raises PublicError `actor.not_found`."""
        instance = self._by_id.get(actor_id)
        if instance is None or not await _is_up(instance):
            raise answers.not_found()
        return instance

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

    async def _create(self, namespace: str, name: str, key: tuple[str, ...], input: Value) -> Instance:
        if self.stopping:
            raise answers.stopping()
        if len(self._by_id) >= self.limits.actors:
            raise PublicError("guard", "service_unavailable", "The server has too many actors.")
        instance = Instance(self, self.registry[name], namespace, key)
        self._by_address[namespace, name, key] = instance
        self._by_id[instance.actor_id] = instance
        self._actors.start_soon(instance.live, input)
        await instance.started.wait()
        if instance.start_error is not None:
            raise instance.start_error
        return instance

    def forget(self, instance: Instance) -> None:
        """An actor has ended."""
        self._by_address.pop((instance.namespace, instance.name, instance.key), None)
        self._by_id.pop(instance.actor_id, None)

    async def stop(self) -> None:
        """Refuse new work, let every actor finish what it has, tell the connections. Idempotent.

        Takes at most about `shutdown_grace`; what has not ended by then is cancelled.
        """
        self.stopping = True
        instances = list(self._by_id.values())
        for instance in instances:
            instance.request_stop(destroy=False)
        for instance in instances:
            await instance.ended.wait()

    def statistics(self) -> HostStatistics:
        """Counts, see HostStatistics."""
        connections = sum(len(instance.conns) for instance in self._by_id.values())
        return HostStatistics(len(self._by_id), connections, self.backlog.bytes, len(self.timers))


async def _is_up(instance: Instance) -> bool:
    """Whether the actor takes work, once it has started. False after the end of one that is stopping."""
    await instance.started.wait()
    if instance.stopping or instance.start_error is not None:
        if instance.host.stopping:  # there will be no other
            raise answers.stopping()
        await instance.ended.wait()
        return False
    return True


@asynccontextmanager
async def open_host(registry: Registry, limits: Limits | None = None) -> AsyncGenerator[Host]:
    """A host for the time of the `async with`. Leaving it stops gracefully; leaving by an exception cancels."""
    check_registry(registry, "open_host")
    async with open_quiet_nursery() as tasks, open_quiet_nursery() as actors:
        host = Host(registry, limits or Limits(), actors, tasks)
        tasks.start_soon(host.timers.run)
        tasks.start_soon(host.flushes.run)
        yield host
        await host.stop()
