"""Compare what many queries at once cost, beside what people use for that.

    python benchmarks/concurrency.py [--work WORK]... [--connections N]... [--pgbouncer]
                                     [--rounds N] [--only CLIENT]... [--plot FILE] [--json FILE]

Every client is a process of its own (``clients.py``) with so many connections, each of
which queries over a unix socket, one query after the other. The rounds are
interleaved, in an order shuffled anew; ratios are formed within a round. CPU is the
client's process time, user and system.

The work is ``select 1``, or rows of an integer, a text, a timestamp, a numeric and a jsonb, or
``select 1`` on a connection that is borrowed from a pool for each. pgbench takes part where it is
found: it is what libpq costs by itself (``pgbench.py``).

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
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.table import Table

from benchmarks import pgbench
from benchmarks.clients import CLIENTS
from benchmarks.figures import digits, goal, positive, table_of, time_text
from benchmarks.measure import Sample, Spread
from benchmarks.pgbench import Pgbench
from benchmarks.plots import client_bars, svg_text
from benchmarks.runner import run
from benchmarks.statements import STATEMENTS
from tests.lab import pgbouncer
from tests.lab.postgres import Server

_POOLED = "pooled"
_PGBENCH = "pgbench"
_WORK = (*STATEMENTS, _POOLED)
_MOST_TO_SHARE = 128  # connections among which the queries of a round are divided
# The most of a peer's CPU time that a client of ours may use; None: it is only compared.
_GOALS: dict[str, dict[str, dict[str, float | None]]] = {
    "select-1": {
        "hub": {"pgbench": 1.50, "psycogreen": 0.70, "asyncpg-uvloop": 0.75},
        "gevent": {"psycogreen": 0.80},
        "aio": {"asyncpg": 0.60, "psycopg3": 0.45, "aiopg": 0.90},
        "aio-uvloop": {"asyncpg-uvloop": 0.95, "psqlpy": None},
    },
    "rows-1": {"aio-uvloop": {"asyncpg-uvloop": 0.95, "psqlpy": None}},
    "rows-100": {"aio-uvloop": {"asyncpg-uvloop": None, "psqlpy": None}},
    "rows-1000": {"aio-uvloop": {"asyncpg-uvloop": None, "psqlpy": None}},
    _POOLED: {
        "aio-pool": {"asyncpg-pool": None, "psycopg3-pool": None},
        "aio-pool-uvloop": {"asyncpg-pool-uvloop": None, "psqlpy-pool": None},
    },
}
# With so many connections at least, the most of the CPU time with the fewest; the most memory of
# one that waits.
_MOST_OF_FEW = {1_000: 1.15, 5_000: 1.30}
_MOST_KB = 8.0


class _Case(NamedTuple):
    work: str
    client: str
    connections: int

    @property
    def statement(self) -> str:
        """Return the name of what is asked."""
        return "select-1" if self.work == _POOLED else self.work

    @property
    def queries(self) -> int:
        """How many each connection runs in a round."""
        all_queries = STATEMENTS[self.statement].queries
        return max(1, all_queries // min(self.connections, _MOST_TO_SHARE))

    @property
    def title(self) -> str:
        """Return the client's."""
        return pgbench.TITLE if self.client == _PGBENCH else CLIENTS[self.client].title

    @property
    def is_greenwait(self) -> bool:
        """Whether the client is one of ours."""
        return self.client != _PGBENCH and CLIENTS[self.client].is_greenwait


def _work_title(work: str) -> str:
    if work == _POOLED:
        return "select 1, a connection borrowed for each"
    return STATEMENTS[work].title


class _Process:
    """A client, connected and waiting for work."""

    def __init__(self, case: _Case, dsn: str) -> None:
        program = str(Path(__file__).with_name("clients.py"))
        arguments = [case.client, str(case.connections), dsn, case.statement]
        command = [sys.executable, "-W", "ignore", program, *arguments]
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

    def run(self, queries: int) -> Sample:
        """Run a round of so many on each connection; return what one of them took."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{queries}\n")
        self._process.stdin.flush()
        found = json.loads(self._answer())
        total = queries * self._case.connections
        return Sample(total, found["seconds"] / total, found["cpu_seconds"] / total)

    def end(self) -> None:
        """Kill it."""
        self._process.kill()
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()


_Figures = Mapping[_Case, dict[str, Any]]


def _begin(case: _Case, dsn: str, directory: Path) -> _Process | Pgbench:
    if case.client != _PGBENCH:
        return _Process(case, dsn)
    program = pgbench.find_program()
    assert program is not None  # else it is not among the cases
    script = directory / "statement.sql"
    return Pgbench(program, script, case.connections, STATEMENTS[case.statement], dsn)


def _measure(
    cases: Sequence[_Case],
    rounds: int,
    dsn: str,
    portion: int,
    told: Callable[[int, int], object],
) -> _Figures:
    """Return the figures of each, and the samples that they are from. Times are in seconds."""
    queries = {case: max(1, case.queries // portion) for case in cases}
    clients: dict[_Case, _Process | Pgbench] = {}
    samples: dict[_Case, list[Sample]] = {case: [] for case in cases}
    with contextlib.ExitStack() as cleanup:
        directory = Path(cleanup.enter_context(tempfile.TemporaryDirectory()))
        for case in cases:
            clients[case] = _begin(case, dsn, directory)
            cleanup.callback(clients[case].end)
            clients[case].run(queries[case])  # the warm-up
        for done in range(rounds):
            for case in random.sample(cases, len(cases)):
                samples[case].append(clients[case].run(queries[case]))
            told(done + 1, rounds)
    return {
        case: {
            "title": case.title,
            "is_greenwait": case.is_greenwait,
            "cpu_seconds": asdict(Spread.of([each.cpu_seconds for each in own])),
            "queries_per_second": asdict(Spread.of([1 / each.seconds for each in own])),
            "kb": clients[case].kb,
            "samples": [asdict(each) for each in own],
        }
        for case, own in samples.items()
    }


def _ratios(work: str, found: _Figures) -> Iterator[dict[str, str]]:
    """Yield what is compared, the ratio of the CPU times, and the most that it should be."""
    few = min(case.connections for case in found)
    pairs: list[tuple[_Case, _Case, str, float | None]] = []
    for name, goals in _GOALS[work].items():
        for peer, most in goals.items():
            case, to = _Case(work, name, few), _Case(work, peer, few)
            pairs.append((case, to, f"{case.title} / {to.title}", most))
    for case in found:
        if case.connections > few:
            title = f"{case.title}, {case.connections:,} connections / {few}"
            limits = [most for least, most in _MOST_OF_FEW.items() if least <= case.connections]
            pairs.append((case, case._replace(connections=few), title, max(limits, default=None)))
    for case, to, title, most in pairs:
        if case in found and to in found:
            both = zip(found[case]["samples"], found[to]["samples"], strict=True)
            ratio = median(own["cpu_seconds"] / other["cpu_seconds"] for own, other in both)
            wanted = "" if most is None else f"{most:.2f}"
            yield {"title": title, "cpu": f"{ratio:.2f}", "goal": wanted}


def _tables(work: str, found: _Figures, ratios: Sequence[dict[str, str]]) -> Iterator[Table]:
    rows = []
    for case, own in found.items():
        cpu = own["cpu_seconds"]
        spread = f"{digits(cpu['p10'] * 1e6)} - {digits(cpu['p90'] * 1e6)}"
        per_second = f"{own['queries_per_second']['median']:,.0f}"
        is_bounded = case.client == "hub" and case.connections >= min(_MOST_OF_FEW)
        most_kb = goal(f"at most {_MOST_KB:g}", own["kb"] <= _MOST_KB) if is_bounded else ""
        cells = (time_text(cpu["median"]), spread, per_second, digits(own["kb"]), most_kb)
        rows.append((own["title"], f"{case.connections:,}", *cells))
    headings = ("connections", "CPU", "10 - 90 %", "queries/s", "KB each", "goal")
    yield table_of(f"{_work_title(work)}; many at once, a query", headings, rows)
    if ratios:
        compared = []
        for title, cpu, most in map(dict.values, ratios):
            reached = goal(most, float(cpu) <= float(most)) if most else ""
            compared.append((title, cpu, reached))
        yield table_of("CPU, as a multiple", ("", "goal"), compared)


def clients_of(work: str, only: Sequence[str]) -> list[str]:
    """Return the clients that do *work*, of those that are asked for; tell of those not here."""
    able = [name for name, each in CLIENTS.items() if each.is_pooled == (work == _POOLED)]
    if work != _POOLED:
        able.append(_PGBENCH)
    found = []
    for name in able:
        if only and name not in only:
            continue
        if name == _PGBENCH and pgbench.find_program() is None:
            print(f"left out: pgbench, {pgbench.HOW_TO_INSTALL}", file=sys.stderr)
        elif name != _PGBENCH and not CLIENTS[name].is_here:
            print(f"left out: {name}, there is no {CLIENTS[name].needs}", file=sys.stderr)
        else:
            found.append(name)
    return found


def _workload(work: str, found: _Figures) -> dict[str, Any]:
    """Return what the JSON file says of it: of the fewest connections, and of all the ratios."""
    few = min(case.connections for case in found)
    return {
        "name": work,
        "title": _work_title(work),
        "clients": {case.client: own for case, own in found.items() if case.connections == few},
        "ratios": [*_ratios(work, found)],
    }


def compare(
    work: str,
    clients: Sequence[str],
    counts: Sequence[int],
    rounds: int,
    dsn: str,
    *,
    portion: int = 1,
    told: Callable[[int, int], object] = lambda done, of: None,
) -> tuple[dict[str, Any], list[Table]]:
    """Compare *clients* with so many connections each; return what JSON says of it, and the tables.

    :param portion: run this part of the queries in a round, one in so many.
    :param told: is called after each round with their number, and with that of all.
    :raises WrongResultError: a client brought a wrong answer.
    """
    cases = [_Case(work, name, count) for name in clients for count in counts]
    found = _measure(cases, rounds, dsn, portion, told)
    workload = _workload(work, found)
    return workload, [*_tables(work, found, workload["ratios"])]


def main() -> None:
    """Measure, print the tables, and write what was asked for."""
    parser = argparse.ArgumentParser(description="Compare the ways to run many queries at once.")
    parser.add_argument("--work", metavar="WORK", action="append", choices=_WORK)
    parser.add_argument("--connections", metavar="N", type=positive, action="append")
    parser.add_argument("--pgbouncer", action="store_true", help="put one before the server")
    parser.add_argument("--rounds", metavar="N", type=positive, default=30)
    parser.add_argument(
        "--only", metavar="CLIENT", action="append", choices=[*CLIENTS, _PGBENCH], default=[]
    )
    parser.add_argument("--plot", metavar="FILE.svg", type=Path, help="of the first work")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures and samples")
    options = parser.parse_args()
    counts = options.connections or [32]
    program = pgbouncer.find_program()
    if options.pgbouncer and program is None:
        parser.error(f"there is no PgBouncer here: {pgbouncer.HOW_TO_INSTALL}")
    clients = {work: clients_of(work, options.only) for work in options.work or ["select-1"]}
    idle = [work for work, names in clients.items() if not names]
    if idle:
        parser.error(f"none of these clients does {', '.join(idle)}")
    workloads: list[dict[str, Any]] = []

    def measure(server: Server) -> list[Table]:
        tables: list[Table] = []
        with contextlib.ExitStack() as cleanup:
            dsn = server.dsn("unix")
            if options.pgbouncer and program is not None:
                dsn = cleanup.enter_context(pgbouncer.pooled(program, server, "transaction"))
            for work, names in clients.items():
                found, printed = compare(work, names, counts, options.rounds, dsn)
                workloads.append(found)
                tables += printed
        return tables

    facts = run(measure)
    few = str(min(counts))
    facts["settings"] = {"connections": few, "rounds": str(options.rounds)}
    if options.json is not None:
        document = {"format": 2, "workloads": workloads} | facts
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if options.plot is not None:
        figure = client_bars([*workloads[0]["clients"].values()], few, workloads[0]["title"])
        options.plot.write_text(svg_text(figure), encoding="utf-8")


if __name__ == "__main__":
    main()
