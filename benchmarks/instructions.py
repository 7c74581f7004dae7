"""Count the client's instructions for a query, of greenwait and of its peers.

    python benchmarks/instructions.py [--only NAME]... [--layouts N] [--json FILE] [--if-possible]
    python benchmarks/instructions.py --check | --keep

The first table is of one connection, above blocking psycopg2. The second has all kinds of use with
their goals and their peers: the clients of ``clients.py``, 32 tasks or greenlets at once. Those of
a pool share 16 connections, and borrow one for each query.

The count is the slope between a short and a long run of ``select 1`` in one process, so that
starting Python, connecting and the first queries cancel out. On one connection it depends on
where malloc() finds room for an answer: some 150 instructions, and 300 in a heap without holes,
which no program has for long. So each contestant runs with several layouts of the heap, each the
same for all of them, and the least is reported, which differs by less than ten from run to run.

``--check`` counts four of them, compares the counts with those in ``baseline.json``, and fails if
one has become more; ``--keep`` writes that file. CI runs the first one.

Needs valgrind and libfaketime (``callgrind.py`` says what for), and
``pip install -e '.[binary,test,bench]'``.
"""

import argparse
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.table import Table

import greenwait
from benchmarks import baseline
from benchmarks.callbacks import BLOCKING, GREENWAIT, NAMES, contestants
from benchmarks.callgrind import MARK, Counts, count, missing
from benchmarks.clients import CLIENTS
from benchmarks.figures import goal, positive, table_of
from benchmarks.runner import run
from greenwait import _callback
from tests.lab.postgres import Server

_DEFAULT = (BLOCKING, "wait_select", "psycogreen", GREENWAIT, "greenwait-epoll")
_LAYOUTS = 7
_SHORT, _LONG = 100, 500  # queries on one connection
_CONNECTIONS = 32
_SHORT_EACH, _LONG_EACH = 20, 80  # ... on each of many
_CHECKED = ("hub", "aio")


@dataclass(frozen=True)
class Kind:
    """A kind of use, the most instructions for a query in it, and who does the same."""

    client: str
    title: str
    most: int
    peers: tuple[str, ...] = ()


_ONE = Kind(GREENWAIT, "one connection, above blocking", 2_000, ("wait_select",))
_KINDS = (
    Kind("hub", "hub", 20_000, ("psycogreen",)),
    Kind("gevent", "gevent's adapter", 24_500, ("psycogreen",)),
    Kind("aio-run", "aio.run() of a function", 21_000, ("asyncpg-uvloop",)),
    Kind("aio", "awaited methods, asyncio", 37_000, ("asyncpg", "psycopg3")),
    Kind("aio-uvloop", "awaited methods, uvloop", 35_500, ("asyncpg-uvloop",)),
    Kind("hub-pool", "Pool in a hub", 46_000),
    Kind("aio-pool", "AsyncPool, asyncio", 95_000, ("asyncpg-pool", "psycopg3-pool")),
)
# Each once, in the order of the table.
_COUNTED = tuple(dict.fromkeys(name for kind in _KINDS for name in (kind.client, *kind.peers)))

# The programs that are counted import no more than they need: valgrind is slow. They end without
# what an interpreter does at its end.
_RUN = f"""
import gc, os

gc.collect()
gc.disable()
for layout in range(1, int(layouts) + 1):
    # Holes of all sizes that are malloc()'s and not Python's; the primes repeat nothing.
    held = [bytes(600 + number * layout * 7919 % 5407) for number in range(400)]
    del held[::2]
    query(3)
    os.{MARK}()
    query(int(short))
    os.{MARK}()
    query(int(long))
    os.{MARK}()
os._exit(0)
"""
_ONE_CONNECTION = f"""
import sys

name, layouts, short, long, dsn = sys.argv[1:]

import psycopg2, psycopg2.extensions
from benchmarks.callbacks import contestants

psycopg2.extensions.set_wait_callback(contestants((name,))[0].callback)
conn = psycopg2.connect(dsn)
conn.autocommit = True
execute = conn.cursor().execute

def query(queries):
    for _ in range(queries):
        execute("select 1")

{_RUN}
"""
_MANY_CONNECTIONS = f"""
import sys

name, layouts, connections, short, long, dsn = sys.argv[1:]

from benchmarks.clients import CLIENTS

query = CLIENTS[name].start(dsn, int(connections))
{_RUN}
"""


def _slopes(parts: Sequence[Counts], queries: int) -> list[Mapping[str, float]]:
    """Return the instructions of one query, by object, with each layout of the heap.

    :param parts: the short run, the long one, and what lies before the next layout, in turn.
    :param queries: how many more the long one has.
    """
    return [
        {path: (each - short[path]) / queries for path, each in long.items()}
        for short, long in zip(parts[::3], parts[1::3], strict=True)
    ]


def _total(objects: Mapping[str, float]) -> float:
    return sum(objects.values())


def _on_one_connection(name: str, layouts: int, dsn: str) -> list[Mapping[str, float]]:
    arguments = [name, str(layouts), str(_SHORT), str(_LONG), dsn]
    parts = count(_ONE_CONNECTION, arguments, 3 * layouts, slow_clock=False)
    return _slopes(parts, _LONG - _SHORT)


def _on_many(name: str, dsn: str) -> Mapping[str, float]:
    arguments = [name, "1", str(_CONNECTIONS), str(_SHORT_EACH), str(_LONG_EACH), dsn]
    parts = count(_MANY_CONNECTIONS, arguments, 3, slow_clock=True)
    return _slopes(parts, (_LONG_EACH - _SHORT_EACH) * _CONNECTIONS)[0]


# -- The tables


class _Report:
    """What was counted, as tables and as JSON."""

    def __init__(self, layouts: int) -> None:
        self._layouts = layouts
        self._above: dict[str, float] = {}  # blocking psycopg2, on one connection
        self._many: dict[str, float] = {}
        self.counted: dict[str, dict[str, Any]] = {"one_connection": {}, "many": {}}
        self.goals: list[dict[str, Any]] = []

    def one_connection(self, names: Sequence[str], dsn: str) -> Table:
        """Count with every layout of the heap, and return the table."""
        entries = contestants({BLOCKING, *names})  # blocking is the others' base
        found = {
            each.name: [*map(_total, _on_one_connection(each.name, self._layouts, dsn))]
            for each in entries
        }
        rows = []
        for entry in entries:
            counts = found[entry.name]
            base = found[BLOCKING]
            differences = [each - other for each, other in zip(counts, base, strict=True)]
            self._above[entry.name] = min(counts) - min(base)
            self.counted["one_connection"][entry.name] = {"title": entry.title, "layouts": counts}
            cells = [f"{min(counts):,.0f}", "", ""]
            if entry.name != BLOCKING:
                spread = f"{min(differences):+,.0f} to {max(differences):+,.0f}"
                cells[1:] = [f"{self._above[entry.name]:+,.0f}", spread]
            rows.append((entry.title, *cells))
        title = (
            f"Client instructions per select 1, unix socket; the least of {self._layouts} "
            "layouts of the heap"
        )
        return table_of(title, ("counted", "above blocking", "all layouts"), rows)

    def many(self, names: Sequence[str], dsn: str) -> None:
        """Count the clients on many connections."""
        package = Path(greenwait.__file__).parent
        for name in names:
            if not CLIENTS[name].is_here:
                print(f"left out: {name}, there is no {CLIENTS[name].needs}", file=sys.stderr)
                continue
            objects = _on_many(name, dsn)
            self._many[name] = sum(objects.values())
            self.counted["many"][name] = {
                "title": CLIENTS[name].title,
                "instructions": self._many[name],
                "objects": baseline.named(objects, package),
            }

    def against_goals(self) -> Table:
        """Return the table of the kinds of use that were counted, with goals and peers."""
        rows: list[tuple[str, str, str]] = []
        titles = {name: each.title for name, each in CLIENTS.items()}
        above_titles = {each.name: each.title for each in contestants(self._above)}
        self._add(rows, _ONE, self._above, above_titles)
        for kind in _KINDS:
            self._add(rows, kind, self._many, titles)
        title = f"... of every kind of use; {_CONNECTIONS} at once"
        return table_of(title, ("instructions", "goal"), rows, "Below each, who does the same.")

    def _add(
        self,
        rows: list[tuple[str, str, str]],
        kind: Kind,
        found: Mapping[str, float],
        titles: Mapping[str, str],
    ) -> None:
        if kind.client not in found:
            return
        measured = found[kind.client]
        is_reached = measured <= kind.most
        rows.append((kind.title, f"{measured:,.0f}", goal(f"at most {kind.most:,}", is_reached)))
        peers = {titles[name]: found[name] for name in kind.peers if name in found}
        rows.extend((f"    {title}", f"{each:,.0f}", "") for title, each in peers.items())
        self.goals.append(
            {
                "client": kind.client,
                "title": kind.title,
                "instructions": measured,
                "goal": kind.most,
                "is_reached": is_reached,
                "peers": peers,
            }
        )


def _report(options: argparse.Namespace) -> None:
    """Count what is asked for, and print the tables."""
    one = [name for name in options.only or _DEFAULT if name in NAMES]
    many = [name for name in options.only or _COUNTED if name in _COUNTED]
    report = _Report(options.layouts)

    def measure(server: Server) -> list[Table]:
        dsn = server.dsn("unix")
        tables = [report.one_connection(one, dsn)] if one else []
        report.many(many, dsn)
        return [*tables, report.against_goals()]

    facts = run(measure)
    layouts = str(options.layouts)
    facts["settings"] = {"connections": str(_CONNECTIONS), "layouts of the heap": layouts}
    if options.json is not None:
        document = {"format": 1, "counted": report.counted, "goals": report.goals} | facts
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


# -- Against the file


def _count_checked(server: Server) -> dict[str, dict[str, float]]:
    dsn = server.dsn("unix")
    package = Path(greenwait.__file__).parent
    found = {
        name: min(_on_one_connection(name, _LAYOUTS, dsn), key=_total)
        for name in (BLOCKING, GREENWAIT)
    }
    found |= {name: _on_many(name, dsn) for name in _CHECKED}
    return {name: baseline.named(objects, package) for name, objects in found.items()}


def _check(*, is_kept: bool) -> None:
    """Compare with the file, and exit with 1 if something costs more; *is_kept*: write it."""
    measured: dict[str, dict[str, float]] = {}

    def measure(server: Server) -> list[Table]:
        measured.update(_count_checked(server))
        rows = [(name, f"{sum(each.values()):,.0f}") for name, each in measured.items()]
        return [table_of("Client instructions per select 1", ("counted",), rows)]

    versions = run(measure)["versions"]
    here = baseline.environment(versions, Path(_callback.__file__))
    if is_kept:
        baseline.keep(measured, here)
        return
    found = baseline.load()
    if found is None:
        version = platform.python_version()
        sys.exit(f"There are no figures for Python {version} yet: `{baseline.ANEW}` adds them.")
    kept, there = found
    elsewhere = baseline.differences(here, there)
    if elsewhere:
        print(f"The figures in the file are of other programs: {elsewhere}.")
        print("What is compared depends less on them (benchmarks/baseline.py says how).")
    compared = baseline.compare(measured, kept, is_same=not elsewhere)
    for each in compared:
        print(f"{each.client}, {each.what}: {each.ratio - 1:+.1%}, at most {each.most - 1:+.0%}")
    failed = [each for each in compared if not each.is_kept]
    if failed:
        sys.exit(baseline.advice(failed, measured, kept))
    if not elsewhere and all(each.ratio < 0.98 for each in compared if each.what == "all"):
        print(f"It has become less: `{baseline.ANEW}` keeps it so.")


def main() -> None:
    """Count, and print the tables or what has changed."""
    parser = argparse.ArgumentParser(description="Count the client's instructions for a query.")
    parser.add_argument(
        "--only", metavar="NAME", action="append", choices=[*dict.fromkeys((*NAMES, *_COUNTED))]
    )
    parser.add_argument("--layouts", metavar="N", type=positive, default=_LAYOUTS)
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures")
    parser.add_argument("--check", action="store_true", help="compare with baseline.json")
    parser.add_argument("--keep", action="store_true", help="write baseline.json anew")
    parser.add_argument(
        "--if-possible", action="store_true", help="do nothing, and exit with 0, without valgrind"
    )
    options = parser.parse_args()
    lacking = missing()
    if lacking:
        print(lacking, file=sys.stderr)
        sys.exit(0 if options.if_possible else 2)
    if options.check or options.keep:
        _check(is_kept=options.keep)
    else:
        _report(options)


if __name__ == "__main__":
    main()
