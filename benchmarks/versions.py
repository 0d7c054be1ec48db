"""The versions of the peers that are installed."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

_PYTHON: Final = ("picows", "uvloop", "websockets", "trio-websocket", "python-socketio", "uvicorn")
_NPM: Final = {
    "rivetkit": "tests/interop",
    "@rivetkit/engine-cli": "tests/interop",
    "ws": "tests/interop",
    "socket.io": "benchmarks",
}
_PROGRAMS: Final = {"node": "--version", "nginx": "-v", "cc": "--version"}
_ROOT: Final = Path(__file__).parent.parent


def peer_versions() -> Mapping[str, str]:
    """By name; what is not installed is left out."""
    found: dict[str, str] = {}
    for name in _PYTHON:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    for name, folder in _NPM.items():
        manifest = _ROOT / folder / "node_modules" / name / "package.json"
        if manifest.exists():
            found[name] = json.loads(manifest.read_text())["version"]
    for name, option in _PROGRAMS.items():
        if path := shutil.which(name):
            done = subprocess.run([path, option], capture_output=True, text=True, check=False)
            found[name] = (done.stdout or done.stderr).strip().splitlines()[0]
    return found
