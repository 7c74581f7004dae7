"""Measure statements of 20, 80 and 160 MB: time and CPU, as multiples of blocking psycopg2's.

    python benchmarks/sending.py [--rounds N] [--wmem BYTES]

The server reads each statement and returns the length of its literal. Rounds are interleaved, in a
random order; the medians of their ratios are given. ``--wmem`` lowers the kernel's limit of a send
buffer, net.core.wmem_max, meanwhile: 212992 is Linux's own. It takes root.

It takes ``pip install -e '.[binary,test,bench]'``.
"""

import argparse
import contextlib
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.table import Table

from benchmarks.callbacks import BLOCKING, GREENWAIT, Contestant, contestants
from benchmarks.figures import digits, goal, positive, ratio_text, table_of
from benchmarks.runner import connected, run
from tests.lab.postgres import Server

_NAMES = (BLOCKING, GREENWAIT)
_MEGABYTES = (20, 80, 160)
_MOST = 1.1  # of blocking psycopg2's time, over a Unix socket
_MOST_WITH_SMALL_BUFFERS = 1.6
_LIMIT = Path("/proc/sys/net/core/wmem_max")
_LARGE = 4_000_000  # with that limit in bytes and more, the first goal holds


@contextlib.contextmanager
def _limited(size: int | None) -> Iterator[None]:
    """Let no send buffer be larger than *size* in bytes; None: leave the limit as it is."""
    if size is None:
        yield
        return
    before = _LIMIT.read_text()
    _LIMIT.write_text(str(size))
    try:
        yield
    finally:
        _LIMIT.write_text(before)


def _seconds(entry: Contestant, dsn: str, statement: str, length: int) -> tuple[float, float]:
    """Execute the statement once; return the time and the CPU time."""
    with connected(dsn, entry.callback) as conn, conn.cursor() as cur:
        cur.execute("select 1")
        start, start_cpu = time.perf_counter(), time.process_time()
        cur.execute(statement)
        cpu, passed = time.process_time() - start_cpu, time.perf_counter() - start
        assert cur.fetchone() == (length,)
    return passed, cpu


def _sizes(rounds: int, server: Server, transport: str) -> Iterator[tuple[str, ...]]:
    entries = contestants(_NAMES)
    most = _MOST if int(_LIMIT.read_text()) >= _LARGE else _MOST_WITH_SMALL_BUFFERS
    for megabytes in _MEGABYTES:
        length = megabytes * 1_000_000
        statement = f"select length('{'x' * length}')"
        taken: dict[str, list[tuple[float, float]]] = {entry.name: [] for entry in entries}
        for _ in range(rounds):
            for entry in random.sample(entries, len(entries)):
                taken[entry.name].append(_seconds(entry, server.dsn(transport), statement, length))
        for entry in entries:
            passed, cpu = (
                median(
                    each[which] / blocking[which]
                    for each, blocking in zip(taken[entry.name], taken[BLOCKING], strict=True)
                )
                for which in (0, 1)
            )
            is_judged = entry.name == GREENWAIT and transport == "unix"
            yield (
                f"{megabytes} MB, {transport}, {entry.title}",
                f"{digits(median(each[0] for each in taken[entry.name]))} s",
                ratio_text(passed),
                f"{digits(median(each[1] for each in taken[entry.name]))} s",
                ratio_text(cpu),
                goal(f"at most {most:.1f}", passed <= most) if is_judged else "",
            )


def _table(rounds: int, server: Server) -> Table:
    rows = [row for transport in ("unix", "tcp") for row in _sizes(rounds, server, transport)]
    title = f"Large statements, net.core.wmem_max {_LIMIT.read_text().strip()}"
    headings = ("time", "of blocking", "CPU", "of blocking", "goal")
    return table_of(title, headings, rows, f"medians of {rounds} rounds")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare how long large statements take.")
    parser.add_argument("--rounds", type=positive, default=7, metavar="N")
    parser.add_argument("--wmem", type=positive, metavar="BYTES", help="of the largest send buffer")
    return parser.parse_args()


if __name__ == "__main__":
    options = _options()
    with _limited(options.wmem):
        run(lambda server: [_table(options.rounds, server)])
