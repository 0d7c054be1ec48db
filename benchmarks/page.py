"""The page of results: docs/benchmarks.md and its plots, from the JSON that the benchmarks wrote.

python -m benchmarks.page benchmarks/results/*.json
"""

import argparse
import json
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for `python benchmarks/page.py`

import attrs

from benchmarks import actions, actors, contention, fanout
from benchmarks.harness import Benchmark, Column, Line, Run, Verdict, judge, parse, summarise
from benchmarks.plots import plot_runs
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
SDK for Node.js (which starts too few actors in the time of a measurement for their memory to be told); an actor of
trivet is held in the server's own process, and nothing is replicated.
"""


_LIMITS: Final = """\
## What is not met, and why

* **A single round trip** takes somewhat more than twice that of the same bytes echoed by C or by Trio, and less than
  twice that of a loop in Python. What a reader receives another task answers: an actor has an inbox and turns. That
  alone, a bare Trio task that gets the bytes through a memory channel and sends them back, takes half as much again as
  an echo by the reader ("echo-trio-channel"). A frame to parse, JSON both ways, types and the turn come on top of it.
* **Resumable sessions** cost a quarter more where events come singly, and several times as much with 64 in flight,
  where a delivery is all but free without them: each client's acknowledgements have to be read, one for 512 events.

With one event in flight trivet, picows, nchan and the floor all make one system call for each delivery, and most of the
time is the kernel's. Calling `write()` from Python costs 5 to 11 % more than `send()` from C, measured alone;
`socket.send`, `os.write` and ctypes cost more. The rest is what an actor does and a relay does not: an action with its
answer, an event checked, encoded and framed, a pause each millisecond for other tasks.

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


def _case_table(benchmark: Benchmark, lines: Sequence[Line]) -> str:
    """A row for each peer; under them, trivet's ratios to each."""
    used = [column for column in benchmark.columns if any(column.name in line.figures for line in lines)]
    rows = [["", "pairs", *(column.heading for column in used)]]
    for line in lines:
        ratio = line.reference is not None
        label = f"*{line.peer} / {line.reference}*" if ratio else line.peer
        cells = [_cell(column, line.figures.get(column.name), ratio=ratio) for column in used]
        rows.append([label, str(line.pairs), *cells])
    return _table(rows, 1)


def _verdicts_table(verdicts: Sequence[Verdict]) -> str:
    rows = [["aim", "", "figure", ""]]
    for verdict in verdicts:
        target = verdict.target
        bound = f"at {'least' if target.at_least else 'most'} {target.bound:.4g}"
        if verdict.figure is None:
            rows.append([target.text, bound, "", "not measured"])
        else:
            rows.append([target.text, bound, number(verdict.figure), "met" if verdict.met else "**not met**"])
    return _table(rows, 2)


def read_runs(documents: Sequence[Mapping[str, Any]]) -> list[Run]:
    """The runs of several documents of one benchmark; each has its own pairs."""
    runs: list[Run] = []
    for document in documents:
        first = max((run.pair for run in runs), default=-1) + 1
        runs += [attrs.evolve(run, pair=first + run.pair) for run in (Run(**fields) for fields in document["runs"])]
    return runs


def section(benchmark: Benchmark, documents: Sequence[Mapping[str, Any]], plot: str | None) -> str:
    """One benchmark's part of the page."""
    runs = read_runs(documents)
    lines = summarise(benchmark, benchmark.cases(parse(benchmark, [])), runs)
    seconds = sorted({document["settings"]["seconds"] for document in documents})
    loads = [document["machine"]["load average"] for document in documents]
    text = f"## {_TITLES[benchmark.name]}\n\n{textwrap.fill(f'{benchmark.description} {benchmark.notes}', 118)}\n\n"
    text += f"{max(document['date'] for document in documents)[:10]}; each measurement took"
    text += f" {' or '.join(f'{s:g}' for s in seconds)} s; the load average of the whole machine at the end was"
    text += f" {', '.join(loads)}.\n\n"
    if benchmark.targets:
        text += _verdicts_table(judge(benchmark.targets, runs)) + "\n"
    for case in dict.fromkeys(line.case for line in lines):
        own = [line for line in lines if line.case == case]
        text += f"### {case[0].upper()}{case[1:]}\n\n{_case_table(benchmark, own)}\n"
    if benchmark.name == "actors":
        text += _PUBLISHED + "\n"
    if plot is not None:
        text += f"![{benchmark.name}]({plot})\n\n"
    return text


def main() -> int:
    """Run as a command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("results", nargs="+", type=Path, metavar="JSON")
    parser.add_argument("--note", default="", help="a sentence on the machine and what else it did")
    arguments = parser.parse_args()
    documents = [json.loads(path.read_text()) for path in arguments.results]
    text, about = _INTRODUCTION, dict[str, Any]()
    for benchmark in _BENCHMARKS:
        own = [document for document in documents if document["benchmark"] == benchmark.name]
        if not own:
            continue
        for document in own:
            about |= document["machine"]
        plot = _DOCS / f"benchmarks-{benchmark.name}.png"
        drawn = plot_runs(benchmark, read_runs(own), plot)
        print(drawn)
        text += section(benchmark, own, plot.name if plot.exists() else None)
    about.pop("load average", None)
    text += _LIMITS + "## Where\n\n" + ", ".join(f"{name} {value}" for name, value in about.items())
    text += f".\n\n{arguments.note}\n\n{_AGAIN}" if arguments.note else f".\n\n{_AGAIN}"
    (_DOCS / "benchmarks.md").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
