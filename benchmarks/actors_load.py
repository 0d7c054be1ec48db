"""The load of cold starts: one HTTP connection that calls a new actor, and then the same again, and so on.

Its arguments are a port, a number of seconds, and the server's processes. It prints a JSON object of lists, one item
for each actor: nanoseconds to the answer and CPU microseconds of the server, of the first and of the second call.
"""

import json
import sys
import time
import uuid
from collections.abc import Sequence

from benchmarks.peers.echoes import post, room
from trivet.bench.processes import cpu_seconds
from trivet.bench.sockets import HttpReader, Violation, connect
from trivet.protocol.codec import codec_for
from trivet.protocol.gateway import by_key_path

_WARM_UP = 10


def measure(port: int, seconds: float, pids: Sequence[int]) -> dict[str, list[float]]:
    """Raises Violation when a call fails."""
    codec = codec_for("json")
    assert codec is not None
    reader = HttpReader(connect(port, 60.0))
    found: dict[str, list[float]] = {"cold": [], "warm": [], "cold_cpu": [], "warm_cpu": []}
    stop = time.perf_counter() + seconds
    count = -_WARM_UP
    while time.perf_counter() < stop or count < 1:
        request = post(by_key_path(room(f"cold-{uuid.uuid4()}"), "/action/echo"), codec, ["hello"])
        for kind in ("cold", "warm"):
            cpu, began = sum(map(cpu_seconds, pids)), time.perf_counter_ns()
            reader.sock.sendall(request)
            answers: list[bytes] = []
            while not answers:
                data = reader.sock.recv(65536)
                if not data:
                    raise Violation("the server ended the connection")
                answers = reader.feed(data)
            taken = time.perf_counter_ns() - began
            if not answers[0].startswith(b"HTTP/1.1 200 "):
                raise Violation(f"a call was answered {answers[0][:300]!r}")
            if count >= 0:
                found[kind].append(taken)
                found[f"{kind}_cpu"].append((sum(map(cpu_seconds, pids)) - cpu) * 1e6)
        count += 1
    reader.sock.close()
    return found


if __name__ == "__main__":
    try:
        print(json.dumps(measure(int(sys.argv[1]), float(sys.argv[2]), [int(pid) for pid in sys.argv[3:]])))
    except (Violation, OSError) as exc:
        sys.exit(str(exc))
