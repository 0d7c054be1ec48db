"""Serving a registry on sockets: listeners, their connections, and the end of both."""

import ipaddress
import signal
import ssl
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeAlias, cast, final

import attrs
import trio

from trivet.limits import Limits
from trivet.raw import Response
from trivet.registry import Registry, check_registry
from trivet.runtime.host import Host, HostStatistics, open_host
from trivet.runtime.logs import logger
from trivet.server.access import ServerToken
from trivet.server.connection import serve_wire
from trivet.server.control_routes import check_pages
from trivet.server.descriptors import raise_descriptor_limit
from trivet.server.gateway import Gateway, GatewayStatistics
from trivet.server.origins import Origins
from trivet.server.proxies import TrustedProxies
from trivet.server.wire import Wire, tls_listener
from trivet.store import Store, check_store

DEFAULT_PORT: Final = 6420

# trio.abc.Listener is generic in its streams; which kind does not matter here.
AnyListener: TypeAlias = trio.abc.Listener[Any]


@attrs.frozen
class ServerStatistics:
    """Counts of the sockets, and of the actors behind them."""

    gateway: GatewayStatistics
    host: HostStatistics


@final
class Server:
    """A running server: what `nursery.start(serve, ...)` returns."""

    def __init__(
        self, host: Host, gateway: Gateway, listeners: Sequence[AnyListener], everything: trio.CancelScope
    ) -> None:
        self._everything = everything
        self.host: Final = host
        """The actors."""
        self.gateway: Final = gateway
        self.urls: Final = tuple(url for listener in listeners if (url := _url(listener)) is not None)
        """Where it listens, one URL for each TCP listener. A wildcard address is given as loopback."""
        self._listeners = list(listeners)
        self.addresses: Final = tuple(address for listener in listeners if (address := _address(listener)) is not None)
        """The addresses and ports of the TCP listeners, as they are bound."""
        self._stop_requested = trio.Event()
        self._stopped = trio.Event()

    @property
    def url(self) -> str:
        """The first of `urls`. Raises RuntimeError when it listens on no TCP port."""
        if not self.urls:
            raise RuntimeError("this server does not listen on a TCP port")
        return self.urls[0]

    @property
    def port(self) -> int:
        """The first listener's port. Raises RuntimeError when it listens on no TCP port."""
        if not self.addresses:
            raise RuntimeError("this server does not listen on a TCP port")
        return self.addresses[0][1]

    def statistics(self) -> ServerStatistics:
        """Counts, see ServerStatistics."""
        return ServerStatistics(self.gateway.statistics(), self.host.statistics())

    async def stop(self) -> None:
        """Stop gracefully, and wait until all is over: within `Limits.shutdown_grace`. Idempotent.

        New work is refused with `actor.stopping`, what runs may end, connections are told 1001 `ws.going_away`; the
        listeners are closed last. Cancelling the wait does not cancel the stop.
        """
        self._stop_requested.set()
        await self._stopped.wait()

    async def run(self, *, handle_signals: bool, task_status: trio.TaskStatus["Server"]) -> None:
        """Accept and serve until stopped. Closes the listeners."""
        try:
            async with trio.open_nursery() as connections:
                accepting = trio.CancelScope()
                if handle_signals:
                    await connections.start(self._watch_signals)
                connections.start_soon(self._accept, connections, accepting)
                task_status.started(self)
                await self._stop_requested.wait()
                with trio.move_on_after(self.host.limits.shutdown_grace):
                    await self.host.stop()
                    await self.gateway.idle()
                accepting.cancel()
                connections.cancel_scope.cancel()
        finally:
            self._stopped.set()

    async def _accept(self, connections: trio.Nursery, accepting: trio.CancelScope) -> None:
        with accepting:
            await trio.serve_listeners(self._handle, self._listeners, handler_nursery=connections)

    def _handle(self, stream: trio.abc.Stream) -> Coroutine[object, object, None]:
        return serve_wire(self.gateway, Wire(stream))  # without a frame of its own, as long as the connection lasts

    async def _watch_signals(self, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for number in signals:
                if self._stop_requested.is_set():
                    logger.warning("%s again: ending at once", signal.Signals(number).name)
                    self._everything.cancel()
                    return
                logger.info("%s: stopping", signal.Signals(number).name)
                self._stop_requested.set()


async def serve(
    registry: Registry,
    host: str | None = "127.0.0.1",
    port: int = DEFAULT_PORT,
    *,
    listeners: Iterable[AnyListener] | None = None,
    store: Store | None = None,
    limits: Limits | None = None,
    token: str | None = None,
    allowed_origins: Iterable[str] = (),
    allowed_hosts: Iterable[str] = (),
    trusted_proxies: Iterable[str] = (),
    ssl_context: ssl.SSLContext | None = None,
    pages: Mapping[str, Response] | None = None,
    handle_signals: bool = False,
    wall_clock: Callable[[], float] | None = None,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve actors over HTTP and WebSocket on one port, until stopped or cancelled.

    `await nursery.start(trivet.serve, registry)` returns the running `Server`. It listens on `host` and `port` (0: any
    free one; host None: every interface), or on the given listeners, which it closes at the end. With `ssl_context` it
    speaks TLS. `allowed_origins` are web origins that may use it besides its own and localhost, as in
    `https://app.example.com`; "*" allows every page. The `store` keeps the actors, and stays open at the end; without
    one they are kept in memory. `wall_clock` gives seconds since 1970, for schedules; by default it is the machine's,
    and in virtual time, as of a MockClock, it goes with Trio's, from 2030 on. With `handle_signals`, in the main thread
    only, SIGINT and SIGTERM stop gracefully, and a second one cancels.

    `pages` are answered to GET requests of exactly these paths, "/" for one: a page that uses the actors can come from
    the same port, and so from their origin.

    A page of another site can have a name of its own lead to this machine. So a listener on a loopback address answers
    403 `guard.host_not_allowed` to requests whose Host is neither an address nor localhost, nor among `allowed_hosts`,
    nor the host of an allowed origin: behind a proxy that keeps the Host, name it here. With `allowed_hosts` this holds
    for every listener. "*" allows every Host.

    With a `token` whoever does not present it is answered 401 `api.unauthorized`; `open_client(token=)` and the token
    of RivetKit's `createClient` do. Only preflights, `pages`, /, /health and /metadata, which say nothing of actors,
    are open. Without one whoever reaches the port can use every actor as far as its hooks let them, and list, create
    and destroy actors; a listener that other machines can reach is warned of in the log then.

    `trusted_proxies` are addresses and networks, as in `10.0.0.0/8`, of proxies that write `X-Forwarded-For`, and
    "unix" for those that connect without an address. For their requests the address that is limited, logged, and
    `request.peer` is the rightmost one in that header that is no trusted proxy's; `X-Forwarded-Proto` gives the scheme
    of `request.url`. From everybody else, and so by default, neither is believed. A network with clients in it lets
    them pass for whom they like.

    Cancelling ends everything at once. Raises OSError when it cannot listen, TypeError for no Registry or no Store,
    ValueError for an origin, a host, a proxy or a token that is none, or a page in the protocol's way.
    """
    check_registry(registry, "serve")
    check_store(store, "serve")
    check_pages(pages or {})
    origins = Origins(allowed_origins, allowed_hosts)
    proxies = TrustedProxies(trusted_proxies)
    server_token = None if token is None else ServerToken(token)
    limits = limits or Limits()
    raise_descriptor_limit(limits.connections)
    opened = [] if listeners is None else list(listeners)
    try:
        if listeners is None:
            opened += await _listen(host, port)
        if ssl_context is not None:
            opened = [_with_tls(listener, ssl_context) for listener in opened]
        with _plain_errors():
            # A second signal cancels the actors too, so its scope is around them.
            with trio.CancelScope() as everything:
                async with open_host(registry, limits, store=store, wall_clock=wall_clock) as actors:
                    gateway = Gateway(actors, origins, pages, _loopback(opened), server_token, proxies)
                    server = Server(actors, gateway, opened, everything)
                    if token is None:
                        _warn_if_public(server)
                    await server.run(handle_signals=handle_signals, task_status=task_status)
    finally:
        for listener in opened:
            await trio.aclose_forcefully(listener)


async def serve_stream(
    host: Host | Server,
    stream: trio.abc.Stream,
    *,
    peer: str | None = None,
    allowed_origins: Iterable[str] = (),
) -> None:
    """Serve one connection on a stream of any kind until it ends, and close the stream.

    For tests and for programs that accept connections themselves. With a `Server` it counts among its connections, and
    its origins, token, trusted proxies and limits hold; with a bare host those given here, no token, and no proxies.
    `peer` is the address that it comes from, which actors see.
    """
    gateway = host.gateway if isinstance(host, Server) else Gateway(host, Origins(allowed_origins))
    await serve_wire(gateway, Wire(stream, peer=peer))


async def _listen(host: str | None, port: int) -> list[trio.SocketListener]:
    """Listeners on a port. Raises OSError that names it."""
    try:
        return await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        where = f"port {port} of {host or 'every interface'}"
        # Of the same class, which says what went wrong as its number does.
        raise type(error)(error.errno, f"cannot listen on {where}: {error.strerror or error}") from error


def _with_tls(listener: AnyListener, context: ssl.SSLContext) -> AnyListener:
    return tls_listener(listener, context) if isinstance(listener, trio.SocketListener) else listener


@contextmanager
def _plain_errors() -> Generator[None, None, None]:
    """Raise one error as itself: a caller of `serve` need not know that it has a nursery inside."""
    try:
        yield
    except BaseExceptionGroup as group:
        error = _single(group)
        if error is None:
            raise
        raise error from error.__cause__


def _single(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """The only error in a group, cancellations left out; None where there is none, or more than one."""
    errors = [error for error in _leaves(group) if not isinstance(error, trio.Cancelled)]
    return errors[0] if len(errors) == 1 else None


def _leaves(group: BaseExceptionGroup[BaseException]) -> Generator[BaseException, None, None]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(cast("BaseExceptionGroup[BaseException]", error))
        else:
            yield error


def _address(listener: AnyListener) -> tuple[str, int] | None:
    if isinstance(listener, trio.SSLListener):
        listener = cast("trio.SSLListener[trio.SocketStream]", listener).transport_listener
    if not isinstance(listener, trio.SocketListener):
        return None
    name = cast("object", listener.socket.getsockname())
    if not isinstance(name, tuple):
        return None  # a Unix socket
    address = cast("tuple[str, int]", name)
    return address[0], address[1]


def _loopback(listeners: Iterable[AnyListener]) -> list[str]:
    """The addresses of those listeners that only this machine can reach."""
    addresses = [address for listener in listeners if (address := _address(listener)) is not None]
    return [host for host, _ in addresses if ipaddress.ip_address(host).is_loopback]


def _warn_if_public(server: Server) -> None:
    public = [host for host, _ in server.addresses if not ipaddress.ip_address(host).is_loopback]
    if public:
        logger.warning(
            "this server listens on %s without a token: whoever reaches it can use, list, create and destroy every"
            " actor. Set one with serve(token=...), --token or TRIVET_TOKEN, or listen on 127.0.0.1",
            " and ".join(dict.fromkeys(public)),
        )


def _url(listener: AnyListener) -> str | None:
    address = _address(listener)
    if address is None:
        return None
    host, port = address
    ip = ipaddress.ip_address(host)
    if ip.is_unspecified:
        host = "127.0.0.1" if ip.version == 4 else "::1"
    scheme = "https" if isinstance(listener, trio.SSLListener) else "http"
    return f"{scheme}://{host if ip.version == 4 else f'[{host}]'}:{port}"
