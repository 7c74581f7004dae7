"""Compare what many queries at once cost, beside what people use for that.

    python benchmarks/concurrency.py [--connections N]... [--pgbouncer] [--rounds N]
                                     [--only CLIENT]... [--plot FILE] [--json FILE]

Every client is a process of its own (``clients.py``) with so many connections, each of
which runs ``select 1`` over a unix socket, one after the other. The rounds are
interleaved, in an order shuffled anew; ratios are formed within a round. CPU is the
client's process time, user and system.

Several numbers of connections are compared with each other. For a thousand, put a PgBouncer
between them and the server, which is not made for so many (Debian has it as ``pgbouncer``).
The memory is what the process grows by as it begins to wait on all its connections, for each.

Needs ``pip install -e '.[binary,test,bench]'``.
"""

import argparse
import contextlib
import json
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.table import Table

from benchmarks.clients import CLIENTS
from benchmarks.figures import digits, goal, positive, table_of, time_text
from benchmarks.measure import Sample, Spread
from benchmarks.plots import client_bars, svg_text
from benchmarks.runner import run
from tests.lab import pgbouncer
from tests.lab.postgres import Server

_QUERIES = 6400  # of all connections together, in one round
_FEWEST = 50  # of each connection
# The most of a peer's CPU time that a client of ours may use.
_GOALS = {
    "hub": {"psycogreen": 0.70, "asyncpg-uvloop": 0.75},
    "gevent": {"psycogreen": 0.80},
    "aio": {"asyncpg": 0.60, "psycopg3": 0.45, "aiopg": 0.90},
    "aio-uvloop": {"asyncpg-uvloop": 1.10},
}
_MOST_OF_FEW = 1.2  # with a thousand connections, of the CPU time with the fewest


class _Case(NamedTuple):
    client: str
    connections: int

    @property
    def queries(self) -> int:
        """How many each connection runs in a round."""
        return max(_FEWEST, _QUERIES // self.connections)


class _Process:
    """A client, connected and waiting for work."""

    def __init__(self, case: _Case, dsn: str) -> None:
        program = str(Path(__file__).with_name("clients.py"))
        command = [sys.executable, "-W", "ignore", program, case.client, str(case.connections), dsn]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        self._case = case
        self.kb = int(self._answer()) / case.connections

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the client {self._case.client} has ended: {self._process.wait()}")
        return line

    def run(self) -> Sample:
        """Run the queries of a round; return what one of them took."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{self._case.queries}\n")
        self._process.stdin.flush()
        found = json.loads(self._answer())
        total = self._case.queries * self._case.connections
        return Sample(total, found["seconds"] / total, found["cpu_seconds"] / total)

    def end(self) -> None:
        """Kill it."""
        self._process.kill()
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()


_Figures = Mapping[_Case, dict[str, Any]]


def _measure(cases: Sequence[_Case], rounds: int, dsn: str) -> _Figures:
    """Return the figures of each, and the samples that they are from. Times are in seconds."""
    processes: dict[_Case, _Process] = {}
    samples: dict[_Case, list[Sample]] = {case: [] for case in cases}
    with contextlib.ExitStack() as cleanup:
        for case in cases:
            processes[case] = _Process(case, dsn)
            cleanup.callback(processes[case].end)
            processes[case].run()  # the warm-up
        for _ in range(rounds):
            for case in random.sample(cases, len(cases)):
                samples[case].append(processes[case].run())
    return {
        case: {
            "title": CLIENTS[case.client].title,
            "is_greenwait": CLIENTS[case.client].is_greenwait,
            "cpu_seconds": asdict(Spread.of([each.cpu_seconds for each in own])),
            "queries_per_second": asdict(Spread.of([1 / each.seconds for each in own])),
            "kb": processes[case].kb,
            "samples": [asdict(each) for each in own],
        }
        for case, own in samples.items()
    }


def _ratios(found: _Figures) -> Iterator[dict[str, str]]:
    """Yield what is compared, the ratio of the CPU times, and the most that it should be."""
    few = min(case.connections for case in found)
    pairs = [
        (_Case(name, few), _Case(peer, few), f"{CLIENTS[name].title} / {CLIENTS[peer].title}", most)
        for name, goals in _GOALS.items()
        for peer, most in goals.items()
    ]
    for case in found:
        if case.connections > few:
            title = f"{CLIENTS[case.client].title}, {case.connections:,} connections / {few}"
            pairs.append((case, _Case(case.client, few), title, _MOST_OF_FEW))
    for case, to, title, most in pairs:
        if case in found and to in found:
            both = zip(found[case]["samples"], found[to]["samples"], strict=True)
            ratio = median(own["cpu_seconds"] / other["cpu_seconds"] for own, other in both)
            yield {"title": title, "cpu": f"{ratio:.2f}", "goal": f"{most:.2f}"}


def _tables(found: _Figures, ratios: Sequence[dict[str, str]]) -> Iterator[Table]:
    rows = []
    for case, own in found.items():
        cpu = own["cpu_seconds"]
        spread = f"{digits(cpu['p10'] * 1e6)} - {digits(cpu['p90'] * 1e6)}"
        per_second = f"{own['queries_per_second']['median']:,.0f}"
        cells = (time_text(cpu["median"]), spread, per_second, digits(own["kb"]))
        rows.append((own["title"], str(case.connections), *cells))
    headings = ("connections", "CPU", "10 - 90 %", "queries/s", "KB each")
    yield table_of("select 1 on many connections at once, a query", headings, rows)
    if ratios:
        compared = []
        for title, cpu, most in map(dict.values, ratios):
            compared.append((title, cpu, goal(most, float(cpu) <= float(most))))
        yield table_of("CPU, as a multiple", ("", "goal"), compared)


def main() -> None:
    """Measure, print the tables, and write what was asked for."""
    parser = argparse.ArgumentParser(description="Compare the ways to run many queries at once.")
    parser.add_argument("--connections", metavar="N", type=positive, action="append")
    parser.add_argument("--pgbouncer", action="store_true", help="put one before the server")
    parser.add_argument("--rounds", metavar="N", type=positive, default=30)
    parser.add_argument("--only", metavar="CLIENT", action="append", choices=CLIENTS)
    parser.add_argument("--plot", metavar="FILE.svg", type=Path)
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures and samples")
    options = parser.parse_args()
    counts = options.connections or [32]
    program = pgbouncer.find_program()
    if options.pgbouncer and program is None:
        parser.error(f"there is no PgBouncer here: {pgbouncer.HOW_TO_INSTALL}")
    cases = [_Case(name, count) for name in options.only or CLIENTS for count in counts]
    document: dict[str, Any] = {"format": 1}

    def measure(server: Server) -> list[Table]:
        with contextlib.ExitStack() as cleanup:
            dsn = server.dsn("unix")
            if options.pgbouncer and program is not None:
                dsn = cleanup.enter_context(pgbouncer.pooled(program, server, "transaction"))
            found = _measure(cases, options.rounds, dsn)
        few = min(counts)
        clients = {case.client: own for case, own in found.items() if case.connections == few}
        document.update(clients=clients, ratios=[*_ratios(found)])
        return [*_tables(found, document["ratios"])]

    facts = run(measure)
    rounds = f"{options.rounds} of {_QUERIES} queries"
    facts["settings"] = {"connections": str(min(counts)), "rounds": rounds}
    if options.json is not None:
        text = json.dumps(document | facts, indent=1) + "\n"
        options.json.write_text(text, encoding="utf-8")
    if options.plot is not None:
        figure = client_bars([*document["clients"].values()], str(min(counts)))
        options.plot.write_text(svg_text(figure), encoding="utf-8")


if __name__ == "__main__":
    main()
