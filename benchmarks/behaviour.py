"""What wait callbacks do when something goes wrong: each tried, in a process of its own.

    python benchmarks/behaviour.py [--json FILE]

``SITUATIONS`` are the columns of the table. The function of each runs ``behaviour_client.py`` with
one callback, does to it what the situation is about, and returns a Cell of what was seen. Nothing
that a callback does can stop the run: what takes longer than ``PATIENCE`` is killed.
"""

import argparse
import contextlib
import importlib.util
import json
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psycopg2
from psycopg2.extensions import connection, make_dsn

from tests.lab.freezers import frozen
from tests.lab.hosts import silent_listener
from tests.lab.postgres import Server

PATIENCE = 4.0  # seconds; what has not come by then is said never to come
_START = 20.0  # seconds that a process may take to begin, on a busy machine
_AT_ONCE = 5
_CONNECT_TIMEOUT = 2  # seconds, libpq's shortest
_STOPS_WITHIN = 1.0  # seconds after the exception
_CLIENT = Path(__file__).with_name("behaviour_client.py")

#: By name: the title, and the module that it needs.
CALLBACKS = {
    "wait_select": ("extras.wait_select", "psycopg2"),
    "psycogreen": ("psycogreen (gevent)", "psycogreen"),
    "greenwait": ("greenwait", "greenwait"),
}


@dataclass(frozen=True)
class Finding:
    """One thing that was seen, and whether it is what one would wish."""

    text: str
    is_good: bool


@dataclass(frozen=True)
class Cell:
    """What one callback did in one situation."""

    findings: tuple[Finding, ...]

    @property
    def is_good(self) -> bool:
        """Whether all of it is what one would wish."""
        return all(each.is_good for each in self.findings)


Table = dict[str, dict[str, Cell]]  # by situation, then by callback


class SilentError(Exception):
    """The process has not said anything in time."""


class _Trial:
    """A process that tries a callback."""

    def __init__(self, situation: str, callback: str, dsn: str) -> None:
        command = [sys.executable, "-W", "ignore", str(_CLIENT), situation, callback, dsn]
        # Unbuffered: select() then knows of all that has not been read.
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )

    def heard(self, seconds: float = PATIENCE) -> dict[str, Any]:
        """Return what it says next.

        :raises SilentError: it says nothing for so many seconds, or has ended.
        """
        stream = self.process.stdout
        assert stream is not None
        if not select.select([stream], [], [], seconds)[0]:
            raise SilentError
        line = stream.readline()
        if not line:
            raise SilentError
        found: dict[str, Any] = json.loads(line)
        return found

    def end(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.communicate()


@contextlib.contextmanager
def _trial(situation: str, callback: str, dsn: str) -> Iterator[tuple[_Trial, dict[str, Any]]]:
    """Start one; yield it, and what it has said as it began."""
    trial = _Trial(situation, callback, dsn)
    try:
        yield trial, trial.heard(_START)
    finally:
        trial.end()


class _Watcher:
    """Looks, by a connection of its own, at what the server process *pid* does."""

    def __init__(self, conn: connection, pid: int) -> None:
        self._cursor = conn.cursor()
        self._pid = pid

    def _becomes(self, condition: str, seconds: float) -> bool:
        give_up = time.monotonic() + seconds
        query = f"select count(*) from pg_stat_activity where pid = %s and {condition}"
        while True:
            self._cursor.execute(query, (self._pid,))
            if self._cursor.fetchone() == (1,):
                return True
            if time.monotonic() > give_up:
                return False
            time.sleep(0.005)

    def wait_until_asleep(self) -> None:
        """Return when it sleeps in ``pg_sleep()``."""
        assert self._becomes("wait_event = 'PgSleep'", _START)

    def stops(self) -> bool:
        """Whether its query ends soon."""
        give_up = time.monotonic() + _STOPS_WITHIN
        while self._becomes("state = 'active'", 0):
            if time.monotonic() > give_up:
                return False
            time.sleep(0.005)
        return True


@contextlib.contextmanager
def _watcher(server: Server, pid: int) -> Iterator[_Watcher]:
    """Watch the server process *pid* in the block, and end it after that."""
    with contextlib.closing(psycopg2.connect(server.dsn("unix"))) as conn:
        conn.autocommit = True
        try:
            yield _Watcher(conn, pid)
        finally:
            conn.cursor().execute("select pg_terminate_backend(%s)", (pid,))


def _never(what: str) -> Finding:
    return Finding(f"{what}: not within {PATIENCE:.0f} s", False)


def _arrival(seconds: float, raised: str, wanted: str) -> Finding:
    """Say when an exception arrived, and as which if that is not the one that was *wanted*."""
    other = f", as {raised or 'nothing'}" if wanted not in ("", raised) else ""
    return Finding(f"after {seconds:.2f} s{other}", not other and bool(raised))


def _query_stopped(is_stopped: bool) -> Finding:
    return Finding("query stopped" if is_stopped else "query goes on", is_stopped)


def _connection_kept(is_kept: bool) -> Finding:
    return Finding("connection kept" if is_kept else "connection lost", is_kept)


# -- The situations


def ctrl_c(callback: str, server: Server) -> Cell:
    """Send SIGINT while the server sleeps in a query."""
    with (
        _trial("interrupted", callback, server.dsn("unix")) as (trial, begun),
        _watcher(server, begun["backend"]) as watcher,
    ):
        watcher.wait_until_asleep()
        struck = time.monotonic()
        trial.process.send_signal(signal.SIGINT)
        try:
            came = trial.heard()
        except SilentError:
            return Cell((_never("Ctrl-C"),))
        is_stopped = watcher.stops()
        arrival = _arrival(came["ended"] - struck, came["raised"], "KeyboardInterrupt")
        is_kept = trial.heard()["is_kept"]
        return Cell((arrival, _query_stopped(is_stopped), _connection_kept(is_kept)))


def deadline(callback: str, server: Server) -> Cell:
    """Give a query half a second, by the callback's own means: SIGALRM where it has none."""
    with (
        _trial("deadline", callback, server.dsn("unix")) as (trial, begun),
        _watcher(server, begun["backend"]) as watcher,
    ):
        try:
            came = trial.heard()
        except SilentError:
            return Cell((_never("the deadline"),))
        is_stopped = watcher.stops()
        arrival = _arrival(came["seconds"], came["raised"], "")
        is_kept = trial.heard()["is_kept"]
        return Cell((arrival, _query_stopped(is_stopped), _connection_kept(is_kept)))


def frozen_server(callback: str, server: Server) -> Cell:
    """Send SIGINT while the connection's server process stands still."""
    with (
        _trial("frozen", callback, server.dsn("unix")) as (trial, begun),
        _watcher(server, begun["backend"]) as watcher,
    ):
        watcher.wait_until_asleep()
        with frozen(begun["backend"]):
            struck = time.monotonic()
            trial.process.send_signal(signal.SIGINT)
            try:
                came = trial.heard()
            except SilentError:
                return Cell((_never("Ctrl-C"),))
        arrival = _arrival(came["ended"] - struck, came["raised"], "KeyboardInterrupt")
        is_stopped = watcher.stops()
        words = "query stopped as it goes on" if is_stopped else "query goes on with it"
        return Cell((arrival, Finding(words, is_stopped)))


def descriptor(callback: str, server: Server) -> Cell:
    """Query on a socket whose number is above 1,024."""
    trial = _Trial("descriptor", callback, server.dsn("unix"))
    try:
        found = trial.heard(_START)
    except SilentError:
        return Cell((_never("the answer"),))
    finally:
        trial.end()
    text = "works" if found["is_right"] else found["raised"] or "a wrong answer"
    return Cell((Finding(text, found["is_right"]),))


def connect_timeout(callback: str, server: Server) -> Cell:
    """Connect with a connect_timeout to a host that accepts and says nothing."""
    with silent_listener() as port:
        dsn = make_dsn(host="127.0.0.1", port=port, connect_timeout=_CONNECT_TIMEOUT)
        with _trial("connecting", callback, dsn) as (trial, _):
            try:
                found = trial.heard()
            except SilentError:
                return Cell((_never("an error"),))
    return Cell((_arrival(found["seconds"], found["raised"], ""),))


def two_greenlets(callback: str, server: Server) -> Cell:
    """Commit while another greenlet of gevent queries; greenwait's is greenwait.connect()."""
    with _trial("two_greenlets", callback, server.dsn("unix")) as (trial, _):
        try:
            found = trial.heard()
        except SilentError:
            return Cell((Finding("the thread stops for ever", False),))
    both = Finding("each has its turn", True)
    if found["errors"] or not found["is_right"]:
        both = Finding(", ".join(found["errors"]) or "a wrong answer", False)
    # Of some fifty, at most, in the half second that the query takes.
    others = Finding("the others stand still meanwhile", False)
    if found["turns"] > 2:
        others = Finding("the others run meanwhile", True)
    return Cell((both, others))


def notification(callback: str, server: Server) -> Cell:
    """Raise in a signal handler, at random moments of answers with 2,000 notifications."""
    with _trial("notification", callback, server.dsn("unix")) as (trial, _):
        try:
            found = trial.heard(_START)
        except SilentError:
            return Cell((Finding("the process has ended, or hangs", False),))
    strikes = found["strikes"]

    def lost(what: str, count: int, of: str) -> Finding:
        return Finding(f"{what} lost: {count}{of}", count == 0)

    return Cell(
        (
            lost("Ctrl-C", found["lost"], f" of {strikes}"),
            lost("notifications", found["notifications"], ""),
            lost("connections", found["connections"], f" of {strikes}"),
        )
    )


_Try = Callable[[str, Server], Cell]

#: By name: the title, and what tries it. Its docstring says what is done.
SITUATIONS: dict[str, tuple[str, _Try]] = {
    "ctrl_c": ("Ctrl-C during a query", ctrl_c),
    "deadline": ("A deadline of 0.5 s", deadline),
    "frozen_server": ("Ctrl-C, the server is frozen", frozen_server),
    "connect_timeout": ("connect_timeout of 2 s, a silent host", connect_timeout),
    "two_greenlets": ("Two greenlets, one connection", two_greenlets),
    "notification": ("Notifications in an interrupted answer", notification),
    "descriptor": ("A descriptor above 1,024", descriptor),
}


def callbacks_here() -> list[str]:
    """Return the names of those whose module is installed."""
    return [name for name, (_, module) in CALLBACKS.items() if importlib.util.find_spec(module)]


def _situations_here() -> dict[str, tuple[str, _Try]]:
    without_proc = {} if sys.platform == "linux" else {"frozen_server": None}  # frozen() reads it
    return {name: each for name, each in SITUATIONS.items() if name not in without_proc}


def try_all(server: Server, told: Callable[[int, int], object] = lambda done, of: None) -> Table:
    """Try each callback in each situation, some at the same time; *told* is called after each."""
    callbacks, situations = callbacks_here(), _situations_here()
    table: Table = {name: {} for name in situations}
    # Those that are waited for the longest first.
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="behaviour") as threads:
        cells = {
            threads.submit(try_it, callback, server): (name, callback)
            for name, (_, try_it) in situations.items()
            for callback in callbacks
        }
        for done, future in enumerate(as_completed(cells), start=1):
            name, callback = cells[future]
            table[name][callback] = future.result()
            told(done, len(cells))
    return {name: {each: row[each] for each in callbacks} for name, row in table.items()}


def document(table: Table) -> dict[str, Any]:
    """Return the table as JSON has it, with the titles and with what was done."""
    return {
        "callbacks": {name: CALLBACKS[name][0] for name in next(iter(table.values()))},
        "situations": [
            {
                "name": name,
                "title": SITUATIONS[name][0],
                "tried": (SITUATIONS[name][1].__doc__ or "").splitlines()[0],
                "cells": {
                    callback: [asdict(each) for each in cell.findings]
                    for callback, cell in row.items()
                },
            }
            for name, row in table.items()
        ],
    }


def main() -> None:
    """Try all, print it, and write the file that was asked for."""
    from benchmarks.figures import console
    from benchmarks.report import behaviour_table
    from benchmarks.runner import facts_of

    parser = argparse.ArgumentParser(description="Try wait callbacks where something goes wrong.")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write what was seen")
    options = parser.parse_args()
    with Server() as server:
        found = document(try_all(server))
        facts = facts_of(server)
    console().print(behaviour_table(found))
    if options.json is not None:
        text = json.dumps({"format": 1, "behaviour": found} | facts, indent=1)
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
