"""The page of results: docs/benchmarks.md and its plots, from the JSON that the benchmarks wrote.

python -m benchmarks.page benchmarks/results/*.json
"""

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for `python benchmarks/page.py`

from benchmarks import actions, actors, contention, fanout
from benchmarks.harness import Benchmark, Column
from trivet.bench.figures import number

_DOCS: Final = Path(__file__).parent.parent / "docs"
_BENCHMARKS: Final = (fanout.BENCHMARK, actions.BENCHMARK, actors.BENCHMARK, contention.BENCHMARK)
_TITLES: Final = {"fanout": "Fan-out", "actions": "Actions", "actors": "Actors", "contention": "Contention"}

_INTRODUCTION: Final = """\
# Benchmarks

What trivet costs, beside the least that the same work can cost and beside other libraries and servers.

The same load generator measures all of them, from a process of its own, with a core for itself and another for the
server. Every figure is taken in turn with those that it is compared with, pair by pair, the order alternating, and a
ratio is the median of the ratios within a pair: what else the machine does weighs on both. **CPU** is the server
process's, user and system, everything that it does included; where a server is several processes, all of them. It
varies less than time does, and is what to read where the machine had other work. The load is fast enough as long as
it is idle at times: its share of a core stands in the last column, with a '!' where it may be what was measured.
Events and answers are all checked, by content, number and order; a run in which one is lost or doubled has no figures.

Floors are what the operating system asks for the same bytes and nothing else: for a fan-out one non-blocking `send()`
of a ready frame for each delivery, for calls a `recv()` and a `send()`, in C (`benchmarks/floor.c`) and in Python.
Where several events are on their way at once, trivet sends a connection all that waits for it in one `send()`; that
is how it comes to cost less than the floor.

One's own actor is measured with the same load, from an installed package and without a compiler, beside the floor in
Python:

```bash
trivet bench chat_room:registry ChatRoom.send_message --args '["bob", "hi"]' --event message_received --subscribers 1000
trivet bench chat_room:registry ChatRoom.send_message --args '["bob", "hi"]'    # calls alone
```

"""

_AGAIN: Final = """\
## Making it again

```bash
pip install -e . --group bench                                # what is not installed is left out, and said
npm install --no-save --prefix tests/interop                  # RivetKit, its engine, ws
npm install --no-save --prefix benchmarks                     # Socket.IO
for name in fanout actions actors contention; do
    python -m benchmarks.$name --pin --json benchmarks/results/$name.json --plot benchmarks/results/$name.png
done
python -m benchmarks.page benchmarks/results/*.json
```

Each takes ten minutes at most; `--full` runs the whole matrix (1 to 10,000 subscribers, 1, 8 and 64 events in flight,
32 bytes to 16 KiB, every encoding), `--help` has the rest. Peers that are compared where they are installed: a C
compiler, Node.js, nginx with its nchan module.

What needs no quiet machine is a count of calls of functions for each kind of work, which repeats within a few percent
beside any load; it is compared with `benchmarks/counts.json`:

```bash
python -m benchmarks.report
```
"""

_PUBLISHED: Final = """\
RivetKit publishes figures of its own ([rivet.dev](https://rivet.dev/), read in November 2026): a cold start of 6.92 ms
p50 and 8.11 ms p99, the round trip from a request to the first reply of a newly created actor, on a cluster of three
zones; and 72.4 KB for a running actor, by the growth of resident memory, with its SDK for Rust. "Cold start over HTTP"
is measured by the first definition and KiB/actor by the second, here on one machine, with RivetKit's engine and its
SDK for Node.js; an actor of trivet is held in the server's own process, and nothing is replicated.
"""


def _cell(column: Column, value: float | None, *, ratio: bool) -> str:
    if value is None:
        return ""
    if ratio:
        return f"x {value:.2f}"
    return f"{value:.0%}" if column.share else number(value)


def _table(rows: Sequence[Sequence[str]], left: int) -> str:
    head, *body = rows
    rule = ["---" if index < left else "---:" for index in range(len(head))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *body)) + "\n"


def _case_table(benchmark: Benchmark, lines: Sequence[Mapping[str, Any]]) -> str:
    """A row for each peer; under it, trivet's ratio to it."""
    used = [column for column in benchmark.columns if any(column.name in line["figures"] for line in lines)]
    rows = [["", *(column.heading for column in used)]]
    for line in lines:
        ratio = line["reference"] is not None
        label = f"*{line['peer']} / {line['reference']}*" if ratio else str(line["peer"])
        rows.append([label, *(_cell(column, line["figures"].get(column.name), ratio=ratio) for column in used)])
    return _table(rows, 1)


def _targets_table(targets: Sequence[Mapping[str, Any]]) -> str:
    rows = [["aim", "", "figure", ""]]
    for verdict in targets:
        target = verdict["target"]
        bound = f"{'at least' if target['at_least'] else 'at most'} {target['bound']:.4g}"
        rows.append([target["text"], bound, number(verdict["figure"]), "met" if verdict["met"] else "**not met**"])
    return _table(rows, 2)


def section(benchmark: Benchmark, document: Mapping[str, Any], plot: str | None) -> str:
    """One benchmark's part of the page."""
    settings = document["settings"]
    pairs = sorted({line["pairs"] for line in document["summary"]})
    shown = f"{pairs[0]} to {pairs[-1]}" if len(pairs) > 1 else str(pairs[0])
    text = f"## {_TITLES[benchmark.name]}\n\n{benchmark.description} {benchmark.notes}\n\n"
    text += f"{document['date'][:10]}, {shown} interleaved pairs of {settings['seconds']:g} s each"
    text += f", at a load average of {document['machine']['load average']} when it ended.\n\n"
    if document["targets"]:
        text += _targets_table(document["targets"]) + "\n"
    for case in dict.fromkeys(line["case"] for line in document["summary"]):
        lines = [line for line in document["summary"] if line["case"] == case]
        text += f"### {case[0].upper()}{case[1:]}\n\n{_case_table(benchmark, lines)}\n"
    if benchmark.name == "actors":
        text += _PUBLISHED + "\n"
    if plot is not None:
        text += f"![{benchmark.name}]({plot})\n\n"
    if document["skipped"]:
        missing = "; ".join(f"{what} ({str(why).splitlines()[0][:60]})" for what, why in document["skipped"].items())
        text += f"Not measured: {missing}.\n\n"
    return text


def main() -> int:
    """Run as a command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("results", nargs="+", type=Path, metavar="JSON")
    arguments = parser.parse_args()
    documents = {json.loads(path.read_text())["benchmark"]: path for path in arguments.results}
    text, about = _INTRODUCTION, dict[str, Any]()
    for benchmark in _BENCHMARKS:
        path = documents.get(benchmark.name)
        if path is None:
            continue
        document = json.loads(path.read_text())
        about |= document["machine"]
        plot = path.with_suffix(".png")
        name = None
        if plot.exists():
            name = f"benchmarks-{benchmark.name}.png"
            shutil.copy(plot, _DOCS / name)
        text += section(benchmark, document, name)
    about.pop("load average", None)
    text += "## Where\n\n" + ", ".join(f"{name} {value}" for name, value in about.items()) + ".\n\n" + _AGAIN
    (_DOCS / "benchmarks.md").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
