"""The program of docs/testing.md runs as it stands."""

import re
from pathlib import Path


def test_the_program_of_the_page_runs() -> None:
    page = Path(__file__).parent.parent.parent / "docs" / "testing.md"
    programs = re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    assert programs
    for program in programs:
        exec(compile(program, str(page), "exec"), {"__name__": "testing_page"})
