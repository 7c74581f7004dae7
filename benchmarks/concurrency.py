"""Compare what many queries at once cost, beside what people use for that.

    python benchmarks/concurrency.py [--connections N]... [--pgbouncer] [--rounds N]
                                     [--only CLIENT]... [--plot FILE] [--json FILE]

Every client is a process of its own (``clients.py``) with so many connections, each of
which runs ``select 1`` over a unix socket, one after the other. The rounds are
interleaved, in an order shuffled anew; ratios are formed within a round. CPU is the
client's process time, user and system.

Several numbers of connections are compared with each other. For a thousand, put a PgBouncer
between them and the server, which is not made for so many (Debian has it as ``pgbouncer``).

Needs ``pip install -e '.[binary,test,bench]'``.
"""

import argparse
import contextlib
import importlib.metadata
import json
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.table import Table

from benchmarks.clients import CLIENTS
from benchmarks.figures import digits, goal, positive, table_of, time_text
from benchmarks.measure import Sample, Spread
from benchmarks.plots import client_bars, svg_text
from benchmarks.runner import Facts, run
from tools import pgbouncer
from tools.postgres import Server

__all__ = ["main"]

_QUERIES = 6400  # of all connections together, in one round
_FEWEST = 50  # of each connection
_PEERS = ("aiopg", "asyncpg", "eventlet", "psycopg", "uvloop")
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

    def run(self) -> Sample:
        """Run the queries of a round; return what one of them took."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(f"{self._case.queries}\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            raise RuntimeError(f"the client {self._case.client} has ended: {self._process.wait()}")
        found = json.loads(line)
        total = self._case.queries * self._case.connections
        return Sample(total, found["seconds"] / total, found["cpu_seconds"] / total)

    def end(self) -> None:
        """Kill it."""
        self._process.kill()
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()


_Samples = Mapping[_Case, list[Sample]]


def _samples(cases: Sequence[_Case], rounds: int, dsn: str) -> _Samples:
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
    return samples


def _cpu(samples: Sequence[Sample]) -> Spread:
    return Spread.of([each.cpu_seconds for each in samples])


def _per_second(samples: Sequence[Sample]) -> Spread:
    return Spread.of([1 / each.seconds for each in samples])


def _title(case: _Case) -> str:
    return CLIENTS[case.client].title


def _ratios(samples: _Samples) -> list[tuple[str, float, float]]:
    """Return what is compared, the ratio of the CPU times, and the most that it should be."""
    few = min(case.connections for case in samples)
    pairs = [
        (_Case(name, few), _Case(peer, few), f"{CLIENTS[name].title} / {CLIENTS[peer].title}", most)
        for name, goals in _GOALS.items()
        for peer, most in goals.items()
    ]
    pairs += [
        (
            *(case, _Case(case.client, few)),
            f"{_title(case)}, {case.connections:,} connections / {few}",
            _MOST_OF_FEW,
        )
        for case in samples
        if case.connections > few
    ]
    found = []
    for case, to, title, most in pairs:
        if case in samples and to in samples:
            both = zip(samples[case], samples[to], strict=True)
            ratio = Spread.of([own.cpu_seconds / other.cpu_seconds for own, other in both]).median
            found.append((title, ratio, most))
    return found


def _tables(samples: _Samples) -> list[Table]:
    rows = []
    for case, own in samples.items():
        cpu = _cpu(own)
        spread = f"{digits(cpu.p10 * 1e6)} - {digits(cpu.p90 * 1e6)}"
        per_second = f"{_per_second(own).median:,.0f}"
        rows.append(
            (_title(case), str(case.connections), time_text(cpu.median), spread, per_second)
        )
    headings = ("connections", "CPU", "10 - 90 %", "queries/s")
    ratios = [
        (title, f"{ratio:.2f}", goal(f"{most:.2f}", ratio <= most))
        for title, ratio, most in _ratios(samples)
    ]
    return [
        table_of("select 1 on many connections at once, a query", headings, rows),
        *([table_of("CPU, as a multiple", ("", "goal"), ratios)] if ratios else []),
    ]


def _document(samples: _Samples, facts: Facts) -> dict[str, Any]:
    """Return every figure and every sample, of the fewest connections. Times are in seconds."""
    few = min(case.connections for case in samples)
    return {
        "format": 1,
        **facts,
        "clients": {
            case.client: {
                "title": _title(case),
                "is_greenwait": CLIENTS[case.client].is_greenwait,
                "cpu_seconds": asdict(_cpu(own)),
                "queries_per_second": asdict(_per_second(own)),
                "samples": [asdict(sample) for sample in own],
            }
            for case, own in samples.items()
            if case.connections == few
        },
        "ratios": [
            {"title": title, "cpu": f"{ratio:.2f}", "goal": f"{most:.2f}"}
            for title, ratio, most in _ratios(samples)
        ],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description="Compare the ways to run many queries at once.")
    parser.add_argument("--connections", metavar="N", type=positive, action="append")
    parser.add_argument("--pgbouncer", action="store_true", help="put one before the server")
    parser.add_argument("--rounds", metavar="N", type=positive, default=30)
    parser.add_argument("--only", metavar="CLIENT", action="append", choices=CLIENTS)
    parser.add_argument("--plot", metavar="FILE.svg", type=Path)
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures and samples")
    options = parser.parse_args(arguments)
    counts = options.connections or [32]
    program = pgbouncer.find_program()
    if options.pgbouncer and program is None:
        parser.error(f"there is no PgBouncer here: {pgbouncer.HOW_TO_INSTALL}")
    cases = [_Case(name, count) for name in options.only or CLIENTS for count in counts]
    samples: dict[_Case, list[Sample]] = {}

    def measure(server: Server) -> list[Table]:
        with contextlib.ExitStack() as cleanup:
            dsn = server.dsn("unix")
            if options.pgbouncer and program is not None:
                dsn = cleanup.enter_context(pgbouncer.pooled(program, server, "transaction"))
            samples.update(_samples(cases, options.rounds, dsn))
        return _tables(samples)

    def write(facts: Facts) -> None:
        peers = {name: importlib.metadata.version(name) for name in _PEERS}
        settings = {
            "connections": str(min(counts)),
            "rounds": f"{options.rounds} of {_QUERIES} queries",
        }
        facts = facts | {"versions": facts["versions"] | peers, "settings": settings}
        document = _document(samples, facts)
        if options.json is not None:
            options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        if options.plot is not None:
            figure = client_bars([*document["clients"].values()], settings["connections"])
            options.plot.write_text(svg_text(figure), encoding="utf-8")

    return run(measure, write)


if __name__ == "__main__":
    sys.exit(main())
