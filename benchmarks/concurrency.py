"""Many queries at once: what do they cost, beside what people use for that?

    python benchmarks/concurrency.py [--connections N] [--rounds N] [--only CLIENT]
                                     [--plot FILE] [--json FILE]

Every client is a process of its own (``clients.py``) with so many connections, each of
which runs ``select 1`` over a unix socket, one after the other. The rounds are
interleaved, in an order shuffled anew; ratios are formed within a round. CPU is the
client's process time, user and system.

Needs ``pip install -e '.[binary,test,bench]'``.
"""

import argparse
import importlib.metadata
import json
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import RenderableType

from benchmarks.clients import CLIENTS
from benchmarks.figures import Goal, Row, digits, goal_table, positive, time_text
from benchmarks.measure import Sample, Spread
from benchmarks.plots import client_bars
from benchmarks.processes import ClientProcess
from benchmarks.runner import run
from tools.postgres import Server

__all__ = ["main"]

_QUERIES = 6400  # of all connections together, in one round
_PEERS = ("aiopg", "asyncpg", "eventlet", "psycopg", "uvloop")
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


def _cpu_ratio(samples: Mapping[str, list[Sample]], name: str, to: str) -> float:
    pairs = zip(samples[name], samples[to], strict=True)
    return Spread.of([own.cpu_seconds / other.cpu_seconds for own, other in pairs]).median


def _cpu(samples: Sequence[Sample]) -> Spread:
    return Spread.of([each.cpu_seconds for each in samples])


def _per_second(samples: Sequence[Sample]) -> Spread:
    return Spread.of([1 / each.seconds for each in samples])


def _row(name: str, samples: Sequence[Sample]) -> Row:
    cpu = _cpu(samples)
    cells = (
        time_text(cpu.median),
        f"{digits(cpu.p10 * 1e6)} - {digits(cpu.p90 * 1e6)}",
        f"{_per_second(samples).median:,.0f}",
    )
    return Row(CLIENTS[name].title, cells)


def _ratios(samples: Mapping[str, list[Sample]]) -> list[Row]:
    rows = []
    for name, goals in _GOALS.items():
        for to, most in goals.items():
            if name in samples and to in samples:
                ratio = _cpu_ratio(samples, name, to)
                title = f"{CLIENTS[name].title} / {CLIENTS[to].title}"
                rows.append(Row(title, (f"{ratio:.2f}",), Goal(f"{most:.2f}", ratio <= most)))
    return rows


def _write_json(
    samples: Mapping[str, list[Sample]], facts: Mapping[str, Mapping[str, str]], path: Path
) -> None:
    """Write every figure and every sample. Times are in seconds, per query."""
    document = {
        "format": 1,
        **facts,
        "clients": {
            name: {
                "title": CLIENTS[name].title,
                "is_greenwait": CLIENTS[name].is_greenwait,
                "cpu_seconds": asdict(_cpu(own)),
                "queries_per_second": asdict(_per_second(own)),
                "samples": [asdict(sample) for sample in own],
            }
            for name, own in samples.items()
        },
        "ratios": [
            {"title": row.title, "cpu": row.cells[0], "goal": row.goal.text if row.goal else None}
            for row in _ratios(samples)
        ],
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _plot(samples: Mapping[str, list[Sample]], connections: int, path: Path) -> None:
    bars = [
        (CLIENTS[name].title, _cpu(own).median, CLIENTS[name].is_greenwait)
        for name, own in samples.items()
    ]
    client_bars(bars, connections).savefig(path, dpi=160)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description="Compare the ways to run many queries at once.")
    parser.add_argument("--connections", metavar="N", type=positive, default=32)
    parser.add_argument("--rounds", metavar="N", type=positive, default=30)
    parser.add_argument("--only", metavar="CLIENT", action="append", choices=CLIENTS)
    parser.add_argument("--plot", metavar="FILE", type=Path, help="write a PNG")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures and samples")
    options = parser.parse_args(arguments)

    samples: dict[str, list[Sample]] = {}

    def measure(server: Server) -> list[RenderableType]:
        names = options.only or list(CLIENTS)
        samples.update(_samples(names, options.connections, options.rounds, server.dsn("unix")))
        title = f"select 1 on {options.connections} connections at once, a query"
        headings = ("CPU", "10 - 90 %", "queries/s")
        tables = [goal_table(title, headings, [_row(*each) for each in samples.items()])]
        if ratios := _ratios(samples):
            tables.append(goal_table("CPU, as a multiple", ("",), ratios))
        return list(tables)

    def write(machine: dict[str, str], versions: dict[str, str]) -> None:
        if options.plot is not None:
            _plot(samples, options.connections, options.plot)
        if options.json is not None:
            peers = {name: importlib.metadata.version(name) for name in _PEERS}
            settings = {
                "connections": str(options.connections),
                "rounds": f"{options.rounds} of {_QUERIES} queries",
            }
            facts = {"machine": machine, "versions": versions | peers, "settings": settings}
            _write_json(samples, facts, options.json)

    return run(measure, write)


if __name__ == "__main__":
    sys.exit(main())
