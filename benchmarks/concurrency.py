"""Many queries at once: what do they cost, beside what people use for that?

    python benchmarks/concurrency.py [--connections N] [--rounds N] [--only CLIENT] [--plot FILE]

Every client is a process of its own (``clients.py``) with so many connections, each of
which runs ``select 1`` over a unix socket, one after the other. The rounds are
interleaved, in an order shuffled anew; ratios are formed within a round. CPU is the
client's process time, user and system.

Needs ``pip install -e '.[binary,test,bench]'``.
"""

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import RenderableType

from benchmarks.clients import CLIENTS
from benchmarks.figures import Goal, Row, digits, goal_table, positive, time_text
from benchmarks.measure import Sample, Spread
from benchmarks.processes import ClientProcess
from benchmarks.runner import run
from tools.postgres import Server

__all__ = ["main"]

_QUERIES = 6400  # of all connections together, in one round
# The most of a peer's CPU time that a client of ours may use.
_GOALS = {
    "hub": {"psycogreen": 0.70, "asyncpg-uvloop": 0.75},
    "gevent": {"psycogreen": 0.80},
    "aio": {"asyncpg": 0.60, "psycopg3": 0.45, "aiopg": 0.90},
    "aio-uvloop": {"asyncpg-uvloop": 1.10},
}


def _samples(
    names: Sequence[str], connections: int, rounds: int, dsn: str
) -> dict[str, list[Sample]]:
    queries = max(1, _QUERIES // connections)
    processes: dict[str, ClientProcess] = {}
    samples: dict[str, list[Sample]] = {name: [] for name in names}
    try:
        for name in names:
            processes[name] = ClientProcess(name, connections, dsn)
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
    cells = (
        time_text(cpu.median),
        f"{digits(cpu.p10 * 1e6)} - {digits(cpu.p90 * 1e6)}",
        f"{per_second.median:,.0f}",
    )
    return Row(CLIENTS[name].title, cells)


def _ratios(samples: dict[str, list[Sample]]) -> list[Row]:
    rows = []
    for name, goals in _GOALS.items():
        for to, most in goals.items():
            if name in samples and to in samples:
                ratio = _cpu_ratio(samples, name, to)
                title = f"{CLIENTS[name].title} / {CLIENTS[to].title}"
                rows.append(Row(title, (f"{ratio:.2f}",), Goal(f"{most:.2f}", ratio <= most)))
    return rows


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
        headings = ("CPU", "10 - 90 %", "queries/s")
        tables = [goal_table(title, headings, [_row(samples, name) for name in names])]
        if ratios := _ratios(samples):
            tables.append(goal_table("CPU, as a multiple", ("",), ratios))
        return list(tables)

    return run(measure)


if __name__ == "__main__":
    sys.exit(main())
