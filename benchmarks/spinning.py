"""What does spinning before the sleep win, and what CPU does it cost?

    python benchmarks/spinning.py [--quick] [--rounds N] [--sleeps N]

First ``select 1`` with client and server on a core each, where every answer must wake
a sleeping client, which on a virtual machine costs more than the query: time and CPU
per query, as ratios to blocking psycopg2 in the same round. Then a stream of
``select pg_sleep(0.01)``, where spinning wins nothing: the CPU that it costs.

The server's process is pinned; the client is not, since greenwait does not spin when
it may use one core only. It is moved off the server's core before each block, and
looked for at the end of it. "Apart" is the share of blocks after which it was still on
another core; rounds with a block where it was not are left out of the figures.

Needs Linux, two cores, and ``pip install -e '.[binary,test,bench]'``.
"""

import argparse
import contextlib
import math
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import compress, repeat
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from psycopg2.extensions import cursor, get_wait_callback, set_wait_callback
from rich.table import Table

from benchmarks.callbacks import BLOCKING, GREENWAIT, Callback, Contestant, contestants
from benchmarks.figures import Goal, Row, goal_table, positive, time_text
from benchmarks.machine import CannotPinError, OtherCore
from benchmarks.measure import Outcome, Spread, measure
from benchmarks.plots import ratio_text
from benchmarks.runner import connected, run
from benchmarks.workloads import workloads
from greenwait import WaitCallback
from tools.postgres import Server

_AUTO = "greenwait-spin-auto"
_MOST_TIME, _MOST_CPU = 0.40, 1.0  # of blocking psycopg2's
_MOST_EXTRA = 0.01  # of one core
_ROUNDS, _QUICK_ROUNDS = 100, 30
_SLEEPS, _QUICK_SLEEPS = 1000, 200
_CHUNK = 50


def _contestants() -> list[Contestant]:
    return [
        *contestants((BLOCKING, "wait_select", GREENWAIT)),
        Contestant(_AUTO, "greenwait, spin auto", "greenwait", WaitCallback(spin="auto")),
        Contestant(
            "greenwait-spin", "greenwait, spin 100 µs", "greenwait", WaitCallback(spin=0.0001)
        ),
    ]


# -- select 1


def _cpu_ratio(outcome: Outcome, name: str) -> Spread:
    pairs = zip(outcome.samples[name], outcome.samples[BLOCKING], strict=True)
    return Spread.of([sample.cpu_seconds / blocking.cpu_seconds for sample, blocking in pairs])


def _only_apart(outcome: Outcome, looks: dict[str, list[bool]]) -> Outcome:
    """Return *outcome* without the rounds in which a block ended on the server's core."""
    rounds = [all(apart) for apart in zip(*looks.values(), strict=True)]
    if not any(rounds):
        raise CannotPinError(
            "the kernel never left client and server on a core each for a whole round: "
            "is something else running here?"
        )
    samples = {name: list(compress(each, rounds)) for name, each in outcome.samples.items()}
    return replace(outcome, samples=samples)


def _select_1(rounds: int, server: Server, cores: OtherCore) -> Table:
    entries = _contestants()
    names = {entry.callback: entry.name for entry in entries}
    looks: dict[str, list[bool]] = {entry.name: [] for entry in entries}

    def between_blocks() -> None:
        # The callback of the block before is still the registered one.
        looks[names[get_wait_callback()]].append(cores.apart())
        cores.move_client()

    outcome = measure(
        workloads(("unix",))[0],
        entries,
        server.dsn("unix"),
        rounds,
        random.Random(),
        most_seconds=math.inf,
        pin=cores.pin_server,
        tick=between_blocks,
    )
    looks = {name: each[-rounds:] for name, each in looks.items()}  # not those of the warm-up
    outcome = _only_apart(outcome, looks)
    rows = []
    for entry in entries:
        ratio, cpu = outcome.ratio(entry.name).median, _cpu_ratio(outcome, entry.name).median
        reached = ratio <= _MOST_TIME and cpu <= _MOST_CPU
        goal = Goal(f"at most {_MOST_TIME:.2f}, CPU {_MOST_CPU:.0f}", reached)
        cells = (
            time_text(outcome.seconds(entry.name).median),
            ratio_text(ratio),
            time_text(outcome.cpu_seconds(entry.name).median),
            ratio_text(cpu),
            f"{statistics.mean(looks[entry.name]):.0%}",
        )
        rows.append(Row(entry.title, cells, goal if entry.name == _AUTO else None))
    kept = len(outcome.samples[BLOCKING])
    title = (
        f"select 1, unix socket, a core each; medians of {kept} of {rounds} rounds "
        f"of {outcome.block}"
    )
    return goal_table(title, ("per query", "ratio", "client CPU", "ratio", "apart"), rows)


# -- A stream of sleeps


def _sleeps(cur: cursor, callback: Callback | None, queries: int) -> tuple[float, float]:
    """Return the seconds and the CPU seconds of so many sleeps."""
    set_wait_callback(callback)
    cpu_start, start = time.process_time(), time.perf_counter()
    for _ in repeat(None, queries):
        cur.execute("select pg_sleep(0.01)")
    return time.perf_counter() - start, time.process_time() - cpu_start


def _stream(total: int, server: Server, cores: OtherCore) -> Table:
    entries = {
        each.name: each for each in _contestants() if each.name in (BLOCKING, GREENWAIT, _AUTO)
    }
    seconds, cpu_seconds = dict.fromkeys(entries, 0.0), dict.fromkeys(entries, 0.0)
    with contextlib.ExitStack() as cleanup:
        cursors = {}
        for name, entry in entries.items():
            conn = cleanup.enter_context(connected(server.dsn("unix"), entry.callback))
            cores.pin_server(conn)
            cursors[name] = conn.cursor()
        for done in range(0, total, _CHUNK):
            for name in random.sample(list(entries), len(entries)):
                cores.move_client()
                taken = _sleeps(cursors[name], entries[name].callback, min(_CHUNK, total - done))
                seconds[name] += taken[0]
                cpu_seconds[name] += taken[1]
    share = {name: cpu_seconds[name] / seconds[name] for name in entries}
    rows = []
    for name, entry in entries.items():
        extra = share[name] - share[GREENWAIT]
        goal = Goal(f"below {_MOST_EXTRA:+.0%}", extra < _MOST_EXTRA) if name == _AUTO else None
        cells = (
            time_text(seconds[name] / total),
            f"{share[name]:.2%}",
            "" if name == GREENWAIT else f"{extra:+.2%}",
        )
        rows.append(Row(entry.title, cells, goal))
    title = f"{total} times select pg_sleep(0.01): the client's CPU as a share of one core"
    return goal_table(title, ("per query", "CPU", "above spin=0"), rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the two tables."""
    parser = argparse.ArgumentParser(
        description="Measure what spinning before the sleep wins, and what CPU it costs."
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds, a shorter stream")
    parser.add_argument("--rounds", metavar="N", type=positive, help="rounds of select 1")
    parser.add_argument("--sleeps", metavar="N", type=positive, help="queries of the stream")
    options = parser.parse_args(arguments)
    rounds = options.rounds or (_QUICK_ROUNDS if options.quick else _ROUNDS)
    sleeps = options.sleeps or (_QUICK_SLEEPS if options.quick else _SLEEPS)

    def measure_both(server: Server) -> list[Table]:
        cores = OtherCore()
        return [_select_1(rounds, server, cores), _stream(sleeps, server, cores)]

    return run(measure_both)


if __name__ == "__main__":
    sys.exit(main())
