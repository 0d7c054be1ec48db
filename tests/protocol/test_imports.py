"""The protocol knows nothing of Trio, nor of any socket."""

import subprocess
import sys
from pathlib import Path

import trivet.protocol

PROGRAM = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(f"trivet.protocol.{name}")
print(sorted({"trio", "socket", "ssl", "h11", "wsproto", "asyncio"} & sys.modules.keys()))
"""


def test_importing_it_imports_no_io() -> None:
    folder = Path(trivet.protocol.__path__[0])
    names = [file.stem for file in folder.glob("*.py") if file.stem != "__init__"]
    # In a process of its own: pytest has imported Trio into this one. `trivet/__init__.py` is the package's public
    # face, which imports everything, so a bare package stands in its place.
    stub = f"import sys, types; package = types.ModuleType('trivet'); package.__path__ = [{str(folder.parent)!r}]\n"
    stub += "sys.modules['trivet'] = package\n"
    result = subprocess.run(
        [sys.executable, "-c", stub + PROGRAM, *names], capture_output=True, text=True, check=True, timeout=60
    )
    assert len(names) >= 15
    assert result.stdout.strip() == "[]"
