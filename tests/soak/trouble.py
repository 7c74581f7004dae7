"""What strikes: connections through the proxies, their server processes, and the server."""

import contextlib
import os
import signal
import time
from typing import Any

import psycopg2

from tests.lab.fault_proxy import FaultProxy
from tests.lab.steps import FAULTS

_LONGEST = 4.0  # seconds; a grace is shorter, so that some are not answered
_PAUSE = 60.0  # seconds from one restart of the server to the next
_UP = 60.0  # seconds in which the server must be up again


class Striker:
    """Strikes at one context's mortal connections."""

    def __init__(self, kind, proxy: FaultProxy, rng, counts) -> None:
        self.kind, self.proxy, self.rng, self.counts = kind, proxy, rng, counts
        self._ends = 0.0
        self._next = 0.0

    def go_on(self, watcher: "Watcher") -> None:
        """Do what is due."""
        now = time.monotonic()
        if self._ends:
            if now > self._ends:
                self.proxy.clear()
                self.proxy.forget_closed()
                self._ends, self._next = 0.0, now + self.rng.random() * 0.3
        elif now > self._next:
            if self.rng.random() < 0.2:
                self._terminate(watcher)
                self._next = now + self.rng.random() * 0.3
            else:
                self._inject(now)

    def _inject(self, now: float) -> None:
        there = [each for each in self.proxy.connections if each.is_open]
        if not there:
            return
        name = self.rng.choice(sorted(FAULTS))
        self.proxy.inject(*FAULTS[name](self.rng.choice(there)))
        self.counts["faults"] += 1
        is_long = self.rng.random() < 0.15
        self._ends = now + self.rng.random() * (_LONGEST if is_long else 0.5)

    def _terminate(self, watcher: "Watcher") -> None:
        how = self.rng.choice(["pg_terminate_backend", "pg_terminate_backend", "pg_cancel_backend"])
        query = (
            f"select {how}(pid) from (select pid from pg_stat_activity where application_name = %s"
            " order by pid offset %s limit 1) chosen"
        )
        if watcher.ask(query, f"mortal {self.kind}", self.rng.randrange(5)):
            self.counts[how] += 1


class Watcher:
    """A connection of the parent's, which is made again when the server was restarted."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._conn: Any = None

    def ask(self, query, *parameters):
        """Return the rows."""
        if self._conn is None:
            self._conn = psycopg2.connect(self._dsn, application_name="watcher")
            self._conn.autocommit = True
        with self._conn.cursor() as cur:
            cur.execute(query, parameters)
            return cur.fetchall()

    def close(self):
        if self._conn is not None:
            self._conn.close()
        self._conn = None


class Restarts:
    """Restarts the server, in one of several ways, and says so on the board."""

    def __init__(self, server, board, watcher, rng, counts, end) -> None:
        self.server, self.board, self.watcher = server, board, watcher
        self.rng, self.counts, self.end = rng, counts, end
        self._next = self._some_time()

    def _some_time(self):
        return time.monotonic() + self.rng.uniform(0.3, 1.0) * _PAUSE

    def go_on(self):
        """Do it, if it is due, and not at the very end."""
        if time.monotonic() < self._next or time.monotonic() > self.end - 15:
            return
        way = self.rng.choice(["immediate", "fast", "crash"])
        self.board.shake()
        if way == "crash":
            self._crash()
        else:
            self.watcher.close()
            self.server.restart(signal.SIGQUIT if way == "immediate" else signal.SIGINT)
        self._wait()
        self.board.shake()
        self.counts[f"restarts, {way}"] += 1
        self._next = self._some_time()

    def _crash(self):
        """Kill a process that stays: the postmaster has all others end, and recovers."""
        query = "select pid from pg_stat_activity where backend_type = 'walwriter'"
        os.kill(self.watcher.ask(query)[0][0], signal.SIGKILL)
        give_up = time.monotonic() + _UP
        with contextlib.suppress(psycopg2.Error):  # a server that hangs up is a DatabaseError
            while time.monotonic() < give_up:  # until it has noticed
                self.watcher.ask("select 1")
                time.sleep(0.01)
            raise AssertionError("the server does not mind")
        self.watcher.close()

    def _wait(self):
        """Wait until it is up; begin again if it could not start."""
        give_up = time.monotonic() + _UP
        while True:
            time.sleep(0.2)
            with contextlib.suppress(psycopg2.Error):
                self.watcher.ask("select 1")
                return
            self.watcher.close()
            if time.monotonic() > give_up:
                raise AssertionError(f"the server is not up again:\n{self.server.log()}")
            if not self.server.is_running:
                self.server.restart()
