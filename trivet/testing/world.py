"""A registry, its server and any number of clients in one process, with a network between them that can fail."""

import os
import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

import trio

from trivet.client.api import Client, open_client
from trivet.client.backend import Target
from trivet.client.connection import Connection
from trivet.client.contracts import Contracts
from trivet.client.handle import GetParams, Handle
from trivet.definition import ActorDefinition
from trivet.limits import Limits
from trivet.nurseries import open_quiet_nursery
from trivet.protocol.codec import Encoding
from trivet.protocol.values import UNDEFINED
from trivet.registry import Registry
from trivet.runtime.clocks import virtual_wall_clock
from trivet.server.serving import Server, serve
from trivet.store import Store, check_store
from trivet.testing.delivery import DeliveryChecker
from trivet.testing.network import BUFFER, Link, MemoryStream
from trivet.testing.recording import Journal, observed_registry

REAL_VARIABLE: Final = "TRIVET_TESTING_REAL"
"""Set to anything but "" or "0", worlds use real sockets unless they were told."""

_URL: Final = "http://127.0.0.1:6420"  # a name that the server lets in; the streams go where the world leads them
_RESET: Final = struct.pack("ii", 1, 0)


def real_by_default() -> bool:
    """Whether the environment asks for real sockets."""
    return os.environ.get(REAL_VARIABLE, "") not in ("", "0")


class _Listener(trio.abc.Listener[MemoryStream]):
    """Where a server in memory gets its connections from."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[MemoryStream](1024)

    def connect(self, stream: MemoryStream) -> None:
        try:
            self._send.send_nowait(stream)
        except (trio.WouldBlock, trio.BrokenResourceError):
            raise ConnectionRefusedError("nobody accepts connections") from None

    async def accept(self) -> MemoryStream:
        return await self._receive.receive()

    async def aclose(self) -> None:
        self._receive.close()
        await trio.lowlevel.checkpoint()


class _WorldHandle(Handle[Any]):
    """Tells the world of each connection."""

    journal: Journal
    link: Link

    def connect(self, *, params: object = UNDEFINED, reconnect: bool = True) -> Connection[Any]:
        connection = super().connect(params=params, reconnect=reconnect)
        self.journal.watch(connection, self.link)
        return connection


class WorldClient(Client):
    """A client of a world: what `trivet.open_client` gives, and its `link`, where its network can be made to fail."""

    journal: Journal
    link: Link

    def _handle(
        self, target: Target, definition: ActorDefinition | None, params: object, get_params: GetParams | None
    ) -> Handle[Any]:
        handle = _WorldHandle(self._backend, target, self._contracts, definition, self._limits, params, get_params)
        handle.journal, handle.link = self.journal, self.link
        return handle


class World:
    """Actors, their server and their clients in one process; enter it, and ask it for clients.

        async with World(registry) as world:
            ann = await world.client("ann")
            async with ann.get_or_create(ChatRoom, "general").connect() as room:
                ...

    Clients and server are the real ones, and speak HTTP and WebSocket; between them are streams in memory, so that
    under `trio.testing.MockClock(autojump_threshold=0)` no test waits in real time. With `real=True`, or
    TRIVET_TESTING_REAL=1 in the environment, the same test goes over TCP sockets of this machine, and the faults of
    the links act in front of them. That needs real time: RuntimeError where the clock jumps.

    Every emit is checked, with or without a recipient, so that one that could not travel raises in a test in which
    nobody listens.

    A `store`, such as `MemoryStore(durable=True)`, keeps the actors beyond `crash_server` and `restart_server`; without
    one each server begins with none. In virtual time the clock of schedules goes with it, from 2030 on.

    Leaving verifies what `check_delivery` was asked for, stops the server gracefully and closes the clients; leaving by
    an exception ends everything at once, and the exception comes out alone. Connections end with their own blocks,
    which must be inside this one.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        store: Store | None = None,
        limits: Limits | None = None,
        real: bool | None = None,
    ) -> None:
        check_store(store, "World")
        self.limits: Final = limits or Limits()
        self._store = store
        self.real: Final = real_by_default() if real is None else real
        self.journal: Final = Journal()
        """What actors and clients did. A `DeliveryChecker` reads it."""
        self._registry = observed_registry(registry, self.journal)
        converter = next((definition.converter for definition in registry.values()), None)
        # One for all clients: to prepare a class takes longer than to connect.
        self._contracts = Contracts(converter, registry.rename, registry.values())
        self._checker: DeliveryChecker | None = None
        self._links: list[Link] = []
        self._manager: AbstractAsyncContextManager[None] | None = None
        self._nursery: trio.Nursery
        self._clients: AsyncExitStack
        self._server: Server | None = None
        self._listener: _Listener | None = None
        self._port = 0
        self._life = trio.CancelScope()
        self._ended = trio.Event()

    # -- life ---------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._manager is not None:
            raise RuntimeError("a world is entered once; make another")
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
        if self.real:
            _refuse_jumping_clock()
        async with open_quiet_nursery() as self._nursery:
            await self._nursery.start(self._serve)
            async with AsyncExitStack() as self._clients:
                yield
                if self._checker is not None:
                    await self._checker.settle()
                    self._checker.verify()
            await self._stop()
            if self._checker is not None:
                self._checker.verify(over=True)

    async def _serve(self, task_status: trio.TaskStatus[None]) -> None:
        self._ended = trio.Event()
        try:
            with trio.CancelScope() as self._life:
                async with trio.open_nursery() as nursery:
                    if self.real:
                        start = partial(serve, self._registry, port=self._port, store=self._store, limits=self.limits)
                    else:
                        self._listener = _Listener()
                        start = partial(
                            serve,
                            self._registry,
                            listeners=[self._listener],
                            store=self._store,
                            limits=self.limits,
                            wall_clock=virtual_wall_clock,
                        )
                    server: Server = await nursery.start(start)
                    self._server = server
                    if self.real:
                        self._port = server.port
                    task_status.started()
        finally:
            self._server = self._listener = None
            self._ended.set()

    async def _stop(self) -> None:
        if self._server is not None:
            await self.journal.stopping(self._server.host)
            await self._server.stop()
        await self._ended.wait()

    # -- what is in it ------------------------------------------------------------------------------------------------

    @property
    def server(self) -> Server:
        """The running server. Raises RuntimeError after `crash_server`."""
        if self._server is None:
            raise RuntimeError("the server of this world is not running")
        return self._server

    @property
    def links(self) -> tuple[Link, ...]:
        """The link of each client, in the order of their making."""
        return tuple(self._links)

    async def client(
        self,
        name: str | None = None,
        *,
        encoding: Encoding = "bare",
        token: str | None = None,
        namespace: str = "default",
        limits: Limits | None = None,
    ) -> WorldClient:
        """A client on a link of its own. `name` is what reports call it; the rest is as for `trivet.open_client`."""
        link = Link(name or f"client {len(self._links) + 1}")
        self._links.append(link)
        plain = await self._clients.enter_async_context(
            open_client(
                _URL,
                token=token,
                namespace=namespace,
                encoding=encoding,
                limits=limits or self.limits,
                connect=partial(self._connect, link),
            )
        )
        client = WorldClient(plain._backend, self._contracts, plain._limits)
        client.journal, client.link = self.journal, link
        return client

    async def open_stream(self, link: Link | None = None) -> trio.abc.Stream:
        """A new stream to the server, for a test that speaks HTTP or WebSocket itself. Raises OSError."""
        return await self._connect(link or Link("stream"), "", 0)

    async def _connect(self, link: Link, host: str, port: int) -> trio.abc.Stream:
        client, server = link.open_pair()
        try:
            await trio.sleep(link.latency)  # a connection is open after a round trip, of which one half is enough here
            if self.real:
                socket_stream = await trio.open_tcp_stream("127.0.0.1", self._port)
                self._nursery.start_soon(_relay, server, socket_stream)
            elif self._listener is None:
                raise ConnectionRefusedError("the server is not running")
            else:
                self._listener.connect(server)
        except BaseException:
            client.close()
            server.close()
            raise
        return client

    # -- faults of the server -----------------------------------------------------------------------------------------

    async def crash_server(self) -> None:
        """End the server as a killed process ends: no hook runs to its end, nothing is saved or said, every stream
        breaks, and what was only in memory is gone. Connecting raises ConnectionRefusedError until `restart_server`.
        """
        self.journal.crashed()
        for link in self._links:
            link.break_()
        self._life.cancel()
        await self._ended.wait()

    async def restart_server(self) -> None:
        """Start the server again, after a crash or, if it runs, after a graceful stop."""
        self.journal.crashed()
        await self._stop()
        await self._nursery.start(self._serve)

    # -- checks -------------------------------------------------------------------------------------------------------

    def check_delivery(self) -> DeliveryChecker:
        """Have the delivery contract verified when the world is left, for all that happens from the beginning.

        The checker's `settle` and `verify` do so earlier.
        """
        if self._checker is None:
            self._checker = DeliveryChecker(self.journal, self.is_quiet, real=self.real)
        return self._checker

    def is_quiet(self) -> bool:
        """Whether nothing is on its way: no byte on a working link, no unanswered call, no running action or hook."""
        if self.journal.is_busy or any(link.pending for link in self._links if not link.is_impaired):
            return False
        if self._server is None:
            return True
        conns = [conn for instance in self._server.host.instances() for conn in instance.conns.values()]
        impaired = self.journal.impaired
        return not any(conn.statistics().queued_messages for conn in conns if conn.id not in impaired)


def _refuse_jumping_clock() -> None:
    import trio.testing  # it imports pytest, where there is one

    clock = trio.lowlevel.current_clock()
    if isinstance(clock, trio.testing.MockClock) and clock.autojump_threshold < float("inf"):
        raise RuntimeError(
            "real sockets need real time, and this run's clock jumps whenever every task waits, also while bytes are"
            " on their way: leave out autojump_clock, or use World(registry, real=False)"
        )


async def _relay(near: MemoryStream, far: trio.SocketStream) -> None:
    """Carry bytes between a link and a socket. A broken link resets the socket."""
    broken = True
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_pump, near, far, nursery.cancel_scope)
            nursery.start_soon(_pump, far, near, nursery.cancel_scope)
        broken = nursery.cancel_scope.cancelled_caught
    finally:
        near.close()
        if broken:
            try:
                far.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            except OSError:
                pass  # it is closed already
        await trio.aclose_forcefully(far)


async def _pump(source: trio.abc.ReceiveStream, sink: trio.abc.HalfCloseableStream, both: trio.CancelScope) -> None:
    try:
        while data := await source.receive_some(BUFFER):
            await sink.send_all(data)
        await sink.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        both.cancel()
