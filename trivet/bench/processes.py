"""Processes of a benchmark: start them, put them on cores, read their costs, end them. Linux alone."""

import os
import platform
import resource
import select
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import attrs

_START_SECONDS = 20.0
_END_SECONDS = 2.0


class ProcessFailed(Exception):
    """A process of the benchmark did not do its part. The message is for whoever ran it."""


def raise_descriptor_limit(descriptors: int) -> None:
    """Let this process and its children open so many files. Raises ProcessFailed when that is not allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= descriptors:
        return
    if hard != resource.RLIM_INFINITY and hard < descriptors:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
        except (ValueError, PermissionError):
            raise ProcessFailed(f"{descriptors} open files are needed, and {hard} allowed") from None
    else:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, hard))


@attrs.frozen
class Announced:
    """What a server printed when it was ready: its port, and the processes whose CPU and memory count."""

    port: int
    pids: tuple[int, ...]


def read_announcement(process: subprocess.Popen[str], timeout: float = _START_SECONDS) -> Announced:
    """The line with which a server says that it listens: its port, and its processes if it is not alone."""
    port, *pids = map(int, read_line(process, timeout).split())
    return Announced(port, tuple(pids) or (process.pid,))


@contextmanager
def running(command: Sequence[str], core: int | None = None) -> Generator[subprocess.Popen[str]]:
    """A child process, on one core if one is named. On leaving, its input ends; then, or at once when leaving
    by an exception, it is killed.

    It has a session of its own, so that a Ctrl-C at the terminal is this process's alone to handle.
    """
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        yield process
    except BaseException:
        process.kill()  # nobody waits for a measurement that is given up
        raise
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def read_line(process: subprocess.Popen[str], timeout: float = _START_SECONDS) -> str:
    """The next line that a child prints. Raises ProcessFailed when it ends first, or takes too long."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], timeout)
    line = process.stdout.readline() if ready else ""
    if not line:
        what = "said nothing" if process.poll() is None else "ended"
        raise ProcessFailed(f"{' '.join(map(str, process.args))[:200]} {what}")  # type: ignore[arg-type]
    return line


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process so far.

    This is its CPU-time clock (clock_getcpuclockid), which counts nanoseconds where /proc/PID/stat has ticks of 10 ms.
    """
    return time.clock_gettime((~pid << 3) | 2)


def resident_bytes(pid: int) -> int:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@contextmanager
def urgent() -> Generator[None]:
    """Processes that are started inside come before others on their core, where the system allows that."""
    niceness = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -15)
    except PermissionError:
        pass
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, niceness)


def two_cores() -> tuple[int, int]:
    """A core for the server and another for the load. Raises ProcessFailed when there is but one."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise ProcessFailed("--pin needs two cores")
    return cores[0], cores[1]


def machine() -> Mapping[str, str | int]:
    """What this was measured on."""
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "load average": f"{os.getloadavg()[0]:.2f}",
        "python": platform.python_version(),
        **{name: _version(name) for name in ("trivet", "trio", "wsproto", "cattrs")},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "from the source tree"


def python(module: str, *arguments: str) -> tuple[str, ...]:
    """The command that runs a module with this interpreter."""
    return (sys.executable, "-m", module, *arguments)
