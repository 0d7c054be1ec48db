"""The direction of imports: who may know of whom."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "trivet"

# Each room, and what no file of it may import at the time of its own import.
FORBIDDEN = {
    "protocol": {"trio", "trivet.runtime", "trivet.server", "trivet.client", "trivet.local", "trivet.registry"},
    "conversion": {"trio", "trivet.runtime", "trivet.server", "trivet.client", "trivet.local"},
    "runtime": {
        "trivet.server",
        "trivet.client",
        "trivet.local",
        "h11",
        "wsproto",
        "trio_websocket",
        "httpcore",
        "socket",
    },
    "store": {"trivet.runtime", "trivet.server", "trivet.client", "trivet.local", "trivet.registry"},
    "server": {"trivet.client", "trivet.local"},
    "client": {"trivet.server", "trivet.runtime", "trivet.local"},
    "typescript": {"trio", "trivet.runtime", "trivet.server", "trivet.client", "trivet.local"},
}


def imports(file: Path) -> Iterator[str]:
    """The modules that a file imports when it is imported: not under TYPE_CHECKING, not inside functions."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("room", FORBIDDEN)
def test_no_room_knows_what_it_must_not(room: str) -> None:
    files = list((PACKAGE / room).rglob("*.py"))
    assert files
    wrong = [
        f"{file.relative_to(PACKAGE)} imports {name}"
        for file in files
        for name in imports(file)
        for forbidden in FORBIDDEN[room]
        if name == forbidden or name.startswith(f"{forbidden}.")
    ]
    assert wrong == []
