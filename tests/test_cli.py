"""The `trivet` command, as a process of its own and in this one."""

import argparse
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.conftest import Certificate
from trivet import cli
from trivet.registry import Registry
from trivet.server import Server, serve

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

registry = Registry(Slow)
empty = Registry()
number = 7
"""
QUERY = "rvt-namespace=default&rvt-method=getOrCreate&rvt-runner=default"

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
    def run(*arguments: str, **options: object) -> Generator["subprocess.Popen[str]", None, None]:
        process = subprocess.Popen(
            [sys.executable, "-m", "trivet", "serve", "my_actors:registry", *arguments],
            cwd=project,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
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
    assert line.startswith("trivet serves slow on http"), line
    return line.split()[-1]


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as response:
        return bytes(response.read())


# -- as a process -----------------------------------------------------------------------------------------------------


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


def test_tls_from_files(start: Start, certificate: Certificate) -> None:
    with start("--port", "0", "--tls-cert", str(certificate.chain)) as process:
        assert url_of(process).startswith("https://127.0.0.1:")


def test_a_loopback_address_is_not_warned_of(start: Start) -> None:
    with start("--port", "0", "--log-level", "warning") as process:
        url_of(process)
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert "access control" not in process.stderr.read()


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
    assert "needs --tls-cert" in error(capsys, "my_actors", "--tls-key", "key.pem")
    assert "cannot be used" in error(capsys, "my_actors", "--tls-cert", "missing.pem")
    with open("broken.py") as file:
        assert "is no listening socket" in error(capsys, "my_actors", "--fd", str(os.dup(file.fileno())))


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("arguments", [["--port", "x"], ["--port", "65536"], ["--fd", "x"], ["--log-level", "loud"]])
def test_arguments_that_are_none_print_the_usage(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        cli.main(["serve", "my_actors", *arguments])
    assert exited.value.code == 2
    assert "usage: trivet serve" in capsys.readouterr().err


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


async def test_servers_that_others_reach_are_warned_of(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    listener.socket.getsockname = lambda: ("0.0.0.0", 6420)  # type: ignore[method-assign]
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(partial(serve, Registry(), listeners=[listener]))
        cli._Announcement(lambda server: f"serving on {server.url}").started(server)
        nursery.cancel_scope.cancel()
    assert capsys.readouterr().out == "serving on http://127.0.0.1:6420\n"
    assert "no access control yet" in caplog.text


async def test_serve_takes_a_registry_and_says_so() -> None:
    wrong: Any = Registry
    with pytest.raises(TypeError, match=r"serve takes a Registry, got the class Registry"):
        await serve(wrong)


async def test_a_port_in_use_is_named_to_programs_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on port {port} of 127.0.0.1: Address already in use"):
            await serve(Registry(), port=port)
