"""How many instructions of the client does a query cost above blocking psycopg2?

    python benchmarks/instructions.py [--only CONTESTANT] [--if-possible]

Counted by valgrind's callgrind, which sees everything the process runs outside the
kernel: the interpreter, psycopg2, libpq and the callback. The count is the slope
between a short and a long run of ``select 1``, so that starting Python and connecting
cancel out, and it is the same at every run. Unlike a time it needs no quiet machine.

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

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.table import Table

from benchmarks.callbacks import BLOCKING, GREENWAIT, contestants
from benchmarks.figures import Goal, Row, goal_table
from benchmarks.runner import add_only, chosen, run
from tools.postgres import Server

_DEFAULT = (BLOCKING, "wait_select", "psycogreen", GREENWAIT, "greenwait-epoll")
_MOST = 2500  # of greenwait.wait, above blocking psycopg2
_SHORT, _LONG = 200, 1200
_TIMEOUT = 300.0

# The program that is counted, which imports no more than it needs: valgrind is slow.
_CLIENT = """
import sys, psycopg2, psycopg2.extensions
from benchmarks.callbacks import contestants

name, queries, dsn = sys.argv[1:]
psycopg2.extensions.set_wait_callback(contestants((name,))[0].callback)
conn = psycopg2.connect(dsn)
conn.autocommit = True
execute = conn.cursor().execute

def query(queries):
    for _ in range(queries):
        execute("select 1")

query(int(queries))
"""


def _instructions(name: str, queries: int, dsn: str) -> int:
    """Run so many queries under valgrind, and return what it counted."""
    done = subprocess.run(
        [
            "valgrind",
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            *(sys.executable, "-c", _CLIENT),
            *(name, str(queries), dsn),
        ],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        # Where an object's hash came to lie would change the count.
        env=os.environ | {"PYTHONHASHSEED": "0", "PYTHONPATH": sys.path[0]},
    )
    counted = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or not counted:
        raise RuntimeError(f"{name} under valgrind:\n{done.stderr}")
    return int(counted[1])


def _per_query(name: str, dsn: str) -> float:
    more = _instructions(name, _LONG, dsn) - _instructions(name, _SHORT, dsn)
    return more / (_LONG - _SHORT)


def _measure(names: Sequence[str], server: Server) -> list[Table]:
    found = {name: _per_query(name, server.dsn("unix")) for name in names}
    rows = []
    for entry in contestants(tuple(names)):
        above = found[entry.name] - found[BLOCKING]
        goal = Goal(f"at most {_MOST:+,}", above <= _MOST) if entry.name == GREENWAIT else None
        against = "" if entry.name == BLOCKING else f"{above:+,.0f}"
        rows.append(Row(entry.title, (f"{found[entry.name]:,.0f}", against), goal))
    title = "Instructions of the client per select 1, unix socket"
    return [goal_table(title, ("counted", "above blocking"), rows)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Count, and print the table."""
    parser = argparse.ArgumentParser(
        description="Count the instructions of the client per query, above blocking psycopg2's."
    )
    add_only(parser)
    parser.add_argument(
        "--if-possible", action="store_true", help="do nothing, and exit with 0, without valgrind"
    )
    options = parser.parse_args(arguments)
    names = chosen(parser, options.only, _DEFAULT)
    if shutil.which("valgrind") is None:
        print("needs valgrind: apt-get install valgrind", file=sys.stderr)
        return 0 if options.if_possible else 2
    return run(lambda server: _measure(tuple(dict.fromkeys((BLOCKING, *names))), server))


if __name__ == "__main__":
    sys.exit(main())
