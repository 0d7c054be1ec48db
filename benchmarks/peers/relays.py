"""Servers that pass a message on to all their subscribers: other libraries' broadcast, as their documentation shows it.

They get the whole message from the controller, so that they neither make nor encode anything; trivet does both.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers import Event, Unavailable, need
from benchmarks.peers.echoes import rivetkit_command
from benchmarks.peers.trivet_actor import TrivetActor
from trivet.bench.client import Role
from trivet.bench.sockets import BINARY, TEXT, Violation, client_frame, server_frame, upgrade_request

_BENCHMARKS = Path(__file__).parent.parent
_ROOT = _BENCHMARKS.parent
_INTEROP = _ROOT / "tests" / "interop"


class Relay:
    """A WebSocket server: what the controller sends goes to every subscriber. Their paths say who they are."""

    answers = 0
    events_per_call = 1
    module = ""
    needs: Sequence[str] = ()
    arguments: Sequence[str] = ()

    def __init__(self, event: Event) -> None:
        self._messages = TrivetActor(event)
        self._opcode = TEXT if event.encoding == "json" else BINARY

    def command(self, directory: Path) -> Sequence[str]:
        need(*self.needs)
        return (sys.executable, "-m", f"benchmarks.peers.{self.module}", *self.arguments)

    def opening(self, role: Role) -> bytes:
        return upgrade_request(f"/{role}")

    def greeting(self, role: Role) -> bytes:
        return b""

    def welcomes(self, role: Role) -> int:
        return 0

    def call(self, number: int) -> bytes:
        return client_frame(self._opcode, self._messages.event_message(number))

    @property
    def event_bytes(self) -> int:
        return self._messages.event_bytes

    def is_event(self, number: int, message: bytes) -> bool:
        return self._messages.is_event(number, message)

    def check_answer(self, number: int, message: bytes) -> None:
        raise Violation(f"call {number} was answered {message[:200]!r}")

    def heartbeat(self, message: bytes) -> bytes | None:
        return None


class Picows(Relay):
    """picows on uvloop."""

    module = "picows_server"
    needs = ("picows", "uvloop")


class Websockets(Relay):
    """`websockets.broadcast()` on uvloop."""

    module = "websockets_server"
    needs = ("websockets", "uvloop")


class TrioWebsocket(Relay):
    """trio-websocket, a task for each subscriber."""

    module = "trio_server"
    arguments = ("readme",)


class NodeWs(Relay):
    """The `ws` package of Node.js."""

    def command(self, directory: Path) -> Sequence[str]:
        return _node(directory, "ws", _INTEROP)


class Nchan(Relay):
    """nginx with its nchan module: a channel, to which the controller publishes over a WebSocket."""

    answers = 1

    def command(self, directory: Path) -> Sequence[str]:
        if shutil.which("nginx") is None:
            raise Unavailable("nginx is not installed")
        return (sys.executable, "-m", "benchmarks.peers.nchan_server", str(directory))

    def check_answer(self, number: int, message: bytes) -> None:
        if b"subscribers" not in message:
            raise Violation(f"call {number} was answered {message[:200]!r}")


class SocketIo(Relay):
    """python-socketio on uvicorn: a room."""

    needs = ("socketio", "uvicorn")
    module = "socketio_server"

    def __init__(self, event: Event) -> None:
        super().__init__(event)
        self._event = event

    def command(self, directory: Path) -> Sequence[str]:
        if self._event.encoding != "json":
            raise Unavailable("Socket.IO speaks JSON")
        return super().command(directory)

    def opening(self, role: Role) -> bytes:
        return upgrade_request(f"/socket.io/?EIO=4&transport=websocket&role={role}")

    def greeting(self, role: Role) -> bytes:
        return client_frame(TEXT, b"40")

    def welcomes(self, role: Role) -> int:
        return 2  # the handshakes of Engine.IO and Socket.IO

    def call(self, number: int) -> bytes:
        value = self._event.value(number)
        return client_frame(TEXT, b"42" + _compact(["post", value["id"], value["text"]]))

    @property
    def event_bytes(self) -> int:
        return len(server_frame(TEXT, self._message(0)))

    def _message(self, number: int) -> bytes:
        return b"42" + _compact(["message", self._event.value(number)])

    def is_event(self, number: int, message: bytes) -> bool:
        return message == self._message(number)

    def heartbeat(self, message: bytes) -> bytes | None:
        return client_frame(TEXT, b"3") if message == b"2" else None


class NodeSocketIo(SocketIo):
    """Socket.IO's own server, on Node.js."""

    def command(self, directory: Path) -> Sequence[str]:
        return _node(directory, "socket.io", _BENCHMARKS)


class RivetKit(TrivetActor):
    """The same actor in RivetKit, on its engine: the protocol is the same, but for the order of JSON's members."""

    def command(self, directory: Path) -> Sequence[str]:
        return rivetkit_command(directory)

    def is_event(self, number: int, message: bytes) -> bool:
        return self._codec.decode_to_client(message) == self._codec.decode_to_client(self.event_message(number))


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _node(directory: Path, package: str, folder: Path) -> Sequence[str]:
    node = shutil.which("node")
    if node is None:
        raise Unavailable("Node.js is not installed")
    modules = folder / "node_modules"
    if not (modules / package).is_dir():
        raise Unavailable(
            f"{package} is not installed: run `npm install --no-save --prefix {folder.relative_to(_ROOT)}`"
        )
    # Modules are looked for beside the script.
    (directory / "node_modules").symlink_to(modules)
    script = shutil.copy(Path(__file__).parent / f"{package}.mjs", directory)
    return (node, str(script))
