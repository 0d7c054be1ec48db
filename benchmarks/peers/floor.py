"""The least that a fan-out can cost: one non-blocking send of a ready frame for each delivery, and nothing else."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers import NUMBER_WIDTH, Event, Unavailable
from benchmarks.peers.trivet_actor import TrivetActor
from trivet.bench.client import Role
from trivet.bench.sockets import TEXT, client_frame, upgrade_request

_SOURCE = Path(__file__).parent.parent / "floor.c"


class PythonFloor:
    """`trivet.bench.floor_server`. It sends the very bytes that trivet sends; its calls are counted, not read."""

    answers = 0
    events_per_call = 1

    def __init__(self, event: Event) -> None:
        self._frames = TrivetActor(event)

    def command(self, directory: Path) -> Sequence[str]:
        return (sys.executable, "-m", "trivet.bench.floor_server", *self._arguments(directory))

    def _arguments(self, directory: Path) -> list[str]:
        frame = directory / "frame"
        first = self.event_frame(0)
        frame.write_bytes(first)
        return [str(frame), str(first.index(b"0" * NUMBER_WIDTH)), str(len(self.call(0)))]

    def opening(self, role: Role) -> bytes:
        return upgrade_request(f"/{role}")

    def greeting(self, role: Role) -> bytes:
        return b""

    def welcomes(self, role: Role) -> int:
        return 0

    def call(self, number: int) -> bytes:
        return client_frame(TEXT, f"{number:0{NUMBER_WIDTH}d}".encode())

    def event_frame(self, number: int) -> bytes:
        """What is sent: trivet's bytes."""
        return self._frames.event_frame(number)

    @property
    def event_bytes(self) -> int:
        return self._frames.event_bytes

    def is_event(self, number: int, message: bytes) -> bool:
        return self._frames.is_event(number, message)

    def heartbeat(self, message: bytes) -> bytes | None:
        return None

    def check_answer(self, number: int, message: bytes) -> None:
        raise AssertionError("a floor answers nothing")


class CFloor(PythonFloor):
    """`benchmarks/floor.c`, compiled with what `cc` is here."""

    def command(self, directory: Path) -> Sequence[str]:
        return (compile_floor(directory), *self._arguments(directory))


def compile_floor(directory: Path) -> str:
    """The program of floor.c. Raises Unavailable."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise Unavailable("there is no C compiler called cc")
    program = directory / "floor"
    compiled = subprocess.run(
        [compiler, "-O2", "-o", str(program), str(_SOURCE)], capture_output=True, text=True, check=False
    )
    if compiled.returncode:
        raise Unavailable(f"cc cannot compile floor.c: {compiled.stderr.strip()[:300]}")
    return str(program)
