"""The documents say what is so: their Python compiles, what is marked runs, what they point to exists."""

import ast
import re
import sys
import types
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast, get_args

import attrs
import pytest
import trio

import trivet
from trivet.event import OverflowPolicy
from trivet.protocol.extension import ExtensionToClient, ExtensionToServer

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WITH_PYTHON = [path for path in DOCUMENTS if "```python" in path.read_text()]

RUNS = "<!-- runs -->"
"""Stands before a snippet that is a program. Those of one document share their names, from top to bottom."""

_FENCE = re.compile(rf"(?P<mark>{RUNS}\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]\n]*\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#+ (?P<text>.+)$", re.MULTILINE)
_CODE = re.compile(r"`[^`\n]+`")
_TEST = re.compile(r"`(?P<path>tests/[\w/]+\.py)(?:::(?P<name>\w+))?`")


@attrs.frozen
class Snippet:
    """One block of Python in a document, at its own line there, so that a traceback points into the document."""

    path: Path
    line: int
    code: str
    runs: bool

    def compile(self) -> types.CodeType:
        """Fragments may wait at the top level, as in a notebook."""
        source = "\n" * (self.line - 1) + self.code
        return cast("types.CodeType", compile(source, self.path, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT))


def snippets(path: Path) -> Iterator[Snippet]:
    text = path.read_text()
    for match in _FENCE.finditer(text):
        if match["language"] == "python":
            line = text.count("\n", 0, match.start("code")) + 1
            yield Snippet(path, line, match["code"], match["mark"] is not None)


def without_code(path: Path) -> str:
    return _CODE.sub("", _FENCE.sub("", path.read_text()))


def anchors(path: Path) -> set[str]:
    """The names that GitHub gives to headings."""
    headings = _FENCE.sub("", path.read_text())
    texts = (match["text"].lower().replace(" ", "-") for match in _HEADING.finditer(headings))
    return {re.sub(r"[^\w-]", "", text) for text in texts}


def ids(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", WITH_PYTHON, ids=ids)
def test_every_snippet_compiles(path: Path) -> None:
    found = list(snippets(path))
    assert len(found) == path.read_text().count("```python\n")
    for snippet in found:
        snippet.compile()


@pytest.mark.parametrize("path", [path for path in WITH_PYTHON if RUNS in path.read_text()], ids=ids)
async def test_what_is_marked_runs(path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    # Decorators and type hints look for the module that a class was made in.
    module = types.ModuleType("snippets_of_a_document")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    names = vars(module)
    for snippet in snippets(path):
        if snippet.runs:
            names.pop("main", None)
            exec(snippet.compile(), names)
            if "main" in names:
                await cast("Callable[[], Awaitable[None]]", names["main"])()


async def test_the_first_programs_of_the_readme_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # A snippet that begins with `# name.py` is that file.
    for snippet in snippets(ROOT / "README.md"):
        if name := re.match(r"# (\w+\.py)\n", snippet.code):
            (tmp_path / name[1]).write_text(snippet.code)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "chat", raising=False)
    chat: Any = __import__("chat")
    talk: dict[str, Any] = {}
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(trivet.serve, chat.registry, port=0))
        source = (tmp_path / "talk.py").read_text()
        assert "http://127.0.0.1:6420" in source
        assert source.endswith("\n\ntrio.run(main)\n")
        exec(source.removesuffix("trio.run(main)\n").replace("http://127.0.0.1:6420", server.url), talk)
        with trio.fail_after(30):
            await talk["main"]()
        nursery.cancel_scope.cancel()
    assert capsys.readouterr().out == "ann says hello everyone\n"
    sys.modules.pop("chat")


@pytest.mark.parametrize("path", DOCUMENTS, ids=ids)
def test_links_inside_the_project_lead_somewhere(path: Path) -> None:
    for match in _LINK.finditer(without_code(path)):
        target, _, anchor = match["target"].partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = path if not target else (path.parent / target).resolve()
        assert file.exists(), f"{ids(path)} links to {match['target']}"
        if anchor:
            assert anchor in anchors(file), f"{ids(path)} links to {match['target']}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=ids)
def test_the_tests_that_prove_a_claim_exist(path: Path) -> None:
    for match in _TEST.finditer(path.read_text()):
        file = ROOT / match["path"]
        assert file.exists(), f"{ids(path)} names {match['path']}"
        if match["name"]:
            assert f"def {match['name']}(" in file.read_text(), f"{ids(path)} names {match[0]}"


def test_every_source_of_the_comparison_is_given_and_used() -> None:
    table, _, sources = (ROOT / "docs" / "comparison.md").read_text().partition("## Sources")
    given = re.findall(r"^\* \[([A-Z]\d+)\]", sources, re.MULTILINE)
    assert sorted(set(re.findall(r"\[([A-Z]\d+)\]", table))) == sorted(given)


@pytest.mark.parametrize(
    ("heading", "direction"), [("Server to client", ExtensionToClient), ("Client to server", ExtensionToServer)]
)
def test_the_protocol_is_specified_as_it_is(heading: str, direction: object) -> None:
    text = (ROOT / "docs" / "protocol.md").read_text()
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r'^\| `\["(\w+)"((?:, [^`]+?)?)\]` \| (c?) ?\|', section, re.MULTILINE)
    specified = {kind: (fields.count(", "), mark == "c") for kind, fields, mark in rows}
    kinds = {cls.kind: cls for cls in get_args(direction)}
    assert set(specified) == set(kinds)
    for kind, (fields, counted) in specified.items():
        assert counted == kinds[kind].counted, kind
        if kind != "refused":  # its error is one object
            assert fields == len(attrs.fields(kinds[kind])), kind


def test_every_overflow_policy_and_every_field_of_a_result_is_described() -> None:
    text = (ROOT / "docs" / "delivery.md").read_text()
    for policy in get_args(OverflowPolicy):
        assert re.search(rf'^\| [^|]*`"{policy}"`', text, re.MULTILINE), policy
    for field in attrs.fields(trivet.BroadcastResult):
        assert f"\n| `{field.name}` | " in text, field.name
