"""Starting the real peers: RivetKit's server and client, trivet's server, Chromium.

Every process listens on free ports of 127.0.0.1, has its own home, storage and process group, writes to a log file,
and is gone when its context is left.
"""

import contextlib
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Final, cast

import attrs
import pytest

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parent.parent
MODULES: Final = HERE / "node_modules"
ENCODINGS: Final = ("bare", "cbor", "json")

_SYSTEM: Final = platform.system().lower()
_MACHINE: Final = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
_ENGINE_START: Final = 60.0
_SERVER_START: Final = 60.0
_FIRST_ACTOR: Final = 60.0


def missing(what: str) -> None:
    """Skip the test that needs `what`; fail it where every peer is required, as in continuous integration."""
    if os.environ.get("TRIVET_REQUIRE_PEERS") == "1":
        pytest.fail(f"{what} (TRIVET_REQUIRE_PEERS=1)")
    pytest.skip(what)


def node() -> str:
    """Node.js: the one in the npm packages, which is recent enough for RivetKit's server."""
    found = MODULES / f"node-{_SYSTEM}-{_MACHINE}" / "bin" / "node"
    if not (MODULES / "rivetkit").is_dir() or not found.exists():
        missing("the npm packages are not installed: run `npm install --no-save` in tests/interop")
    return str(found)


def engine() -> str:
    """The Rivet Engine, as npm brings it."""
    variants = (f"{_SYSTEM}-{_MACHINE}-musl", f"{_SYSTEM}-{_MACHINE}")
    names = [MODULES / "@rivetkit" / f"engine-cli-{variant}" / "rivet-engine" for variant in variants]
    found = next((name for name in names if name.exists()), None)
    if found is None:
        missing("the Rivet Engine is not installed: run `npm install --no-save` in tests/interop")
    return str(found)


def chromium() -> str:
    """A Chromium or Chrome."""
    names = (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next((path for name in names if name and (path := shutil.which(name))), None)
    if found is None:
        missing("Chromium is not installed")
    return str(found)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at the moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [cast("int", one.getsockname()[1]) for one in sockets]


def wait_for(condition: Callable[[], bool], what: str, seconds: float) -> None:
    """Wait for another process, which can only be asked again and again."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.05)


def http_ok(request: urllib.request.Request | str) -> bool:
    """Whether a request, or a GET of a URL, is answered with success."""
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            response.read()
            return cast("int", response.status) == 200
    except urllib.error.HTTPError as error:
        error.close()
        return False
    except (urllib.error.URLError, OSError):
        return False


@attrs.define
class Process:
    """A process that was started, and the file of what it wrote."""

    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def running(self) -> bool:
        return self.popen.poll() is None

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """To the process itself, as a service manager does."""
        self.popen.send_signal(number)

    def stop(self, grace: float = 5.0) -> None:
        """End its whole group, by force after `grace` seconds."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.popen.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(grace)
                if number is signal.SIGKILL:
                    return


@contextlib.contextmanager
def started(
    command: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None, fds: Sequence[int] = ()
) -> Generator[Process]:
    """Run a process for the length of the block."""
    with log.open("ab") as output:
        popen = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=None if env is None else {**os.environ, **env},
            start_new_session=True,
            pass_fds=fds,
        )
    process = Process(popen, log)
    try:
        yield process
    finally:
        process.stop()


def await_start(process: Process, ready: Callable[[], bool], what: str, seconds: float) -> None:
    """Wait until a server can be used. Raises RuntimeError with its log when it ends or takes too long."""
    try:
        wait_for(lambda: not process.running or ready(), what, seconds)
    except TimeoutError as error:
        raise RuntimeError(f"{error}\n{process.output()[-4000:]}") from None
    if not process.running:
        raise RuntimeError(f"{what} ended with status {process.popen.returncode}\n{process.output()[-4000:]}")


@contextlib.contextmanager
def rivetkit_server(folder: Path) -> Generator[str]:
    """A Rivet Engine with the actors of registry.mjs; yields its address."""
    guard, peer, metrics = free_ports(3)
    address = f"http://127.0.0.1:{guard}"
    home = {"HOME": str(folder), "RIVETKIT_STORAGE_PATH": str(folder / "storage")}
    engine_env = {
        **home,
        "RIVET__GUARD__HOST": "127.0.0.1",
        "RIVET__GUARD__PORT": str(guard),
        "RIVET__API_PEER__HOST": "127.0.0.1",
        "RIVET__API_PEER__PORT": str(peer),
        "RIVET__METRICS__HOST": "127.0.0.1",
        "RIVET__METRICS__PORT": str(metrics),
        "RIVET__FILE_SYSTEM__PATH": str(folder / "db"),
        "RIVET__TELEMETRY__ENABLED": "false",
        # The engine throttles itself by the load of the whole host; a busy test machine would stop it.
        "RIVET__RUNTIME__WORKER_CPU_MAX": "1000000",
        "RIVET__RUNTIME__GUARD_SHUTDOWN_DURATION": "1",
        "RIVET__RUNTIME__WORKER_SHUTDOWN_DURATION": "1",
        "RIVET__RUNTIME__FORCE_SHUTDOWN_DURATION": "2",
    }
    node_env = {
        **home,
        "ENGINE": address,
        "NODE_ENV": "production",
        "RIVET_ENVOY_VERSION": "1",
        "RIVET_RUN_ENGINE": "0",
        "RIVET_RUN_SERVICES": "0",
    }
    with started([engine(), "start"], folder / "engine.log", env=engine_env) as engine_process:
        await_start(engine_process, lambda: http_ok(f"{address}/health"), "the Rivet Engine", _ENGINE_START)
        # It says that it is well before it has made its default namespace.
        await_start(engine_process, lambda: _configure_pool(address), "the engine's namespace", _ENGINE_START)
        with started([node(), str(HERE / "registry.mjs")], folder / "node.log", env=node_env) as node_process:
            await_start(node_process, lambda: "ready\n" in node_process.output(), "RivetKit", _SERVER_START)
            # The first actor of a new engine may take its time; tests measure none of it.
            await_start(engine_process, lambda: _first_call(address), "the first actor", _FIRST_ACTOR)
            yield address


def _configure_pool(address: str) -> bool:
    """Tell the engine of the pool that its actors' host will join; it refuses the host otherwise."""
    body = json.dumps({"datacenters": {"default": {"normal": {}, "drain_on_version_upgrade": True}}}).encode()
    url = f"{address}/runner-configs/default?namespace=default"
    request = urllib.request.Request(url, body, {"content-type": "application/json"}, method="PUT")
    return http_ok(request)


def _first_call(address: str) -> bool:
    # Another actor each time: one whose start was lost stays lost for a long while.
    query = f"rvt-namespace=default&rvt-method=getOrCreate&rvt-runner=default&rvt-key={uuid.uuid4()}"
    url = f"{address}/gateway/counter/action/getCount?{query}"
    headers = {"content-type": "application/json", "x-rivet-encoding": "json"}
    return http_ok(urllib.request.Request(url, b'{"args":[]}', headers, method="POST"))


@contextlib.contextmanager
def trivet_server(
    folder: Path, *arguments: str, listener: socket.socket | None = None
) -> Generator[tuple[Process, str]]:
    """`trivet serve` with the actors of actors.py; yields the process and its address.

    With `listener` it serves on that listening socket, which stays open when it ends.
    """
    if listener is None:
        port = free_ports(1)[0]
        where, fds = ["--port", str(port)], list[int]()
    else:
        port = cast("int", listener.getsockname()[1])
        where, fds = ["--fd", str(listener.fileno())], [listener.fileno()]
    command = [sys.executable, "-m", "trivet", "serve", "tests.interop.actors:registry", *where, *arguments]
    command += ["--data", str(folder / "trivet-data")]
    address = f"http://127.0.0.1:{port}"
    with started(command, folder / f"trivet-{port}.log", fds=fds) as process:
        await_start(process, lambda: http_ok(f"{address}/metadata"), "trivet", _SERVER_START)
        yield process, address


@attrs.frozen
class Check:
    """The outcome of one check of a scenario."""

    name: str
    ok: bool
    detail: str


@contextlib.contextmanager
def scenario(
    name: str, address: str, encoding: str, *, peer: str, folder: Path, builtin_websocket: bool = True
) -> Generator[subprocess.Popen[str]]:
    """A scenario as a running process, its lines to be read from its stdout."""
    options = [] if builtin_websocket else ["--no-experimental-websocket"]
    command = [node(), *options, str(HERE / "scenarios" / f"{name}.mjs"), address, encoding, peer]
    env = {**os.environ, "HOME": str(folder), "RIVET_LOG_LEVEL": "silent", "NODE_NO_WARNINGS": "1"}
    with (
        (folder / f"{name}-{encoding}.log").open("wb") as errors,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=HERE, env=env
        ) as popen,
    ):
        try:
            yield popen
        finally:
            popen.kill()


def parse_checks(lines: Iterator[str] | IO[str]) -> Iterator[Check]:
    """The checks among the lines of a scenario."""
    for line in lines:
        if line.startswith("{"):
            fields: dict[str, object] = json.loads(line)
            if "name" in fields:
                yield Check(str(fields["name"]), bool(fields["ok"]), str(fields["detail"]))


def run_scenario(
    name: str,
    address: str,
    encoding: str,
    *,
    peer: str,
    folder: Path,
    builtin_websocket: bool = True,
    timeout: float = 120,
) -> list[Check]:
    """Run a scenario to its end and assert that all of its checks passed."""
    running = scenario(name, address, encoding, peer=peer, folder=folder, builtin_websocket=builtin_websocket)
    with running as popen:
        try:
            output, _ = popen.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            popen.kill()
            output, _ = popen.communicate()
            checks = list(parse_checks(iter(output.splitlines())))
            last = checks[-1].name if checks else "nothing"
            pytest.fail(f"{name}: not finished after {timeout:g} s; the last check was {last!r}")
    checks = list(parse_checks(iter(output.splitlines())))
    assert_passed(name, checks, popen.returncode, folder / f"{name}-{encoding}.log")
    return checks


def assert_passed(name: str, checks: Sequence[Check], status: int, log: Path) -> None:
    """Fail with every check that failed."""
    failed = [f"* {check.name}\n  {check.detail}" for check in checks if not check.ok]
    if failed:
        pytest.fail(f"{name}: {len(failed)} of {len(checks)} checks failed\n" + "\n".join(failed), pytrace=False)
    if status != 0 or not checks:
        pytest.fail(f"{name}: ended with status {status} after {len(checks)} checks\n{log.read_text()[-4000:]}")
