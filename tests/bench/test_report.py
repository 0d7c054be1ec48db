"""The report of what became more expensive: it marks, and does not fail."""

from benchmarks.report import render


def test_what_grew_beyond_the_margin_is_marked() -> None:
    found = {"same": 100.0, "a little": 109.0, "grown": 120.0, "shrunk": 50.0, "unknown": 1.0}
    lines = render(found, dict.fromkeys(("same", "a little", "grown", "shrunk"), 100.0), margin=1.1).splitlines()[2:]
    assert [line.split()[-1] for line in lines] == ["+0%", "+9%", "+20%", "-50%", "new"]
    assert [("MORE" in line, "less" in line) for line in lines] == [
        (False, False), (False, False), (True, False), (False, True), (False, False),
    ]  # fmt: skip
