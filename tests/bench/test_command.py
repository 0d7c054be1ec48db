"""`trivet bench` measures a user's own actor: what was delivered is asserted, and never how fast."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

if not sys.platform.startswith("linux"):
    pytest.skip("`trivet bench` needs Linux", allow_module_level=True)

from trivet.cli import main

_MODULE = """
import attrs
from trivet import Actor, Event, Registry, action


@attrs.frozen
class Note:
    number: int
    text: str


class Board(Actor):
    note_pinned = Event(Note)
    cleared = Event()

    @action
    def pin_note(self, text: str) -> int:
        for number in range(2):
            self.broadcast(self.note_pinned, Note(number, text))
        return 2

    @action
    def pin_for_some(self) -> None:
        first = next(iter(self.conns.values()))
        self.broadcast(self.note_pinned, Note(0, ""), exclude=first)
        self.broadcast(self.note_pinned, Note(1, ""))


registry = Registry(Board)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "board.py").write_text(_MODULE)
    return tmp_path


def _bench(folder: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], Any]:
    """From the user's own directory, where there is neither a compiler nor a source tree."""
    command = [sys.executable, "-m", "trivet", "bench", "board:registry", *arguments, "--json", "out.json"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PATH": ""}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=150, check=False
    )
    out = folder / "out.json"
    return done, json.loads(out.read_text()) if out.exists() else None


def test_every_event_of_a_users_action_is_counted(folder: Path) -> None:
    done, document = _bench(
        folder, "Board.pin_note", "--args", '["hi"]', "--event", "note_pinned", "--subscribers", "10",
        "--in-flight", "4", "--count", "20", "--repeat", "1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Board.pin_note / floor" in done.stdout
    actor, floor = document["runs"]
    assert (actor["peer"], floor["peer"]) == ("Board.pin_note", "floor")
    for run in (actor, floor):
        assert run["figures"]["events"] == 20  # of the action, which emits two for each call, ten calls
        assert run["figures"]["deliveries"] == 20 * 10
        assert sum(count for _, count in run["histograms"]["latency"]) == 200
    assert document["machine"]["trivet"]


def test_without_an_event_calls_are_counted(folder: Path) -> None:
    done, document = _bench(
        folder, "board.pinNote", "--args", '["hi"]', "--in-flight", "2", "--count", "20", "--repeat", "1",
        "--encoding", "cbor",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [run["figures"]["calls"] for run in document["runs"]] == [20, 20]


def test_an_event_that_some_subscribers_do_not_get_is_an_error(folder: Path) -> None:
    done, document = _bench(
        folder, "Board.pin_for_some", "--event", "note_pinned", "--subscribers", "3", "--in-flight", "1",
        "--count", "4", "--timeout", "5",
    )  # fmt: skip
    assert done.returncode == 1
    assert "subscriber" in done.stderr
    assert document is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Wall.pin_note"], "no actor 'Wall'; it has Board"),
        (["Board.unpin"], "no action 'unpin'"),
        (["Board.pin_note", "--args", "hi"], "--args is no JSON"),
        (["Board.pin_note", "--args", "{}"], "--args is no JSON array"),
        (["Board.pin_note", "--params", "{"], "--params is no JSON"),
        (["Board.pin_note"], "args[0]: missing"),
        (["Board.pin_note", "--args", '["hi"]', "--event", "cleared"], "emitted no event 'cleared'"),
    ],
)
def test_a_mistake_is_explained(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    monkeypatch.delitem(sys.modules, "board", raising=False)
    assert main(["bench", "board:registry", *arguments]) == 1
    assert message in capsys.readouterr().err


def test_a_number_that_is_none_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "board:registry", "Board.pin_note", "--subscribers", "0"])
    assert "'0' is no number from 1 up" in capsys.readouterr().err
