"""Does a process that waits a million times grow, or slow down?

    python benchmarks/endurance.py [--waits N] [--only CONTESTANT]

Runs ``select 1`` over a unix socket, client and server on one core, one contestant
after the other, and compares the first tenth of the waits with the last: the resident
memory at the end of each, and the median time per wait. Beside greenwait,
``greenwait.stats()`` is called every thousand waits, within what is timed. Blocking
psycopg2 shows what the machine and the server do by themselves meanwhile.

Needs Linux, and ``pip install -e '.[binary,test,bench]'``.
"""

import argparse
import sys
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import RenderableType

import greenwait
from benchmarks.callbacks import BLOCKING, GREENWAIT, Contestant, contestants
from benchmarks.figures import Goal, Row, goal_table, positive, time_text
from benchmarks.machine import SameCore, resident_kb
from benchmarks.runner import add_only, chosen, connected, run
from tools.postgres import Server

_DEFAULT = (BLOCKING, "wait_select", GREENWAIT)
_WAITS = 1_000_000
_CHUNK = 1000  # waits between two looks at the counters
_MOST_KB = 256
_RATIOS = (0.9, 1.1)  # what is noise


@dataclass(frozen=True)
class _Tenth:
    """One tenth of the waits: its median time per wait, and the memory at its end."""

    seconds: float
    resident_kb: int


def _tenths(entry: Contestant, waits: int, dsn: str, cores: SameCore) -> list[_Tenth]:
    look: Callable[[], object] = greenwait.stats if entry.kind == "greenwait" else lambda: None
    chunks = waits // _CHUNK // 10
    seconds = array("d", repeat(0.0, chunks))  # here already, so as not to grow meanwhile
    clock = time.perf_counter
    tenths = []
    with connected(dsn, entry.callback) as conn:
        cores.pin_server(conn)
        execute = conn.cursor().execute
        for _ in range(10):
            for chunk in range(chunks):
                start = clock()
                for _ in repeat(None, _CHUNK):
                    execute("select 1")
                look()
                seconds[chunk] = (clock() - start) / _CHUNK
            tenths.append(_Tenth(median(seconds), resident_kb()))
    return tenths


def _row(entry: Contestant, tenths: Sequence[_Tenth]) -> Row:
    first, last = tenths[0], tenths[-1]
    growth, ratio = last.resident_kb - first.resident_kb, last.seconds / first.seconds
    reached = growth < _MOST_KB and _RATIOS[0] <= ratio <= _RATIOS[1]
    goal = Goal(f"< {_MOST_KB} kB, {_RATIOS[0]} - {_RATIOS[1]}", reached)
    cells = (
        f"{first.resident_kb:,} kB",
        f"{growth:+,} kB",
        time_text(first.seconds),
        time_text(last.seconds),
        f"{ratio:.2f}",
    )
    return Row(entry.title, cells, goal if entry.kind == "greenwait" else None)


def _measure(waits: int, entries: list[Contestant], server: Server) -> list[RenderableType]:
    cores = SameCore()
    cores.pin_client()
    rows = [_row(entry, _tenths(entry, waits, server.dsn("unix"), cores)) for entry in entries]
    title = f"{waits:,} waits for select 1, unix socket, one core: the first tenth and the last"
    headings = ("memory", "growth", "first", "last", "ratio")
    return [goal_table(title, headings, rows), f"greenwait.stats() at the end: {greenwait.stats()}"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Wait, and print the table."""
    parser = argparse.ArgumentParser(
        description="Compare the first of a million waits with the last: memory and time."
    )
    parser.add_argument(
        "--waits", metavar="N", type=positive, default=_WAITS, help="default: %(default)s"
    )
    add_only(parser)
    options = parser.parse_args(arguments)
    if options.waits % (10 * _CHUNK):
        parser.error(f"--waits {options.waits}: that is not a multiple of {10 * _CHUNK}")
    entries = contestants(chosen(parser, options.only, _DEFAULT))
    return run(lambda server: _measure(options.waits, entries, server))


if __name__ == "__main__":
    sys.exit(main())
