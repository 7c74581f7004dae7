"""Count the instructions of the client that a query costs above blocking psycopg2.

    python benchmarks/instructions.py [--only CONTESTANT]... [--layouts N] [--if-possible]

Counted by valgrind's callgrind, which sees everything the process runs outside the
kernel: the interpreter, psycopg2, libpq and the callback. The count is the slope
between a short and a long run of ``select 1``, so that starting Python and connecting
cancel out. Unlike a time it needs no quiet machine.

The count depends a little on where Python's objects lie in memory: some dozens of
instructions either way. So each contestant runs in several memory layouts, each the
same for all of them, and the median is reported.

Needs valgrind, and ``pip install -e '.[binary,test,bench]'``.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.table import Table

from benchmarks.callbacks import BLOCKING, GREENWAIT, NAMES, contestants
from benchmarks.figures import goal, positive, table_of
from benchmarks.runner import run
from tests.lab.postgres import Server

_ROOT = Path(__file__).resolve().parent.parent
_DEFAULT = (BLOCKING, "wait_select", "psycogreen", GREENWAIT, "greenwait-epoll")
_MOST = 2500  # of greenwait.wait, above blocking psycopg2
_SHORT, _LONG = 200, 1200
_LAYOUTS = 3
_PADDING = 997  # objects that shift a layout against the one before; a prime, to repeat nothing
_TIMEOUT = 300.0

# The program that is counted, which imports no more than it needs: valgrind is slow.
_CLIENT = """
import sys

name, queries, padding, dsn = sys.argv[1:]
padding = [object() for _ in range(int(padding))]

import psycopg2, psycopg2.extensions
from benchmarks.callbacks import contestants

psycopg2.extensions.set_wait_callback(contestants((name,))[0].callback)
conn = psycopg2.connect(dsn)
conn.autocommit = True
execute = conn.cursor().execute

def query(queries):
    for _ in range(queries):
        execute("select 1")

query(int(queries))
"""


def _instructions(name: str, queries: int, layout: int, dsn: str) -> int:
    """Run so many queries under valgrind, and return what it counted."""
    client = [sys.executable, "-c", _CLIENT, name, str(queries), str(layout * _PADDING), dsn]
    done = subprocess.run(
        ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *client],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        env=os.environ | {"PYTHONHASHSEED": "0", "PYTHONPATH": str(_ROOT)},
    )
    counted = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or not counted:
        raise RuntimeError(f"{name} under valgrind:\n{done.stderr}")
    return int(counted[1])


def _per_query(name: str, layouts: int, dsn: str) -> list[float]:
    """Return the instructions per query in each memory layout."""
    return [
        (_instructions(name, _LONG, layout, dsn) - _instructions(name, _SHORT, layout, dsn))
        / (_LONG - _SHORT)
        for layout in range(layouts)
    ]


def _measure(names: Sequence[str], layouts: int, server: Server) -> list[Table]:
    entries = contestants({BLOCKING, *names})  # blocking is the others' base
    found = {each.name: _per_query(each.name, layouts, server.dsn("unix")) for each in entries}
    rows = []
    for entry in entries:
        counts = found[entry.name]
        differences = [each - base for each, base in zip(counts, found[BLOCKING], strict=True)]
        above = median(differences)
        cells = [f"{median(counts):,.0f}", "", "", ""]
        if entry.name != BLOCKING:
            cells[1:3] = [f"{above:+,.0f}", f"{min(differences):+,.0f} to {max(differences):+,.0f}"]
        if entry.name == GREENWAIT:
            cells[3] = goal(f"at most {_MOST:+,}", above <= _MOST)
        rows.append((entry.title, *cells))
    title = f"Client instructions per select 1, unix socket; medians of {layouts} memory layouts"
    return [table_of(title, ("counted", "above blocking", "all layouts", "goal"), rows)]


def main() -> None:
    """Count, and print the table."""
    parser = argparse.ArgumentParser(
        description="Count the instructions of the client per query, above blocking psycopg2's."
    )
    parser.add_argument("--only", metavar="CONTESTANT", action="append", choices=NAMES)
    parser.add_argument("--layouts", metavar="N", type=positive, default=_LAYOUTS)
    parser.add_argument(
        "--if-possible", action="store_true", help="do nothing, and exit with 0, without valgrind"
    )
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        print("needs valgrind: apt-get install valgrind", file=sys.stderr)
        sys.exit(0 if options.if_possible else 2)
    run(lambda server: _measure(options.only or _DEFAULT, options.layouts, server))


if __name__ == "__main__":
    main()
