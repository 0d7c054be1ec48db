"""Numbers of many runs, and the table that shows them."""

from collections.abc import Sequence
from statistics import median as _median


def median(values: Sequence[float]) -> float:
    """The middle one; nan when there is none."""
    return _median(values) if values else float("nan")


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent do not exceed (nearest rank). `ordered` is sorted and not empty."""
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(int(rank), 1) - 1]


def table(rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns under a header row: the first two to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) if index < 2 else cell.rjust(width) for index, (cell, width) in enumerate(line))
        for line in (list(zip(row, widths, strict=True)) for row in rows)
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)


def number(value: float) -> str:
    """With three significant digits below a thousand, and whole with separators above."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
