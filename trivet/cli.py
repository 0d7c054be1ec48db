"""The `trivet` command. Subcommands stand in a table; `serve` is one of them."""

import argparse
import contextlib
import errno
import importlib
import logging
import math
import os
import socket
import ssl
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Literal, TypeAlias, cast, get_args, overload

import attrs
import trio

from trivet.actor import Actor
from trivet.bench import command as bench
from trivet.demo import load_page, show_flow
from trivet.demo import registry as demo_registry
from trivet.errors import DefinitionError
from trivet.limits import Limits
from trivet.registry import Registry
from trivet.server import DEFAULT_PORT, Server, serve
from trivet.server.access import ServerToken
from trivet.server.origins import Origins
from trivet.server.proxies import TrustedProxies
from trivet.server.serving import AnyListener
from trivet.store import Store, StoreError
from trivet.store.sqlite import open_sqlite_store
from trivet.store.sqlite.file import Check, Synchronous
from trivet.typescript import declarations

logger: Final = logging.getLogger("trivet")

_LOG_LEVELS: Final = ("debug", "info", "warning", "error")

# Where a service manager puts the first socket that it passes on (sd_listen_fds(3)).
_FIRST_PASSED_FD: Final = 3
_PASSED_FDS: Final = "LISTEN_FDS"

_HIGHEST_PORT: Final = 65535

_TOKEN_VARIABLE: Final = "TRIVET_TOKEN"

# Options that are limits of the same name.
_PEER_LIMITS: Final = {
    "peer_connections": "connections of one address",
    "peer_connection_rate": "new connections of one address in a second",
    "peer_message_rate": "requests and messages of one address in a second",
}


class CommandError(Exception):
    """What the user has to change. Printed without a traceback."""


@attrs.frozen
class Command:
    """One subcommand: `configure` adds its arguments, `run` returns the exit status or raises CommandError."""

    name: str
    help: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(prog="trivet", description="Stateful actors with realtime events.")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        subparser = subparsers.add_parser(command.name, help=command.help, description=command.help)
        command.configure(subparser)
        subparser.set_defaults(run=command.run)
    arguments = parser.parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        return run(arguments)
    except CommandError as error:
        print(f"trivet: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def load_registry(target: str) -> Registry:
    """The registry that `module:attribute` names, modules of the current directory included. Raises CommandError."""
    module_name, _, attribute = target.partition(":")
    attribute = attribute or "registry"
    if module_name.endswith(".py"):
        module = module_name.removesuffix(".py").removeprefix("./").replace("/", ".")
        raise CommandError(f"{module_name!r} is a file; name its module: did you mean {module}:{attribute}?")
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise CommandError(f"{module_name!r} is no module; write module:registry, as in chat_room:registry")
    directory = os.getcwd()
    if directory not in sys.path:
        sys.path.insert(0, directory)
    try:
        found: object = importlib.import_module(module_name)
    except DefinitionError as error:
        raise CommandError(f"{module_name}: {error}") from error
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and _is_prefix(error.name, module_name):
            raise CommandError(f"there is no module {module_name!r} in {directory} or on the Python path") from error
        traceback.print_exc()
        raise CommandError(f"the module {module_name!r} could not be imported, see above") from error
    for name in attribute.split("."):
        if not hasattr(found, name):
            registries = [name for name, value in vars(found).items() if isinstance(value, Registry)]
            hint = f"; did you mean {module_name}:{registries[0]}?" if registries else ""
            raise CommandError(f"the module {module_name!r} has no {attribute!r}{hint}")
        found = getattr(found, name)
    if isinstance(found, type) and issubclass(found, Actor):
        shown = found.__name__
        raise CommandError(f"{module_name}:{attribute} is an Actor class; wrap it: registry = Registry({shown})")
    if not isinstance(found, Registry):
        found = cast("object", found)  # type: ignore[redundant-cast]  # pyright infers unknowns
        raise CommandError(f"{module_name}:{attribute} is not a trivet.Registry but {type(found).__name__}")
    if not found:
        raise CommandError(f"{module_name}:{attribute} has no actors; name their classes: Registry(ChatRoom)")
    return found


def _is_prefix(missing: str | None, module_name: str) -> bool:
    return missing is not None and f"{module_name}.".startswith(f"{missing}.")


def _add_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="module:registry", help="where the Registry is, as in chat_room:registry")


def _add_address(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=DEFAULT_PORT, help="0 is any free one (default: %(default)s)")


def _configure_serve(parser: argparse.ArgumentParser) -> None:
    _add_target(parser)
    _add_address(parser)
    parser.add_argument(
        "--data",
        default="trivet-data",
        metavar="DIR",
        help="the directory that keeps the actors, in a file of SQLite (default: %(default)s)",
    )
    parser.add_argument("--memory", action="store_true", help="keep the actors in memory alone, until the server ends")
    parser.add_argument(
        "--synchronous",
        choices=get_args(Synchronous),
        default="normal",
        help="what commits survive: normal, a crash of the server; full, of the machine too (default: %(default)s)",
    )
    parser.add_argument(
        "--check", choices=get_args(Check), default="quick", help="how the file is checked first (default: %(default)s)"
    )
    parser.add_argument(
        "--fd",
        type=_fd,
        metavar="N",
        help=f"listen on this open socket instead; {_PASSED_FDS} stands for those that a service manager passes",
    )
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="a web origin whose pages may use the server, besides its own and localhost; may be repeated",
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name by which the server is reached, besides addresses and localhost; may be repeated",
    )
    parser.add_argument(
        "--trusted-proxy",
        type=_trusted_proxy,
        action="append",
        default=[],
        metavar="ADDRESS_OR_NETWORK",
        help="a proxy whose X-Forwarded-For is believed, or unix for those on Unix sockets; may be repeated",
    )
    parser.add_argument(
        "--token",
        help=f"what clients have to present; better in the environment variable {_TOKEN_VARIABLE}, which others cannot"
        " see in the list of processes",
    )
    for name, text in _PEER_LIMITS.items():
        default: float = getattr(Limits(), name)
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(
            option, type=_peer_limit, default=default, metavar="N", help=f"{text}, or none (default: {default:g})"
        )
    parser.add_argument("--tls-cert", metavar="FILE", help="speak TLS with this certificate chain (PEM)")
    parser.add_argument("--tls-key", metavar="FILE", help="its private key, where that is a file of its own")
    parser.add_argument("--log-level", choices=_LOG_LEVELS, default="info", help="default: %(default)s")


def _run_serve(arguments: argparse.Namespace) -> int:
    logging.basicConfig(
        level=str(arguments.log_level).upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    registry = load_registry(arguments.target)
    context = _tls_context(arguments.tls_cert, arguments.tls_key)
    try:
        listeners = None if arguments.fd is None else _passed_listeners(arguments.fd)
        Origins(arguments.allow_origin, arguments.allow_host)
        token = _token(arguments.token)
        if token is not None:
            ServerToken(token)
    except ValueError as error:
        raise CommandError(str(error)) from error
    try:
        trio.run(_serve, registry, arguments, listeners, context, token)
    except StoreError as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(_explain(error, arguments.host, arguments.port)) from error
    return 0


async def _serve(
    registry: Registry,
    arguments: argparse.Namespace,
    listeners: list[AnyListener] | None,
    context: ssl.SSLContext | None,
    token: str | None,
) -> None:
    async with _store(arguments) as store:
        await serve(
            registry,
            arguments.host,
            arguments.port,
            listeners=listeners,
            store=store,
            limits=Limits(**{name: getattr(arguments, name) for name in _PEER_LIMITS}),
            token=token,
            allowed_origins=arguments.allow_origin,
            allowed_hosts=arguments.allow_host,
            trusted_proxies=arguments.trusted_proxy,
            ssl_context=context,
            handle_signals=True,
            task_status=_Announcement(
                lambda server: (
                    f"trivet serves {', '.join(server.host.registry)}, {_kept(arguments)}, on {_urls(server)}"
                )
            ),
        )


def _store(arguments: argparse.Namespace) -> AbstractAsyncContextManager[Store | None]:
    if arguments.memory:
        return contextlib.nullcontext()
    return open_sqlite_store(arguments.data, synchronous=arguments.synchronous, check=arguments.check)


def _kept(arguments: argparse.Namespace) -> str:
    return "kept in memory" if arguments.memory else f"kept in {arguments.data}"


def _run_types(arguments: argparse.Namespace) -> int:
    with contextlib.redirect_stdout(sys.stderr):  # what the module prints is no part of the file
        registry = load_registry(arguments.target)
    text = declarations(registry, arguments.target)
    with open(sys.stdout.fileno(), "w", encoding="utf-8", newline="\n", closefd=False) as file:  # on every system
        file.write(text)
    return 0


def _run_demo(arguments: argparse.Namespace) -> int:
    show_flow()
    try:
        trio.run(_demo, arguments)
    except OSError as error:
        raise CommandError(_explain(error, arguments.host, arguments.port)) from error
    return 0


async def _demo(arguments: argparse.Namespace) -> None:
    await serve(
        demo_registry,
        arguments.host,
        arguments.port,
        pages={"/": load_page()},
        handle_signals=True,
        task_status=_Announcement(
            lambda server: f"A chat room is open on {_urls(server)} - look at it in two tabs. Ctrl+C closes it."
        ),
    )


def _urls(server: Server) -> str:
    return " and ".join(server.urls)


class _Announcement:
    """Tells the terminal, and whoever waits for it, where the server listens."""

    def __init__(self, text: Callable[[Server], str]) -> None:
        self._text = text

    @overload
    def started(self: trio.TaskStatus[None]) -> None: ...
    @overload
    def started(self, value: Server) -> None: ...
    def started(self, value: Server | None = None) -> None:
        assert value is not None
        print(self._text(value), flush=True)


def _token(option: str | None) -> str | None:
    """The server's token. One that was set and is empty is a mistake, which must not open the server."""
    return os.environ.get(_TOKEN_VARIABLE) if option is None else option


_Fd: TypeAlias = int | Literal["LISTEN_FDS"]


def _passed_listeners(fd: _Fd) -> list[AnyListener]:
    """Listeners on sockets that were opened by another process, and outlive this one there."""
    if fd != "LISTEN_FDS":
        return [_listener(fd)]
    count = os.environ.get(_PASSED_FDS, "")
    pid = os.environ.get("LISTEN_PID")
    if not count.isdecimal() or int(count) == 0 or (pid is not None and pid != str(os.getpid())):
        raise ValueError(f"no sockets were passed to this process: {_PASSED_FDS} is {count or 'not set'}")
    return [_listener(_FIRST_PASSED_FD + index) for index in range(int(count))]


def _listener(fd: int) -> AnyListener:
    try:
        passed = socket.socket(fileno=fd)
        passed.setblocking(False)
        return trio.SocketListener(trio.socket.from_stdlib_socket(passed))
    except (OSError, ValueError) as error:
        raise ValueError(f"file descriptor {fd} is no listening socket: {error}") from error


def _tls_context(certificate: str | None, key: str | None) -> ssl.SSLContext | None:
    if certificate is None:
        if key is not None:
            raise CommandError("--tls-key needs --tls-cert")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:  # ssl.SSLError is one
        raise CommandError(f"the certificate {certificate} and its key cannot be used: {error}") from error
    return context


def _explain(error: OSError, host: str, port: int) -> str:
    number = error.errno
    if number == errno.EADDRINUSE:
        return f"port {port} of {host} is in use: stop the other server, or choose a port with --port"
    if number == errno.EACCES:
        return f"port {port} is for privileged users: choose one above 1023 with --port"
    if number == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return f"this machine has no address {host}"
    return str(error)


def _port(text: str) -> int:
    if text.isdecimal() and int(text) <= _HIGHEST_PORT:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no port: 0 to {_HIGHEST_PORT}")


def _peer_limit(text: str) -> float:
    if text == "none":
        return math.inf
    if text.isdecimal() and int(text) > 0:
        return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is neither a number from 1 up nor none")


def _trusted_proxy(text: str) -> str:
    try:
        TrustedProxies([text])
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _fd(text: str) -> _Fd:
    if text == "LISTEN_FDS":
        return "LISTEN_FDS"
    if text.isdecimal():
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is neither a file descriptor nor {_PASSED_FDS}")


def _configure_bench(parser: argparse.ArgumentParser) -> None:
    _add_target(parser)
    bench.configure(parser)


def _run_bench(arguments: argparse.Namespace) -> int:
    try:
        return bench.run(load_registry(arguments.target), arguments)
    except bench.BenchFailed as error:
        raise CommandError(str(error)) from error


COMMANDS: Final = (
    Command("serve", "Serve the actors of a registry.", _configure_serve, _run_serve),
    Command("bench", "Measure an actor: its calls, or its events' deliveries.", _configure_bench, _run_bench),
    Command("types", "Write a registry's types for RivetKit's TypeScript client.", _add_target, _run_types),
    Command("demo", "Open a chat room in the browser, and show its events here.", _add_address, _run_demo),
)
