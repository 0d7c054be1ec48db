"""A Rivet Engine and a RivetKit server: `rivetkit_server DIRECTORY`, which has rivetkit.mjs and its modules.

Prints the engine's port and both processes, and serves until standard input ends.
"""

import json
import os
import sys
import urllib.request
import uuid
from contextlib import ExitStack
from pathlib import Path

from benchmarks.peers.children import child
from tests.interop.peers import engine, free_ports, http_ok, node, wait_for
from trivet.protocol.codec import codec_for
from trivet.protocol.gateway import ActorByKey, by_key_path

_SECONDS = 60.0


def main(directory: Path) -> None:
    """Serve."""
    guard, peer, metrics = free_ports(3)
    address = f"http://127.0.0.1:{guard}"
    home = {"HOME": str(directory), "RIVETKIT_STORAGE_PATH": str(directory / "storage"), "NODE_ENV": "production"}
    engine_env = {
        **home,
        "RIVET__GUARD__HOST": "127.0.0.1",
        "RIVET__GUARD__PORT": str(guard),
        "RIVET__API_PEER__HOST": "127.0.0.1",
        "RIVET__API_PEER__PORT": str(peer),
        "RIVET__METRICS__HOST": "127.0.0.1",
        "RIVET__METRICS__PORT": str(metrics),
        "RIVET__FILE_SYSTEM__PATH": str(directory / "db"),
        "RIVET__TELEMETRY__ENABLED": "false",
        # The engine throttles itself by the load of the whole host, which the load generator is a part of.
        "RIVET__RUNTIME__WORKER_CPU_MAX": "1000000",
    }
    node_env = {**home, "ENGINE": address, "RIVET_ENVOY_VERSION": "1", "RIVET_RUN_ENGINE": "0"}
    with ExitStack() as stack:
        engine_log, node_log = directory / "engine.log", directory / "node.log"
        engine_process = stack.enter_context(child([engine(), "start"], engine_log, os.environ | engine_env))
        wait_for(lambda: http_ok(f"{address}/health"), "the Rivet Engine", _SECONDS)
        wait_for(lambda: _configure_pool(address), "the engine's namespace", _SECONDS)
        script = [node(), str(directory / "rivetkit.mjs")]
        node_process = stack.enter_context(child(script, node_log, os.environ | node_env))
        wait_for(lambda: "ready\n" in node_log.read_text(), "RivetKit", _SECONDS)
        wait_for(lambda: _first_call(address), "the first actor", _SECONDS)
        print(guard, engine_process.pid, node_process.pid, flush=True)
        sys.stdin.read()


def _configure_pool(address: str) -> bool:
    body = json.dumps({"datacenters": {"default": {"normal": {}, "drain_on_version_upgrade": True}}}).encode()
    url = f"{address}/runner-configs/default?namespace=default"
    return http_ok(urllib.request.Request(url, body, {"content-type": "application/json"}, method="PUT"))


def _first_call(address: str) -> bool:
    # Another actor each time: one whose start was lost stays lost for a long while.
    actor = ActorByKey("default", "room", (str(uuid.uuid4()),), "getOrCreate", pool="default")
    codec = codec_for("json")
    assert codec is not None
    headers = {"content-type": codec.content_type, "x-rivet-encoding": "json"}
    url = address + by_key_path(actor, "/action/ready")
    return http_ok(urllib.request.Request(url, codec.encode_action_request([]), headers, method="POST"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
