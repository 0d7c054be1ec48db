"""TypeScript's compiler reads what `trivet types` writes, with RivetKit's own types and programs that use both."""

import json
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

from tests.interop.peers import MODULES, missing, node
from tests.typescript.actors import registry
from trivet.typescript import declarations

HERE = Path(__file__).parent
PROGRAMS = HERE / "programs"
PAGE = HERE.parent.parent / "docs" / "typescript.md"
OPTIONS: dict[str, object] = {
    "target": "es2022",
    "module": "esnext",
    "moduleResolution": "bundler",
    "strict": True,
    "noEmit": True,
    "skipLibCheck": True,  # RivetKit's types import packages that it does not install
    "types": [],
}


def compiler() -> list[str]:
    tsc = MODULES / "typescript" / "lib" / "tsc.js"
    if not tsc.exists():
        missing("TypeScript is not installed: run `npm install --no-save` in tests/interop")
    return [node(), str(tsc)]


def snippets(language: str) -> list[str]:
    """The snippets of the page, in their order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def written_for_the_page() -> str:
    module = types.ModuleType("gallery_of_the_page")
    sys.modules[module.__name__] = module  # type hints are looked up there
    try:
        exec(snippets("python")[0], vars(module))
        return declarations(vars(module)["registry"], "game:registry")
    finally:
        del sys.modules[module.__name__]


@pytest.fixture(scope="module")
def mistakes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[int]]:
    """The lines that the compiler refuses, by file; all files in one run, since its start takes most of the time."""
    tsc, folder = compiler(), tmp_path_factory.mktemp("typescript")
    (folder / "node_modules").symlink_to(MODULES)
    written = declarations(registry, "actors:registry")
    (folder / "registry.d.ts").write_text(written, encoding="utf-8")
    # A mistake in a file of declarations would be skipped like those of libraries.
    (folder / "declarations.ts").write_text(written, encoding="utf-8")
    for program in PROGRAMS.iterdir():
        shutil.copy(program, folder)
    page = folder / "page"
    page.mkdir()
    (page / "registry.d.ts").write_text(written_for_the_page(), encoding="utf-8")
    (page / "page.ts").write_text(snippets("ts")[0], encoding="utf-8")
    files = ["declarations.ts", "correct.ts", "wrong.ts", "page/page.ts"]
    (folder / "tsconfig.json").write_text(json.dumps({"compilerOptions": OPTIONS, "files": files}))
    result = subprocess.run(
        [*tsc, "--project", str(folder), "--pretty", "false"],
        cwd=folder,
        env={**os.environ, "HOME": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    found: dict[str, list[int]] = {file: [] for file in files}
    for line in result.stdout.splitlines():
        if match := re.match(r"(?P<file>[^\s(]+)\((?P<line>\d+),\d+\): error TS", line):
            found[match["file"]].append(int(match["line"]))
        else:  # what explains an error is indented
            assert line.startswith(" "), result.stdout
    print(result.stdout)  # shown where a test fails
    return found


@pytest.mark.parametrize("file", ["declarations.ts", "correct.ts", "page/page.ts"])
def test_what_is_right_passes(mistakes: dict[str, list[int]], file: str) -> None:
    assert mistakes[file] == []


def test_every_wrong_use_is_found_where_it_is(mistakes: dict[str, list[int]]) -> None:
    lines = (PROGRAMS / "wrong.ts").read_text().splitlines()
    wrong = [number for number, line in enumerate(lines, 1) if number > 1 and "; // " in line]
    assert sorted(set(mistakes["wrong.ts"])) == wrong


def test_the_page_shows_what_is_written() -> None:
    shown = snippets("ts")[1]
    assert shown in written_for_the_page()
