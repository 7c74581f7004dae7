"""Many queries at once: what do they cost, beside what people use for that?

    python benchmarks/concurrency.py [--connections N] [--rounds N] [--only CLIENT] [--plot FILE]

Every client is a process of its own (``clients.py``) with so many connections, each of
which runs ``select 1`` over a unix socket, one after the other. The rounds are
interleaved, in an order shuffled anew; ratios are formed within a round. CPU is the
client's process time, user and system.

Needs ``pip install -e '.[binary,test,bench]'``.
"""

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import RenderableType

from benchmarks.clients import CLIENTS
from benchmarks.figures import Goal, Row, goal_table, positive, time_text
from benchmarks.measure import Sample, Spread
from benchmarks.runner import run
from tools.postgres import Server

__all__ = ["main"]

_QUERIES = 6400  # of all connections together, in one round
# What the CPU time is compared with; the columns' headings.
_PEERS = {"psycogreen": "of psycogreen", "asyncpg-uvloop": "of uvloop"}
# The most of a peer's CPU time that a client of ours may use.
_GOALS = {
    "hub": {"psycogreen": 0.70, "asyncpg-uvloop": 0.75},
    "gevent": {"psycogreen": 0.80},
}


class _Process:
    """A client, connected and waiting for work."""

    def __init__(self, name: str, connections: int, dsn: str) -> None:
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-W", "ignore"),
                str(Path(__file__).with_name("clients.py")),
                *(name, str(connections), dsn),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._name = name
        self._connections = connections

    def run(self, queries: int) -> Sample:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{queries}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the client {self._name} has ended: {self._process.wait()}")
        found: dict[str, Any] = json.loads(line)
        total = queries * self._connections
        return Sample(total, found["seconds"] / total, found["cpu_seconds"] / total)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


def _samples(
    names: Sequence[str], connections: int, rounds: int, dsn: str
) -> dict[str, list[Sample]]:
    queries = max(1, _QUERIES // connections)
    processes: dict[str, _Process] = {}
    samples: dict[str, list[Sample]] = {name: [] for name in names}
    try:
        for name in names:
            processes[name] = _Process(name, connections, dsn)
            processes[name].run(queries)  # the warm-up
        for _ in range(rounds):
            for name in random.sample(names, len(names)):
                samples[name].append(processes[name].run(queries))
    finally:
        for each in processes.values():
            each.end()
    return samples


def _cpu_ratio(samples: dict[str, list[Sample]], name: str, to: str) -> float:
    pairs = zip(samples[name], samples[to], strict=True)
    return Spread.of([own.cpu_seconds / other.cpu_seconds for own, other in pairs]).median


def _row(samples: dict[str, list[Sample]], name: str) -> Row:
    cpu = Spread.of([each.cpu_seconds for each in samples[name]])
    per_second = Spread.of([1 / each.seconds for each in samples[name]])
    ratios = {to: _cpu_ratio(samples, name, to) for to in _PEERS if to in samples}
    goals = {to: most for to, most in _GOALS.get(name, {}).items() if to in ratios}
    reached = all(ratios[to] <= most for to, most in goals.items())
    return Row(
        CLIENTS[name].title,
        (
            time_text(cpu.median),
            *[f"{ratios[to]:.2f}" if to in ratios else "" for to in _PEERS],
            f"{per_second.median:,.0f}",
        ),
        Goal(", ".join(f"{most:.2f}" for most in goals.values()), reached) if goals else None,
    )


def _plot(samples: dict[str, list[Sample]], connections: int, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(reversed(samples))
    medians = [Spread.of([each.cpu_seconds * 1e6 for each in samples[n]]).median for n in names]
    figure = Figure(figsize=(7, 0.4 * len(names) + 1.2))
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    colours = ["#16a374" if CLIENTS[name].is_greenwait else "#b8c2cc" for name in names]
    bars = axes.barh([CLIENTS[name].title for name in names], medians, color=colours)
    axes.bar_label(bars, fmt="%.1f", padding=3)
    axes.set_title(f"Client CPU per select 1, µs, {connections} connections", loc="left")
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.set_xticks([])
    figure.tight_layout()
    figure.savefig(path, dpi=160)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description="Compare the ways to run many queries at once.")
    parser.add_argument("--connections", metavar="N", type=positive, default=32)
    parser.add_argument("--rounds", metavar="N", type=positive, default=30)
    parser.add_argument("--only", metavar="CLIENT", action="append", choices=CLIENTS)
    parser.add_argument("--plot", metavar="FILE", type=Path, help="write a PNG")
    options = parser.parse_args(arguments)

    def measure(server: Server) -> list[RenderableType]:
        names = options.only or list(CLIENTS)
        samples = _samples(names, options.connections, options.rounds, server.dsn("unix"))
        if options.plot is not None:
            _plot(samples, options.connections, options.plot)
        title = f"select 1 on {options.connections} connections at once, a query"
        headings = ("CPU", *_PEERS.values(), "queries/s")
        return [goal_table(title, headings, [_row(samples, name) for name in names])]

    return run(measure)


if __name__ == "__main__":
    sys.exit(main())
