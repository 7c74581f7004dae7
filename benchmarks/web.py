"""What does a request cost that asks the database, in FastAPI with SQLAlchemy?

    python benchmarks/web.py [--loop uvloop|asyncio] [--clients N] [--requests N] [--rounds N]

The sites are those of ``examples/``: ``fastapi_async.py`` on greenwait, asyncpg and psycopg 3,
where nothing differs but the URL of the engine, and ``fastapi_sync.py``, whose synchronous sessions
run below ``greenwait.aio.run()``. Each is a process of its own, uvicorn's, and all of them are
there at the same time; each has a database of its own on the same server, over a unix socket, and a
pool of twenty connections.

So many clients, on one event loop in this process, send their requests one after the other on a
connection that is kept. A round has a block of each kind of request for each site, in an order
shuffled anew; ratios are formed within a round. There are two kinds: an account that is looked up
(a transaction with one ``select``), and a transfer (two rows locked, two updated, committed), for
which each client has accounts of its own, so that nobody waits for a lock.

CPU is that of the site's process, by getrusage(2), user and system, with all that a request costs
in uvicorn, FastAPI and SQLAlchemy; neither the server's nor the clients'. Requests per second are
those of one process, beside clients and a PostgreSQL that need the same cores.

Needs ``pip install -e '.[binary,test,bench]'``.
"""

import argparse
import asyncio
import contextlib
import os
import random
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psycopg2
import uvicorn
from psycopg2.extensions import parse_dsn
from rich.table import Table
from sqlalchemy import URL

from benchmarks.figures import digits, positive, ratio_text, table_of, time_text
from benchmarks.measure import Sample, Spread
from benchmarks.runner import run
from benchmarks.workloads import WrongResultError
from tests.lab.postgres import Server, reserved_port

__all__ = ["main"]

_EXAMPLES = Path(__file__).parent.parent / "examples"
_BALANCE = 1_000_000
_PEER = "asyncpg"


class _Site(NamedTuple):
    """One of the examples, and the driver of its engine."""

    title: str
    module: str
    driver: str


_SITES = {
    "greenwait_async": _Site("async engine, greenwait", "fastapi_async", "greenwait_async"),
    "asyncpg": _Site("async engine, asyncpg", "fastapi_async", "asyncpg"),
    "psycopg": _Site("async engine, psycopg 3", "fastapi_async", "psycopg"),
    "greenwait": _Site("sync sessions, greenwait.aio.run()", "fastapi_sync", "greenwait"),
}


# -- The site's process


def _serve(module: str, port: int, loop: str) -> None:
    """Serve it; for each line on stdin, say how much CPU time that has taken so far."""

    def tell() -> None:
        for _ in sys.stdin:
            used = resource.getrusage(resource.RUSAGE_SELF)
            print(used.ru_utime + used.ru_stime, flush=True)
        os._exit(0)  # who has started it is gone

    threading.Thread(target=tell, daemon=True).start()
    sys.path.insert(0, str(_EXAMPLES))
    uvicorn.run(
        f"{module}:app",
        port=port,
        loop=loop,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=600,
    )


class _Process:
    """A site that runs, in a database of its own."""

    def __init__(self, site: _Site, port: int, loop: str, dsn: str) -> None:
        where = parse_dsn(dsn)
        url = URL.create(
            f"postgresql+{site.driver}",
            where["user"],
            database=where["dbname"],
            query={"host": where["host"], "port": where["port"]},
        )
        self.port = port
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", site.module, str(port), loop],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"DATABASE_URL": url.render_as_string(hide_password=False)},
        )

    def cpu_seconds(self) -> float:
        """Return what it has used so far."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def end(self) -> None:
        """Stop it."""
        self._process.terminate()
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate(timeout=20)


@contextlib.contextmanager
def _serving(site: _Site, loop: str, server: Server) -> Iterator[_Process]:
    name = f"web_{site.driver}"
    with contextlib.closing(psycopg2.connect(server.dsn("unix"))) as conn:
        conn.autocommit = True
        conn.cursor().execute(f"create database {name}")
    with reserved_port() as port:
        process = _Process(site, port, loop, server.dsn("unix", dbname=name))
        try:
            yield process
        finally:
            process.end()


# -- The clients


class _Client:
    """A connection to a site that is kept, and two accounts."""

    def __init__(self, number: int) -> None:
        self.names = (f"{number}a", f"{number}b")

    async def connect(self, port: int) -> None:
        """Connect, as soon as the site is there."""
        for _ in range(600):
            with contextlib.suppress(ConnectionRefusedError):
                self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
                return
            await asyncio.sleep(0.05)
        raise WrongResultError("the site has not started")

    async def ask(self, request: str) -> bytes:
        """Send a request; return the body of the answer."""
        self.writer.write(f"{request} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        length = head.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]
        body = await self.reader.readexactly(int(length))
        if not head.startswith(b"http/1.1 200 "):
            raise WrongResultError(f"{request}: {(head + body).decode()}")
        return body

    async def open_accounts(self) -> None:
        """Open its accounts."""
        for name in self.names:
            await self.ask(f"POST /accounts/{name}?balance={_BALANCE}")

    async def look_up(self, count: int) -> None:
        """Ask for an account, so often."""
        for number in range(count):
            name = self.names[number % 2]
            if f'"{name}"'.encode() not in await self.ask(f"GET /accounts/{name}"):
                raise WrongResultError("it is another account")

    async def transfer(self, count: int) -> None:
        """Move an amount from one account to the other, so often, and back next time."""
        source, target = self.names
        for _ in range(count):
            await self.ask(f"POST /transfer?source={source}&target={target}&amount=1")
        self.names = (target, source)


_KINDS = {"an account is looked up": _Client.look_up, "a transfer": _Client.transfer}


async def _block(clients: Sequence[_Client], process: _Process, kind: str, requests: int) -> Sample:
    """Return what a request took, of as many for each client."""
    count = requests // len(clients)
    total = count * len(clients)
    cpu, began = process.cpu_seconds(), time.perf_counter()
    await asyncio.gather(*(_KINDS[kind](client, count) for client in clients))
    seconds = time.perf_counter() - began
    return Sample(total, seconds / total, (process.cpu_seconds() - cpu) / total)


_Samples = dict[tuple[str, str], list[Sample]]  # by the kind and the site


async def _rounds(processes: dict[str, _Process], options: argparse.Namespace) -> _Samples:
    clients: dict[str, list[_Client]] = {}
    for name, process in processes.items():
        clients[name] = [_Client(number) for number in range(options.clients)]
        for client in clients[name]:
            await client.connect(process.port)
            await client.open_accounts()
    samples: _Samples = {(kind, name): [] for kind in _KINDS for name in processes}
    for number in range(options.rounds + 1):  # the first one warms up
        for kind, name in random.sample([*samples], len(samples)):
            found = await _block(clients[name], processes[name], kind, options.requests)
            if number:
                samples[kind, name].append(found)
    for client in (each for own in clients.values() for each in own):
        client.writer.close()
    return samples


def _check_money(server: Server, site: _Site, clients: int) -> None:
    with contextlib.closing(psycopg2.connect(server.dsn("unix", dbname=f"web_{site.driver}"))) as c:
        cur = c.cursor()
        cur.execute("select count(*), sum(balance) from accounts")
        if cur.fetchall() != [(2 * clients, 2 * clients * _BALANCE)]:
            raise WrongResultError(f"{site.title}: money was lost or made")


def _tables(samples: _Samples, names: Sequence[str], loop: str) -> Iterator[Table]:
    for kind in _KINDS:
        rows = []
        for name in names:
            own, peers = samples[kind, name], samples[kind, _PEER]
            cpu = Spread.of([each.cpu_seconds for each in own])
            both = zip(own, peers, strict=True)
            ratio = median(each.cpu_seconds / peer.cpu_seconds for each, peer in both)
            cells = (
                f"{Spread.of([1 / each.seconds for each in own]).median:,.0f}",
                time_text(cpu.median),
                f"{digits(cpu.p10 * 1e6)} - {digits(cpu.p90 * 1e6)}",
                ratio_text(ratio),
            )
            rows.append((_SITES[name].title, *cells))
        headings = ("requests/s", "CPU each", "10 - 90 %", "CPU / asyncpg's")
        yield table_of(f"FastAPI on {loop}: {kind}", headings, rows)


def _measure(options: argparse.Namespace, server: Server) -> list[Table]:
    with contextlib.ExitStack() as cleanup:
        processes = {
            name: cleanup.enter_context(_serving(site, options.loop, server))
            for name, site in _SITES.items()
        }
        samples = asyncio.run(_rounds(processes, options))
    for site in _SITES.values():
        _check_money(server, site, options.clients)
    return [*_tables(samples, [*_SITES], options.loop)]


def main() -> None:
    """Run the command."""
    if sys.argv[1:2] == ["--serve"]:
        _serve(sys.argv[2], int(sys.argv[3]), sys.argv[4])
        return
    parser = argparse.ArgumentParser(description="Measure what a request costs.")
    parser.add_argument("--loop", choices=["uvloop", "asyncio"], default="uvloop")
    parser.add_argument("--clients", metavar="N", type=positive, default=32)
    parser.add_argument("--requests", metavar="N", type=positive, default=960, help="of a block")
    parser.add_argument("--rounds", metavar="N", type=positive, default=12)
    options = parser.parse_args()
    run(lambda server: _measure(options, server))
    each = f"{options.rounds} rounds of {options.requests} requests of each kind"
    print(f"settings: {options.clients} clients of each site; {each}")


if __name__ == "__main__":
    main()
