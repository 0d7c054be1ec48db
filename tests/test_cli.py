"""The `trivet` command, as a process of its own and in this one."""

import argparse
import json
import math
import os
import signal
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import trio
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.conftest import Certificate
from trivet import cli
from trivet.client import open_client
from trivet.errors import ConnectionLost
from trivet.limits import Limits
from trivet.registry import Registry
from trivet.server import serve

ROOT = Path(__file__).parent.parent
ACTORS = """
from trivet.actor import Actor, action
from trivet.registry import Registry
import trio

class Slow(Actor):
    @action
    async def wait(self) -> None:
        print("waiting", flush=True)
        await trio.sleep(1000)

    @action
    def whoami(self) -> str | None:
        return self.request.peer

registry = Registry(Slow)
empty = Registry()
number = 7
"""
QUERY = "rvt-namespace=default&rvt-method=getOrCreate&rvt-runner=default"

NOTHING: Mapping[str, str] = MappingProxyType({})

Start = Callable[..., AbstractContextManager["subprocess.Popen[str]"]]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_actors.py").write_text(ACTORS)
    (tmp_path / "broken.py").write_text("1 / 0")
    (tmp_path / "wrong.py").write_text(
        "from trivet.actor import Actor\nfrom trivet.registry import Registry\n"
        "class A(Actor): name = 'x'\nclass B(Actor): name = 'x'\nregistry = Registry(A, B)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_actors", raising=False)
    return tmp_path


@pytest.fixture
def start(project: Path) -> Start:
    @contextmanager
    def run(
        *arguments: str, env: Mapping[str, str] = NOTHING, **options: object
    ) -> Generator["subprocess.Popen[str]", None, None]:
        process = subprocess.Popen(
            [sys.executable, "-m", "trivet", "serve", "my_actors:registry", *arguments],
            cwd=project,
            env={**os.environ, "PYTHONPATH": str(ROOT), **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,  # type: ignore[call-overload]  # what the test needs besides
        )
        with process:
            try:
                yield process
            finally:
                process.kill()

    return run


def url_of(process: "subprocess.Popen[str]") -> str:
    """The URL in the line that says that the server is ready."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("trivet serves slow, kept in "), line
    return line.split()[-1]


def get(url: str | urllib.request.Request) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as response:
        return bytes(response.read())


# -- as a process -----------------------------------------------------------------------------------------------------


def create(url: str) -> bool:
    """Whether asking for an actor made it."""
    body = {"name": "slow", "key": "k", "runner_name_selector": "default", "crash_policy": "sleep"}
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(
        f"{url}/actors?namespace=default", json.dumps(body).encode(), headers, method="PUT"
    )
    return bool(json.loads(get(request))["created"])


def test_actors_are_kept_in_a_directory(start: Start, project: Path) -> None:
    for made in (True, False):
        with start("--port", "0") as process:
            assert create(url_of(process)) is made
            process.terminate()
            assert process.wait(timeout=30) == 0
    assert (project / "trivet-data").is_dir()
    with start("--port", "0", "--data", "elsewhere", "--synchronous", "full", "--check", "full") as process:
        assert create(url_of(process)) is True
        with start("--port", "0", "--data", "elsewhere") as second:
            assert second.wait(timeout=30) == 1
            assert second.stderr is not None
            assert "elsewhere" in second.stderr.read()
    with start("--port", "0", "--memory") as process:
        assert create(url_of(process)) is True


def test_it_says_where_the_actors_are_kept(start: Start) -> None:
    for options, place in (((), "trivet-data"), (("--data", "rooms.db"), "rooms.db"), (("--memory",), "memory")):
        with start("--port", "0", *options) as process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(f"trivet serves slow, kept in {place}, on http")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_a_signal_and_tells_its_clients(start: Start, number: signal.Signals) -> None:
    with start("--port", "0") as process:
        url = url_of(process)
        assert b"ok" in get(f"{url}/health")
        path = f"/gateway/slow/connect?{QUERY}"
        with connect(f"{url.replace('http', 'ws')}{path}", subprotocols=["rivet"]) as websocket:  # type: ignore[list-item]  # plain strings are fine
            websocket.recv(5)
            process.send_signal(number)
            with pytest.raises(ConnectionClosed) as closed:
                websocket.recv(5)
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1001, "ws.going_away")
        assert process.wait(10) == 0


def test_a_second_signal_ends_it_at_once(start: Start) -> None:
    with start("--port", "0") as process, socket.socket() as caller:
        port = int(url_of(process).rpartition(":")[2])
        caller.connect(("127.0.0.1", port))
        caller.sendall(
            f"POST /gateway/slow/action/wait?{QUERY} HTTP/1.1\r\n".encode()
            + b"host: localhost\r\ncontent-length: 2\r\n\r\n{}"
        )
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        while "SIGINT: stopping" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
        assert "ending at once" in process.stderr.read()


def test_it_can_listen_on_a_socket_that_outlives_it(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = listener.fileno()
        for _ in range(2):
            with start("--fd", str(fd), pass_fds=[fd]) as process:
                assert url_of(process) == f"http://127.0.0.1:{listener.getsockname()[1]}"
                assert b"ok" in get(f"http://127.0.0.1:{listener.getsockname()[1]}/health")
                process.send_signal(signal.SIGTERM)
                assert process.wait(10) == 0


async def test_tls_from_files(start: Start, certificate: Certificate) -> None:
    trusting = ssl.create_default_context(cafile=certificate.authority)
    with start("--port", "0", "--tls-cert", str(certificate.chain)) as process:
        url = await trio.to_thread.run_sync(url_of, process)
        assert url.startswith("https://127.0.0.1:")
        with trio.fail_after(30):
            async with open_client(url, tls=trusting) as client, client.get_or_create("slow", "k").connect() as room:
                assert room.conn_id
            assert (await client_error(url.replace("https", "http"))).startswith("no server was found")


async def client_error(url: str) -> str:
    """What a client says that cannot use a server."""
    async with open_client(url, limits=Limits(connect_timeout=0.1)) as client:
        with pytest.raises(ConnectionLost) as raised:
            await client.get_or_create("slow", "k").resolve()
    return str(raised.value)


def test_a_token_from_the_environment_or_an_option(start: Start) -> None:
    for arguments, env in ((["--token", "opens"], {}), ([], {"TRIVET_TOKEN": "opens"})):
        with start("--port", "0", *arguments, env=env) as process:
            url = url_of(process)
            names = urllib.request.Request(f"{url}/actors/names")
            with pytest.raises(urllib.error.HTTPError, match="401"):
                get(names)
            names.add_header("Authorization", "Bearer opens")
            assert b"slow" in get(names)
            process.send_signal(signal.SIGTERM)
            assert process.stderr is not None
            assert "opens" not in process.stderr.read()


def test_names_that_the_server_is_reached_by(start: Start) -> None:
    with start("--port", "0", "--allow-host", "app.example.com") as process:
        url = url_of(process)
        for host, status in (("app.example.com", 200), ("app.example.com:8080", 200), ("evil.example.com", 403)):
            request = urllib.request.Request(f"{url}/health", headers={"Host": host})
            if status == 200:
                assert b"ok" in get(request)
            else:
                with pytest.raises(urllib.error.HTTPError, match=str(status)):
                    get(request)


def test_proxies_that_are_believed(start: Start) -> None:
    with start("--port", "0", "--trusted-proxy", "10.0.0.0/8", "--trusted-proxy", "127.0.0.1") as process:
        url = url_of(process)
        request = urllib.request.Request(
            f"{url}/gateway/slow/action/whoami?{QUERY}",
            b"{}",
            {"X-Forwarded-For": "198.51.100.1, 203.0.113.5, 10.0.0.2"},
        )
        assert json.loads(get(request)) == {"output": "203.0.113.5"}


# -- in this process --------------------------------------------------------------------------------------------------


def error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the command prints when it fails."""
    assert cli.main(["serve", *arguments]) == 1
    return capsys.readouterr().err


@pytest.mark.usefixtures("project")
def test_a_target_that_is_none_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no module 'nothing'" in error(capsys, "nothing:registry")
    assert "there is no module 'nothing.at_all'" in error(capsys, "nothing.at_all:registry")
    assert "no 'registries'; did you mean my_actors:registry?" in error(capsys, "my_actors:registries")
    assert "no 'a.b'\n" in error(capsys, "os:a.b")
    assert "not a trivet.Registry but int" in error(capsys, "my_actors:number")
    assert "did you mean my_actors:registry?" in error(capsys, "my_actors.py:registry")
    assert "did you mean sub.my_actors:registry?" in error(capsys, "./sub/my_actors.py")
    assert "write module:registry" in error(capsys, ":registry")
    assert "write module:registry" in error(capsys, "..x:registry")
    assert "my_actors:Slow is an Actor class; wrap it: registry = Registry(Slow)" in error(capsys, "my_actors:Slow")
    assert "my_actors:empty has no actors" in error(capsys, "my_actors:empty")
    broken = error(capsys, "broken")
    assert "ZeroDivisionError" in broken
    assert "could not be imported" in broken
    wrong = error(capsys, "wrong")
    assert "both called 'x'" in wrong
    assert "Traceback" not in wrong


@pytest.mark.usefixtures("project")
def test_the_attribute_is_registry_unless_said_otherwise() -> None:
    assert isinstance(cli.load_registry("my_actors"), Registry)


@pytest.mark.usefixtures("project")
def test_a_port_in_use_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert f"port {port} of 127.0.0.1 is in use" in error(capsys, "my_actors", "--port", str(port))


@pytest.mark.usefixtures("project")
def test_an_address_of_another_machine_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no address 192.0.2.1" in error(capsys, "my_actors", "--host", "192.0.2.1", "--port", "0")


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("raised", "explained"),
    [(PermissionError(13, "Permission denied"), "privileged"), (OSError(5, "I/O error"), "I/O error")],
)
def test_other_errors_of_the_system_are_explained(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, raised: OSError, explained: str
) -> None:
    async def refuse(*_: object, **__: object) -> list[trio.SocketListener]:
        await trio.lowlevel.checkpoint()
        raise raised

    monkeypatch.setattr(trio, "open_tcp_listeners", refuse)
    assert explained in error(capsys, "my_actors", "--port", "80")


@pytest.mark.usefixtures("project")
def test_options_that_cannot_be_used_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert "is no origin" in error(capsys, "my_actors", "--allow-origin", "example.com")
    assert "is no host" in error(capsys, "my_actors", "--allow-host", "example.com:80")
    assert "a server token is made of" in error(capsys, "my_actors", "--token", "two words")
    assert "needs --tls-cert" in error(capsys, "my_actors", "--tls-key", "key.pem")
    assert "cannot be used" in error(capsys, "my_actors", "--tls-cert", "missing.pem")
    with open("broken.py") as file:
        assert "is no listening socket" in error(capsys, "my_actors", "--fd", str(os.dup(file.fileno())))


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    "arguments",
    [["--port", "x"], ["--port", "65536"], ["--fd", "x"], ["--log-level", "loud"], ["--peer-connections", "0"]],
)
def test_arguments_that_are_none_print_the_usage(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        cli.main(["serve", "my_actors", *arguments])
    assert exited.value.code == 2
    assert "usage: trivet serve" in capsys.readouterr().err


@pytest.mark.usefixtures("project")
def test_a_proxy_that_is_none_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        cli.main(["serve", "my_actors", "--trusted-proxy", "10.0.0.1/8"])
    assert exited.value.code == 2
    explained = (
        "argument --trusted-proxy: '10.0.0.1/8' is no address and no network of a proxy: did you mean 10.0.0.0/8?"
    )
    assert capsys.readouterr().err.endswith(f"{explained}\n")


@pytest.mark.usefixtures("project")
def test_sockets_of_a_service_manager(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    listen = ("my_actors", "--fd", "LISTEN_FDS")
    monkeypatch.delenv("LISTEN_FDS", raising=False)
    assert "LISTEN_FDS is not set" in error(capsys, *listen)
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_PID", "1")
    assert "no sockets were passed to this process" in error(capsys, *listen)
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setattr(cli, "_FIRST_PASSED_FD", os.dup(listener.fileno()))
        served: list[int] = []

        async def note(*_: object, listeners: list[trio.SocketListener], **__: object) -> None:
            served.append(listeners[0].socket.getsockname()[1])
            listeners[0].socket.close()
            await trio.lowlevel.checkpoint()

        monkeypatch.setattr(cli, "serve", note)
        assert cli.main(["serve", *listen]) == 0
        assert served == [listener.getsockname()[1]]


@pytest.mark.usefixtures("project")
def test_an_interrupt_before_it_serves_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "COMMANDS", (cli.Command("wait", "Wait.", lambda _: None, interrupt),))
    assert cli.main(["wait"]) == 130


@pytest.mark.usefixtures("project")
def test_an_empty_token_does_not_open_the_server(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIVET_TOKEN", "")
    assert "not empty" in error(capsys, "my_actors")
    assert "not empty" in error(capsys, "my_actors", "--token", "")


@pytest.mark.usefixtures("project")
def test_the_limits_of_one_address_are_options(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Limits] = []

    async def note(*_: object, limits: Limits, **__: object) -> None:
        given.append(limits)
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(cli, "serve", note)
    assert cli.main(["serve", "my_actors"]) == 0
    options = ["--peer-connections", "5", "--peer-connection-rate", "7", "--peer-message-rate", "none"]
    assert cli.main(["serve", "my_actors", *options]) == 0
    assert given == [Limits(), Limits(peer_connections=5, peer_connection_rate=7, peer_message_rate=math.inf)]


async def test_serve_takes_a_registry_and_says_so() -> None:
    wrong: Any = Registry
    with pytest.raises(TypeError, match=r"serve takes a Registry, got the class Registry"):
        await serve(wrong)


async def test_a_port_in_use_is_named_to_programs_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on port {port} of 127.0.0.1: Address already in use"):
            await serve(Registry(), port=port)
