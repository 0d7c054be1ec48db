"""What is left when a process is killed in the middle of its commits."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.store.committing import ACTORS
from tests.store.support import values
from trivet.store.sqlite import check_sqlite_store, open_sqlite_store
from trivet.store.sqlite.file import Synchronous

ROOT: Final = Path(__file__).parents[2]
KILLS: Final = 200 if os.environ.get("TRIVET_LONG") == "1" else 2


def commit_until_killed(directory: Path, synchronous: Synchronous, lines: int) -> dict[str, int]:
    """Kill the program once it has acknowledged so many commits; the last number of each actor that it printed."""
    acknowledged: dict[str, int] = {}
    program = [sys.executable, "-m", "tests.store.committing", str(directory), synchronous]
    with subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for count, line in enumerate(process.stdout, 1):
            actor_id, number = line.decode().split()
            acknowledged[actor_id] = int(number)
            if count == lines:
                process.kill()  # what it had printed before that is still read
    assert process.returncode < 0
    return acknowledged


@pytest.mark.parametrize("synchronous", ["normal", "full"])
async def test_after_a_kill_every_acknowledged_commit_is_there_and_each_is_whole(
    tmp_path: Path, synchronous: Synchronous
) -> None:
    generator = random.Random(synchronous)
    for _ in range(KILLS):
        acknowledged = commit_until_killed(tmp_path, synchronous, generator.randrange(ACTORS, 400))
        assert await check_sqlite_store(tmp_path) == []
        async with open_sqlite_store(tmp_path) as store:
            alarms = {row.actor_id: alarm for row, alarm in await store.due(1e9, 100)}
            for actor_id, number in acknowledged.items():
                stored = await store.load(actor_id)
                assert stored is not None
                found = json.loads(stored.state or b"")["number"]
                # The one that was in flight may have taken effect.
                assert found in (number, number + 1)
                assert values(stored.connections) == {"c": found}
                assert values(stored.schedules) == {"s": found}
                assert alarms[actor_id] == found
