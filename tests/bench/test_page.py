"""The page of results has every benchmark that was measured, its ratios and its verdicts."""

from typing import Any

from benchmarks import actors
from benchmarks.page import read_runs, section

_COLD = "cold start over HTTP"


def _document(figures: dict[str, dict[str, float]]) -> dict[str, Any]:
    runs = [
        {"pair": 0, "case": _COLD, "peer": peer, "figures": found, "histograms": {}} for peer, found in figures.items()
    ]
    return {
        "benchmark": "actors",
        "date": "2026-01-02T03:04:05Z",
        "machine": {"load average": "0.10"},
        "settings": {"seconds": 1.0},
        "runs": runs,
    }


_DOCUMENTS = [
    _document({"trivet": {"p50_us": 1000.0, "cold_to_warm": 2.0}, "rivetkit": {"p50_us": 50_000.0}}),
    _document({"trivet": {"p50_us": 3000.0, "cold_to_warm": 3.0}}),
]


def test_documents_of_one_benchmark_are_one_set_of_pairs() -> None:
    assert [(run.pair, run.peer) for run in read_runs(_DOCUMENTS)] == [(0, "trivet"), (0, "rivetkit"), (1, "trivet")]


def test_a_section_has_medians_ratios_and_verdicts() -> None:
    text = section(actors.BENCHMARK, _DOCUMENTS, "plot.png")
    assert "| trivet | 2 | 2,000 |" in text
    assert "| *trivet / rivetkit* | 1 | x 0.02 |" in text
    assert "| cold start / warm call, same HTTP connection | at most 3 | 2.50 | met |" in text
    assert "not measured" in text
    assert "![actors](plot.png)" in text
