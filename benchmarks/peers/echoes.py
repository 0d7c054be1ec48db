"""Servers whose requests are answered one by one: how each is started, and what its clients say and hear."""

import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from benchmarks.peers import Encoding, Unavailable, need
from benchmarks.peers.floor import compile_floor
from trivet.bench.client import Reader
from trivet.bench.sockets import (
    BINARY,
    TEXT,
    ChunkReader,
    FrameReader,
    HttpReader,
    Violation,
    client_frame,
    connect,
    upgrade_request,
)
from trivet.protocol import messages
from trivet.protocol.codec import Codec, codec_for
from trivet.protocol.gateway import ActorByKey, by_key_path
from trivet.protocol.subprotocols import build_subprotocols

_FIRST_ID: Final = 1_000_000_000  # so that all ids are of one length, and all requests too
ACTION: Final = "echo"


def _codec(encoding: Encoding) -> Codec:
    codec = codec_for(encoding)
    assert codec is not None
    return codec


def room(key: str) -> ActorByKey:
    """The address of an actor of the benchmark."""
    return ActorByKey("default", "room", (key,), "getOrCreate", pool="default")


class TrivetCalls:
    """Actions over a connection. With several connections each has an actor of its own."""

    ordered = True

    def __init__(self, size: int, encoding: Encoding) -> None:
        self._codec = _codec(encoding)
        self._opcode = BINARY if self._codec.binary else TEXT
        self._text = "x" * size

    def command(self, directory: Path) -> Sequence[str]:
        return (sys.executable, "-m", "benchmarks.peers.trivet_server")

    def connect(self, port: int, timeout: float, name: int) -> Reader:
        path = by_key_path(room(f"caller-{name}"), "/connect")
        reader = FrameReader(connect(port, timeout))
        reader.sock.sendall(upgrade_request(path, ", ".join(build_subprotocols(self._codec.encoding))))
        reader.read_head()
        reader.read(1)
        return reader

    def request(self, number: int) -> bytes:
        request = messages.ActionRequest(_FIRST_ID + number, ACTION, [self._text])
        return client_frame(self._opcode, self._codec.encode_to_server(request))

    def answered(self, message: bytes) -> int | None:
        answer = self._codec.decode_to_client(message)
        if not isinstance(answer, messages.ActionResponse) or answer.output != self._text:
            raise Violation(f"a request was answered {message[:300]!r}")
        return answer.id - _FIRST_ID


class TrivetHttp:
    """Actions over HTTP, all on one actor."""

    ordered = True

    def __init__(self, size: int, encoding: Encoding) -> None:
        self._codec = _codec(encoding)
        self._text = "x" * size

    def command(self, directory: Path) -> Sequence[str]:
        return (sys.executable, "-m", "benchmarks.peers.trivet_server")

    def connect(self, port: int, timeout: float, name: int) -> Reader:
        reader = HttpReader(connect(port, timeout))
        # The actor is there before several ask for it at once, which RivetKit may refuse.
        reader.sock.sendall(self.request(0))
        answers: list[bytes] = []
        while not answers:
            if not (data := reader.sock.recv(65536)):
                raise Violation("the server ended a connection")
            answers = reader.feed(data)
        self.answered(answers[0])
        return reader

    def request(self, number: int) -> bytes:
        return post(by_key_path(room("http"), f"/action/{ACTION}"), self._codec, [self._text])

    def answered(self, message: bytes) -> int | None:
        head, _, body = message.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 ") or self._codec.decode_action_response(body) != self._text:
            raise Violation(f"a request was answered {message[:300]!r}")
        return None


def post(path: str, codec: Codec, args: Sequence[str]) -> bytes:
    """The request of a stateless call."""
    body = codec.encode_action_request([*args])
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {codec.content_type}\r\n"
        f"X-Rivet-Encoding: {codec.encoding}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _RawEcho:
    """Sends back the bytes that it gets, whatever they are: here the very bytes of trivet's requests."""

    ordered = True
    requests: Callable[[int, Encoding], TrivetCalls | TrivetHttp] = TrivetCalls

    def __init__(self, size: int, encoding: Encoding) -> None:
        self._requests = self.requests(size, encoding)
        self._sent: dict[bytes, int] = {}
        self._size = len(self.request(0))
        self._all_alike = self.request(0) == self.request(1)

    def connect(self, port: int, timeout: float, name: int) -> Reader:
        reader = FrameReader(connect(port, timeout))
        reader.sock.sendall(upgrade_request("/caller"))
        reader.read_head()
        return ChunkReader(reader.sock, self._size)

    def request(self, number: int) -> bytes:
        request = self._requests.request(number)
        self._sent[request] = number
        return request

    def answered(self, message: bytes) -> int | None:
        if message not in self._sent:
            raise Violation(f"a request was answered {message[:300]!r}")
        return None if self._all_alike else self._sent[message]


class PythonEcho(_RawEcho):
    """A loop of epoll, recv and send."""

    def command(self, directory: Path) -> Sequence[str]:
        return (sys.executable, "-m", "trivet.bench.floor_server")


class CEcho(_RawEcho):
    """The same in C."""

    def command(self, directory: Path) -> Sequence[str]:
        return (compile_floor(directory),)


class TrioEcho(_RawEcho):
    """receive_some() and send_all() of a trio.SocketStream."""

    def command(self, directory: Path) -> Sequence[str]:
        return (sys.executable, "-m", "benchmarks.peers.trio_server", "stream")


class ChannelEcho(_RawEcho):
    """The same by another task, that gets what was received through a memory channel: the least that an actor is."""

    def command(self, directory: Path) -> Sequence[str]:
        return (sys.executable, "-m", "benchmarks.peers.trio_server", "channel")


class PythonHttpEcho(PythonEcho):
    """Of the bytes of requests over HTTP."""

    requests = TrivetHttp


class CHttpEcho(CEcho):
    """Of the bytes of requests over HTTP."""

    requests = TrivetHttp


class TrioHttpEcho(TrioEcho):
    """Of the bytes of requests over HTTP."""

    requests = TrivetHttp


class TrioWebsocketEcho:
    """trio-websocket, sending each message back, as its README shows."""

    ordered = True

    def __init__(self, size: int, encoding: Encoding) -> None:
        self._requests = TrivetCalls(size, encoding)
        self._opcode = 0
        self._sent: dict[bytes, int] = {}

    def command(self, directory: Path) -> Sequence[str]:
        return (sys.executable, "-m", "benchmarks.peers.trio_server", "websocket")

    def connect(self, port: int, timeout: float, name: int) -> Reader:
        reader = FrameReader(connect(port, timeout))
        reader.sock.sendall(upgrade_request("/"))
        reader.read_head()
        return reader

    def request(self, number: int) -> bytes:
        request = self._requests.request(number)
        self._opcode = request[0]
        self._sent[request] = number
        return request

    def answered(self, message: bytes) -> int | None:
        # The answer is not masked, and is the message exactly if masking it gives the request.
        request = client_frame(self._opcode, message)
        if request not in self._sent:
            raise Violation(f"a request was answered {message[:300]!r}")
        return self._sent[request]


class SocketIoCalls:
    """python-socketio's `call`: an event with an acknowledgement, on uvicorn."""

    ordered = False

    def __init__(self, size: int, encoding: Encoding) -> None:
        if encoding != "json":
            raise Unavailable("Socket.IO speaks JSON")
        self._text = "x" * size

    def command(self, directory: Path) -> Sequence[str]:
        need("socketio", "uvicorn")
        return (sys.executable, "-m", "benchmarks.peers.socketio_server")

    def connect(self, port: int, timeout: float, name: int) -> Reader:
        reader = FrameReader(connect(port, timeout))
        reader.sock.sendall(upgrade_request("/socket.io/?EIO=4&transport=websocket"))
        reader.read_head()
        reader.sock.sendall(client_frame(TEXT, b"40"))
        reader.read(2)  # the handshakes of Engine.IO and Socket.IO
        return reader

    def request(self, number: int) -> bytes:
        text = f"42{_FIRST_ID + number}{json.dumps([ACTION, self._text], separators=(',', ':'))}"
        return client_frame(TEXT, text.encode())

    def answered(self, message: bytes) -> int | None:
        number, bracket, result = message.decode().removeprefix("43").partition("[")
        if not number.isdecimal() or json.loads(bracket + result) != [self._text]:
            raise Violation(f"a request was answered {message[:300]!r}")
        return int(number) - _FIRST_ID


class RivetKitCalls(TrivetCalls):
    """The same actor in RivetKit, through its engine's gateway: the protocol is the same."""

    ordered = False

    def command(self, directory: Path) -> Sequence[str]:
        return rivetkit_command(directory)


class RivetKitHttp(TrivetHttp):
    """The same actor in RivetKit, over HTTP."""

    def command(self, directory: Path) -> Sequence[str]:
        return rivetkit_command(directory)


def rivetkit_command(directory: Path) -> Sequence[str]:
    """What starts an engine and a RivetKit server. Raises Unavailable."""
    modules = Path(__file__).parent.parent.parent / "tests" / "interop" / "node_modules"
    if not (modules / "rivetkit").is_dir():
        raise Unavailable("RivetKit is not installed: run `npm install --no-save --prefix tests/interop`")
    # Modules are looked for beside the script.
    (directory / "node_modules").symlink_to(modules)
    shutil.copy(Path(__file__).parent / "rivetkit.mjs", directory)
    return (sys.executable, "-m", "benchmarks.peers.rivetkit_server", str(directory))


_Echo = TrivetCalls | TrivetHttp | PythonEcho | CEcho | TrioEcho | ChannelEcho | TrioWebsocketEcho | SocketIoCalls
ECHOES: Final[Mapping[str, Callable[[int, Encoding], _Echo]]] = MappingProxyType(
    {
        "trivet": TrivetCalls,
        "echo-c": CEcho,
        "echo-python": PythonEcho,
        "echo-trio": TrioEcho,
        "echo-trio-channel": ChannelEcho,
        "trio-websocket": TrioWebsocketEcho,
        "python-socketio": SocketIoCalls,
        "rivetkit": RivetKitCalls,
        "trivet-http": TrivetHttp,
        "echo-c-http": CHttpEcho,
        "echo-python-http": PythonHttpEcho,
        "echo-trio-http": TrioHttpEcho,
        "rivetkit-http": RivetKitHttp,
    }
)


def make_echo(name: str, size: int, encoding: Encoding) -> _Echo:
    """The peer of this name."""
    return ECHOES[name](size, encoding)
