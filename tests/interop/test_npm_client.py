"""RivetKit's own JavaScript client, as npm has it, against trivet."""

import signal
import socket
from pathlib import Path

import pytest

from tests.interop import peers

SCENARIOS = ("seed", "connections", "actions", "handles", "raw", "sizes", "values", "ordering")

pytestmark = pytest.mark.node


@pytest.mark.parametrize("encoding", peers.ENCODINGS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(trivet_address: str, tmp_path: Path, name: str, encoding: str) -> None:
    peers.run_scenario(name, trivet_address, encoding, peer="trivet", folder=tmp_path)


@pytest.mark.parametrize("name", ["seed", "connections", "raw"])
def test_scenario_with_another_websocket(trivet_address: str, tmp_path: Path, name: str) -> None:
    # Without a WebSocket of Node's own, as before version 22, the client uses the package `ws`.
    peers.run_scenario(name, trivet_address, "bare", peer="trivet", folder=tmp_path, builtin_websocket=False)


def replaced_server(tmp_path: Path, encoding: str, number: signal.Signals) -> list[peers.Check]:
    """Run the scenario `restart`, and replace the server at its word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with peers.trivet_server(tmp_path, listener=listener) as (old, address):
            with peers.scenario("restart", address, encoding, peer="trivet", folder=tmp_path) as client:
                assert client.stdout is not None
                lines: list[str] = []
                for line in client.stdout:
                    lines.append(line)
                    if "ready" in line:
                        break
                old.signal(number)
                old.popen.wait(30)
                with peers.trivet_server(tmp_path, listener=listener):
                    lines.extend(client.stdout)
                    status = client.wait(60)
    checks = list(peers.parse_checks(iter(lines)))
    peers.assert_passed("restart", checks, status, tmp_path / f"restart-{encoding}.log")
    return checks


@pytest.mark.parametrize("encoding", peers.ENCODINGS)
def test_connection_rides_out_a_restart(tmp_path: Path, encoding: str) -> None:
    assert len(replaced_server(tmp_path, encoding, signal.SIGTERM)) == 4


def test_connection_rides_out_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDLE", "1")
    assert len(replaced_server(tmp_path, "bare", signal.SIGKILL)) == 4
