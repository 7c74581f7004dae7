"""Measure COPY, in and out: CPU time, time, memory, and how long everybody else is kept waiting.

    python benchmarks/copying.py [--megabytes N] [--rounds N]

Each client copies rows of 100 bytes from and to a file in memory, 8 KB at a time, in a process of
its own, one after the other in a random order. The server parses the rows and discards them
(``WHERE false``), and makes those that it sends. Given are medians of the client's CPU time and of
the time, as multiples of blocking psycopg2's; how much larger the process has become; and of
another quarter as much, the longest time between two turns of another thread, or of the event
loop, that looks at the clock each millisecond.

It takes ``pip install -e '.[binary,test,bench]'``.
"""

import argparse
import asyncio
import json
import random
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.figures import console, digits, goal, positive, table_of
from tests.lab.postgres import Server

SIZE = 8192
ROW = b"1234567\t" + b"x" * 91 + b"\n"
IN = "copy copied from stdin where false"
PREPARE = "create unlogged table if not exists copied (id int, data text)"


def out(megabytes: int) -> str:
    """Return the statement that copies as much out."""
    rows = megabytes * 1_000_000 // len(ROW)
    return f"copy (select 1234567, repeat('x', 91) from generate_series(1, {rows})) to stdout"


class File:
    """A file in memory: *megabytes* to be read, and what is written is forgotten."""

    def __init__(self, megabytes: int) -> None:
        self.left = megabytes * 1_000_000 // (len(ROW) * 80)
        self.block = ROW * 80  # about SIZE
        self.written = 0

    def read(self, _size: int) -> bytes:
        """Return the next part."""
        self.left -= 1
        return self.block if self.left >= 0 else b""

    def write(self, data: bytes) -> None:
        """Count it."""
        self.written += len(data)


# -- The clients: each is called with a DSN, and returns a function that copies once


def _blocking(dsn: str) -> Callable[[bool, int], None]:
    import psycopg2

    return _psycopg2(psycopg2.connect(dsn))


def _greenwait(dsn: str) -> Callable[[bool, int], None]:
    import greenwait

    greenwait.install()
    return _psycopg2(greenwait.connect(dsn))


def _psycopg2(conn: Any) -> Callable[[bool, int], None]:
    def copy(is_in: bool, megabytes: int) -> None:
        conn.cursor().copy_expert(IN if is_in else out(megabytes), File(megabytes), SIZE)

    return copy


def _psycopg3(dsn: str) -> Callable[[bool, int], None]:
    import psycopg

    conn = psycopg.connect(dsn)

    def copy(is_in: bool, megabytes: int) -> None:
        file = File(megabytes)
        with conn.cursor().copy((IN if is_in else out(megabytes)).encode()) as copying:
            if is_in:
                while data := file.read(SIZE):
                    copying.write(data)
            else:
                write: Any = file.write
                for row in copying:
                    write(row)

    return copy


def _greenwait_asyncio(dsn: str) -> Any:
    import greenwait
    import greenwait.aio

    greenwait.install()

    async def prepare() -> Any:
        conn = await greenwait.aio.connect(dsn)

        async def copy(is_in: bool, megabytes: int) -> None:
            async with conn.cursor() as cur:
                await cur.copy_expert(IN if is_in else out(megabytes), File(megabytes), SIZE)

        return copy

    return prepare()


def _asyncpg(dsn: str) -> Any:
    import asyncpg

    options = dict(part.split("=") for part in dsn.split())

    async def prepare() -> Any:
        conn = await asyncpg.connect(
            host=options["host"],
            port=options["port"],
            user=options["user"],
            database=options["dbname"],
        )

        async def copy(is_in: bool, megabytes: int) -> None:
            file = File(megabytes)
            if is_in:

                async def blocks() -> Any:
                    while data := file.read(SIZE):
                        yield data

                await conn.copy_to_table("copied", source=blocks(), where="false")
            else:
                query = out(megabytes).removeprefix("copy (").removesuffix(") to stdout")

                async def write(data: bytes) -> None:
                    file.write(data)

                await conn.copy_from_query(query, output=write)

        return copy

    return prepare()


CLIENTS: dict[str, Callable[[str], Any]] = {
    "blocking psycopg2": _blocking,
    "greenwait": _greenwait,
    "psycopg 3": _psycopg3,
    "asyncpg": _asyncpg,
    "greenwait, asyncio": _greenwait_asyncio,
}
ASYNC = ("asyncpg", "greenwait, asyncio")


# -- In a process of its own


def _usage() -> tuple[float, float]:
    """Return the CPU time in seconds, and the most memory in MB."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def _longest(looks: list[float]) -> float:
    return max((later - earlier for earlier, later in pairwise(looks)), default=0.0) * 1e3


def measure(client: str, is_in: bool, megabytes: int, dsn: str) -> dict[str, float]:
    """Copy once, and a quarter of it once more, beside somebody who looks; return what it took."""
    looks: list[float] = []
    if client in ASYNC:

        async def main() -> tuple[Any, ...]:
            copy = await CLIENTS[client](dsn)
            await copy(is_in, 1)
            began = time.perf_counter(), *_usage()
            await copy(is_in, megabytes)
            ended = time.perf_counter(), *_usage()

            async def look() -> None:
                while True:
                    looks.append(time.perf_counter())
                    await asyncio.sleep(0.001)

            looking = asyncio.ensure_future(look())
            await copy(is_in, megabytes // 4)
            looks.append(time.perf_counter())
            looking.cancel()
            return began, ended

        began, ended = asyncio.run(main())
    else:
        copy = CLIENTS[client](dsn)
        copy(is_in, 1)
        began = time.perf_counter(), *_usage()
        copy(is_in, megabytes)
        ended = time.perf_counter(), *_usage()
        done = threading.Event()

        def look_too() -> None:
            while not done.wait(0.001):
                looks.append(time.perf_counter())

        thread = threading.Thread(target=look_too)
        thread.start()
        copy(is_in, megabytes // 4)
        done.set()
        thread.join()
        looks.append(time.perf_counter())
    wall, cpu, memory = (after - before for before, after in zip(began, ended, strict=True))
    return {"wall": wall, "cpu": cpu, "memory": memory, "stop": _longest(looks)}


# -- All of them

# The most CPU time: greenwait's for that of another client, or a client's for blocking psycopg2's.
_GOALS: dict[tuple[str, str], tuple[float, str]] = {
    ("greenwait", "in"): (1.1, "blocking psycopg2"),
    ("greenwait", "out"): (0.9, "blocking psycopg2"),
    ("psycopg 3", "in"): (0.8, "greenwait"),
    ("psycopg 3", "out"): (0.25, "greenwait"),
    ("asyncpg", "in"): (0.4, "greenwait"),
    ("asyncpg", "out"): (1.0, "greenwait"),
    ("greenwait, asyncio", "in"): (1.4, "blocking psycopg2"),
    ("greenwait, asyncio", "out"): (1.4, "blocking psycopg2"),
}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Measure COPY.")
    parser.add_argument("--megabytes", type=positive, default=1000)
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        client, direction, megabytes, dsn = options.one
        print(json.dumps(measure(client, direction == "in", int(megabytes), dsn)))
        return
    screen = console()
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    with Server() as server:
        import psycopg2

        dsn = server.dsn("unix")
        conn = psycopg2.connect(dsn)
        conn.cursor().execute(PREPARE)
        conn.commit()
        conn.close()
        runs = [(client, direction) for client in CLIENTS for direction in ("in", "out")]
        for _ in range(options.rounds):
            for client, direction in random.sample(runs, len(runs)):
                done = subprocess.run(
                    [
                        sys.executable,
                        __file__,
                        "--one",
                        client,
                        direction,
                        str(options.megabytes),
                        dsn,
                    ],
                    stdout=subprocess.PIPE,
                    check=True,
                )
                found.setdefault((client, direction), []).append(json.loads(done.stdout))
    for direction in ("in", "out"):
        medians = {
            client: {
                what: median(each[what] for each in found[client, direction])
                for what in ("cpu", "wall", "memory", "stop")
            }
            for client in CLIENTS
        }
        rows = []
        for client, figures in medians.items():
            most = _GOALS.get((client, direction))
            reached = ""
            if most:
                ratio = figures["cpu"] / medians[most[1]]["cpu"]
                ratio = 1 / ratio if most[1] == "greenwait" else ratio
                reached = goal(f"{most[0]}", ratio <= most[0])
            rows.append(
                (
                    client,
                    f"{digits(figures['cpu'])} s",
                    digits(figures["cpu"] / medians["blocking psycopg2"]["cpu"]),
                    digits(medians["greenwait"]["cpu"] / figures["cpu"]),
                    digits(figures["wall"] / medians["blocking psycopg2"]["wall"]),
                    f"+{figures['memory']:.1f} MB",
                    f"{figures['stop']:.0f} ms",
                    reached,
                )
            )
        title = f"{options.megabytes} MB {direction}; medians of {options.rounds} rounds"
        columns = ("CPU", "/ blocking", "greenwait's / it", "time", "memory", "stop", "goal")
        screen.print(table_of(title, columns, rows))


if __name__ == "__main__":
    main()
