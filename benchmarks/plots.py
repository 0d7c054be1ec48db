"""The plot of a benchmark's results: a bar for each peer and case, and the distributions of latencies."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trivet.bench.figures import Histogram, median, number

if TYPE_CHECKING:
    from benchmarks.harness import Benchmark, Run


def plot_runs(benchmark: "Benchmark", runs: "Sequence[Run]", path: Path) -> str:
    """Draw into a PNG file; returns what to tell the user."""
    if importlib.util.find_spec("matplotlib") is None:
        return "no plot: matplotlib is not installed, `pip install --group bench`"
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    cases = list(dict.fromkeys(run.case for run in runs))
    figure, axes = plt.subplots(len(cases), 2, figsize=(13, 2.6 * len(cases) + 0.8), squeeze=False)
    column = next(c for c in benchmark.columns if c.name == benchmark.plotted)
    for (bars, curves), case in zip(axes, cases, strict=True):
        own = [run for run in runs if run.case == case]
        peers = list(dict.fromkeys(run.peer for run in own))
        values = {
            peer: median([r.figures[column.name] for r in own if r.peer == peer and column.name in r.figures])
            for peer in peers
        }
        shown = {peer: value for peer, value in values.items() if value == value}
        colors = ["tab:blue" if peer.startswith("trivet") else "lightgray" for peer in shown]
        drawn = bars.barh(list(shown), list(shown.values()), color=colors)
        bars.bar_label(drawn, [f" {number(value)}" for value in shown.values()], fontsize=8)
        bars.invert_yaxis()
        bars.set_title(f"{case}: {column.heading}", fontsize=9)
        bars.margins(x=0.15)
        if shown and max(shown.values()) > 50 * min(shown.values()) > 0:
            bars.set_xscale("log")
        _draw_curves(curves, own, peers)
    figure.suptitle(f"{benchmark.name}: medians of {max(run.pair for run in runs) + 1} interleaved runs")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return f"plot: {path}"


def _draw_curves(axis, runs: "Sequence[Run]", peers: Sequence[str]) -> None:  # type: ignore[no-untyped-def]  # matplotlib's Axes
    """The share of messages that took longer than so much, as HDR histograms are drawn."""
    empty = True
    for index, peer in enumerate(peers):
        names = dict.fromkeys(name for run in runs if run.peer == peer for name in run.histograms)
        for style, name in zip(("-", "--"), names, strict=False):
            merged = Histogram()
            for run in runs:
                if run.peer == peer and name in run.histograms:
                    merged.add(Histogram.from_json(run.histograms[name]))
            points = [(1 / (1 - share), value / 1e3) for value, share in merged.points() if share < 1]
            if points:
                empty = False
                width = 2.0 if peer.startswith("trivet") else 0.9
                label = peer if style == "-" else f"{peer}, {name}"
                axis.plot(*zip(*points, strict=True), style, color=f"C{index % 10}", label=label, linewidth=width)
    if empty:
        axis.axis("off")
        return
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks([1, 2, 10, 100, 1000], ["0 %", "50 %", "90 %", "99 %", "99.9 %"], fontsize=8)
    axis.set_ylabel("us", fontsize=8)
    axis.set_title("latency by percentile", fontsize=9)
    axis.legend(fontsize=5, ncols=2)
