"""Look for what is left of a million waits, and of thousands of timeouts, jobs and connections.

    python -m tools.leaks [--only NAME] [--share N]

Each kind of work is done after a tenth more of it, to warm up. Before and after it objects are
counted by type, and so are the interpreter's blocks and the resident memory: all must be flat.
The time for each piece is printed, at first and then. Work that keeps an object of each hundredth
connection must be found. Needs Linux.
"""

import argparse
import asyncio
import contextlib
import contextvars
import faulthandler
import gc
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg2

import greenwait
import greenwait.aio
from tests.lab.postgres import Server

_MOST_OBJECTS = 20  # of one type; more come and go by themselves
_MOST_BLOCKS = 50
_MOST_KB = 1024
_TOO_LONG = 1800.0  # seconds, after which the stacks are dumped


def waits(dsn: str, number: int) -> None:
    """Wait for a small result."""
    with contextlib.closing(psycopg2.connect(dsn)) as conn:
        execute = conn.cursor().execute
        for _ in range(number):
            execute("select 1")


def timeouts(dsn: str, number: int) -> None:
    """Run out of time, be cancelled on the server, go on."""
    with contextlib.closing(psycopg2.connect(dsn)) as conn:
        conn.autocommit = True
        for _ in range(number):
            with contextlib.suppress(greenwait.QueryTimeout), greenwait.timeout(0.0005):
                conn.cursor().execute("select pg_sleep(100)")


def hub_jobs(dsn: str, number: int) -> None:
    """Spawn jobs on a hub, ten at a time; each waits on a connection of its own."""
    conns = [psycopg2.connect(dsn) for _ in range(10)]
    with greenwait.Hub() as hub:
        for _ in range(number // len(conns)):
            jobs = [hub.spawn(conn.cursor().execute, "select 1") for conn in conns]
            for job in jobs:
                job.result()
    for conn in conns:
        conn.close()


def event_loop_calls(dsn: str, number: int) -> None:
    """Call a function on asyncio's loop, again and again."""

    async def calls() -> None:
        with contextlib.closing(await greenwait.aio.connect(dsn)) as conn:
            for _ in range(number):
                await greenwait.aio.run(conn.cursor().execute, "select 1")

    asyncio.run(calls())


def connects(dsn: str, number: int) -> None:
    """Connect, ask, close."""
    for _ in range(number):
        with contextlib.closing(greenwait.connect(dsn)) as conn:
            conn.cursor().execute("select 1")


def generations(dsn: str, number: int) -> None:
    """Enter timeout() blocks, each in a copy of the context that the one before was entered in.

    So does work that reschedules itself from within a block, which is left after that.
    """
    own, block = contextvars.copy_context(), greenwait.timeout(50)
    own.run(block.__enter__)
    for _ in range(number):
        following, inner = own.copy(), greenwait.timeout(50)
        following.run(inner.__enter__)
        own.run(block.__exit__, None, None, None)
        own, block = following, inner
    own.run(block.__exit__, None, None, None)


_kept: list[object] = []


def planted(dsn: str, number: int) -> None:
    """Keep an object of each hundredth connection: what must be found."""
    for place in range(number):
        with contextlib.closing(greenwait.connect(dsn)) as conn:
            if place % 100 == 0:
                _kept.append([conn.info])


WORK: dict[Callable[[str, int], None], int] = {
    waits: 1_000_000,
    timeouts: 10_000,
    hub_jobs: 10_000,
    event_loop_calls: 100_000,
    connects: 10_000,
    generations: 1_000_000,
}


@dataclass(frozen=True)
class Look:
    """What there is, of that which is not garbage."""

    objects: Counter[type]
    blocks: int
    resident_kb: int

    @classmethod
    def take(cls) -> "Look":
        """Collect what is garbage, and count the rest."""
        gc.collect()
        blocks = sys.getallocatedblocks()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        objects = Counter(map(type, gc.get_objects()))
        return cls(objects, blocks, pages * os.sysconf("SC_PAGE_SIZE") // 1024)


def growth(first: Look, last: Look) -> list[str]:
    """Return what has grown too much."""
    more = last.objects - first.objects
    grown = [f"{more[kind]:+} {kind.__name__}" for kind in more if more[kind] > _MOST_OBJECTS]
    if last.blocks - first.blocks > _MOST_BLOCKS:
        grown.append(f"{last.blocks - first.blocks:+} blocks")
    if last.resident_kb - first.resident_kb > _MOST_KB:
        grown.append(f"{last.resident_kb - first.resident_kb:+} kB")
    return grown


def check(work: Callable[[str, int], None], number: int, dsn: str) -> list[str]:
    """Do *work* and return what has grown too much; print what there was."""
    began = time.monotonic()
    work(dsn, number // 10)
    at_first = (time.monotonic() - began) / number * 1e7
    before = Look.take()
    first = Look.take()
    del before  # a look takes memory itself: one is there at each
    began = time.monotonic()
    work(dsn, number)
    later = (time.monotonic() - began) / number * 1e6
    last = Look.take()
    grown = growth(first, last)
    print(
        f"{work.__name__}: {number:,}, {at_first:.1f} µs each at first and then {later:.1f}: "
        f"{last.objects.total() - first.objects.total():+} objects, "
        f"{last.blocks - first.blocks:+} blocks, {last.resident_kb - first.resident_kb:+} kB of "
        f"{last.resident_kb:,}: {', '.join(grown) or 'flat'}",
        flush=True,
    )
    return grown


def main(arguments: Sequence[str] | None = None) -> int:
    """Find what is planted, then do all the work."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=[work.__name__ for work in WORK])
    parser.add_argument("--share", type=int, default=1, help="do the N-th part of it")
    options = parser.parse_args(arguments)
    faulthandler.dump_traceback_later(_TOO_LONG, exit=True)
    greenwait.install()
    with Server() as server:
        dsn = server.dsn("unix")
        if not check(planted, 10_000 // options.share, dsn):
            sys.exit("the planted leak was not found")
        _kept.clear()
        leaks = [
            check(work, number // options.share, dsn)
            for work, number in WORK.items()
            if options.only in (None, work.__name__)
        ]
    return 1 if any(leaks) else 0


if __name__ == "__main__":
    sys.exit(main())
