"""Half of a benchmark runs in processes of its own: they are measured too, where the tests are."""

from pathlib import Path

import coverage
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def measured_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if coverage.Coverage.current() is None:
        return
    config = tmp_path / "coverage.ini"
    config.write_text(
        f"[run]\nbranch = true\nparallel = true\nsigterm = true\nsource = {ROOT / 'trivet'}\n"
        f"data_file = {ROOT / '.coverage'}\n"
    )
    monkeypatch.setenv("COVERAGE_PROCESS_START", str(config))
