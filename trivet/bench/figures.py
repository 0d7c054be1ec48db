"""Numbers of many runs, how they are counted, and the table that shows them."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median as _median
from typing import Final

_SUB_BITS: Final = 7
_SUB_BUCKETS: Final = 1 << _SUB_BITS


class Histogram:
    """Counts of whole numbers in buckets that are at most 1/128 of their value wide (an HDR histogram)."""

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self._counts = dict(counts or {})

    @classmethod
    def of(cls, values: Iterable[int]) -> "Histogram":
        """Of values that are not negative."""
        histogram = cls()
        counts = histogram._counts
        for value in values:
            shift = max(value.bit_length() - _SUB_BITS - 1, 0)
            bucket = (shift << _SUB_BITS) + (value >> shift)
            counts[bucket] = counts.get(bucket, 0) + 1
        return histogram

    @property
    def count(self) -> int:
        """How many values."""
        return sum(self._counts.values())

    def add(self, other: "Histogram") -> None:
        """Count the values of another one too."""
        for bucket, count in other._counts.items():
            self._counts[bucket] = self._counts.get(bucket, 0) + count

    def percentile(self, percent: float) -> float:
        """The value that so many percent do not exceed (nearest rank), the middle of its bucket; nan when empty."""
        rank = max(self.count * percent / 100, 1)
        seen = 0
        for bucket in sorted(self._counts):
            seen += self._counts[bucket]
            if seen >= rank:
                return _middle(bucket)
        return float("nan")

    def points(self) -> list[tuple[float, float]]:
        """For a plot: each value that occurs, and the share of values up to and with it."""
        total, seen = self.count, 0
        points: list[tuple[float, float]] = []
        for bucket in sorted(self._counts):
            seen += self._counts[bucket]
            points.append((_middle(bucket), seen / total))
        return points

    def to_json(self) -> list[tuple[int, int]]:
        """Pairs of bucket and count; `from_json` reads them."""
        return sorted(self._counts.items())

    @classmethod
    def from_json(cls, pairs: Iterable[Sequence[int]]) -> "Histogram":
        """What `to_json` wrote."""
        return cls({pair[0]: pair[1] for pair in pairs})


def _middle(bucket: int) -> float:
    # Values below 256 have a bucket each; above, a power of two has 128.
    shift = max((bucket >> _SUB_BITS) - 1, 0)
    low = (bucket - (shift << _SUB_BITS)) << shift
    return low + ((1 << shift) - 1) / 2


def median(values: Sequence[float]) -> float:
    """The middle one; nan when there is none."""
    return _median(values) if values else float("nan")


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent do not exceed (nearest rank). `ordered` is sorted and not empty."""
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(int(rank), 1) - 1]


def table(rows: Sequence[Sequence[str]], left: int = 2) -> str:
    """Aligned columns under a header row: the first `left` to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) if index < left else cell.rjust(width) for index, (cell, width) in enumerate(line))
        for line in (list(zip(row, widths, strict=True)) for row in rows)
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)


def number(value: float) -> str:
    """With three significant digits below a thousand, and whole with separators above."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
