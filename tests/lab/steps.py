"""Steps of a client's, faults that strike at them, and what a step may come to."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg2

import greenwait
from greenwait._sleep import POLLERS
from tests.lab.bounds import bound
from tests.lab.fault_proxy import Fault, FaultProxy
from tests.lab.leaks import no_leaked_descriptors
from tests.lab.postgres import Server

DEADLINE = 0.25  # seconds
GRACE = 0.25
BOUND = DEADLINE + GRACE + bound(6)  # on a machine that is busy with other tests
CALLBACKS = {
    poller: greenwait.WaitCallback(poller=poller, cancel_grace=GRACE) for poller in POLLERS
}
ROWS = 30_000


@dataclass
class Laboratory:
    """A proxy that misbehaves, and a connection beside it, to see what is true."""

    proxy: FaultProxy
    watcher: Any
    number: int = 0

    @classmethod
    @contextlib.contextmanager
    def on(cls, server: Server) -> Iterator["Laboratory"]:
        with FaultProxy(server) as proxy:
            watcher = psycopg2.connect(server.dsn("unix"))
            watcher.autocommit = True
            watcher.cursor().execute("create table if not exists kept (tag text)")
            for callback in CALLBACKS.values():  # it opens what this thread keeps
                psycopg2.extensions.set_wait_callback(callback)
                watcher.cursor().execute("select pg_sleep(0.01)")
            psycopg2.extensions.set_wait_callback(None)
            yield cls(proxy, watcher)
            watcher.close()

    def ask(self, query, *parameters):
        with self.watcher.cursor() as cur:
            cur.execute(query, parameters)
            return cur.fetchone()[0]


# -- The steps: each prepares a connection, and says what is done and what comes of it


def begin(conn):
    yield
    cur = conn.cursor()
    cur.execute("select 5")
    yield cur.fetchone(), (5,)


def send(conn):
    conn.cursor().execute("select 1")
    yield
    cur = conn.cursor()
    cur.execute("select length(%s)", ("x" * 3_000_000,))
    yield cur.fetchone(), (3_000_000,)


def wait(conn):
    conn.cursor().execute("select 1")
    yield
    cur = conn.cursor()
    cur.execute("select 5 from pg_sleep(0.05)")
    yield cur.fetchone(), (5,)


def wait_too_long(conn):
    conn.cursor().execute("select 1")
    yield
    conn.cursor().execute("select pg_sleep(20)")
    yield "the deadline has passed", None


def stream(conn):
    conn.cursor().execute("select 1")
    yield
    cur = conn.cursor()
    cur.execute(f"select g, repeat('x', 100) from generate_series(1, {ROWS}) g")
    yield sum(row[0] * len(row[1]) for row in cur), ROWS * (ROWS + 1) * 50


def fetch(conn):
    cur = conn.cursor("named")
    cur.execute("select generate_series(1, 20000)")
    yield
    yield len(cur.fetchall()), 20000


def rollback(conn):
    conn.cursor().execute("select 1")
    yield
    yield conn.rollback(), None


STEPS = {
    step.__name__: step for step in (begin, send, wait, wait_too_long, stream, fetch, rollback)
}


# -- The faults: what is injected when a step begins. Counts are of bytes from then on.


def at(proxied, kind, direction, more=0):
    """A fault that strikes when so many more bytes have passed."""
    passed = len(proxied.to_client if direction == "to_client" else proxied.to_server)
    return Fault(kind, direction, passed + more, only=lambda each: each is proxied)


LIMITED = [
    (kind, direction, more)
    for kind in ("stall", "cut", "reset", "half_close")
    for direction in ("to_client", "to_server")
    for more in (0, 1, 30)
]
FAULTS = {
    f"{kind} {direction} after {more}": (
        lambda proxied, kind=kind, direction=direction, more=more: [
            at(proxied, kind, direction, more)
        ]
    )
    for kind, direction, more in LIMITED
} | {
    "stall both": lambda proxied: [Fault("stall", only=lambda each: each is proxied)],
    "trickle": lambda proxied: [Fault("trickle")],
    "slow trickle": lambda proxied: [Fault("trickle", "to_client", 0.005)],
    "delay": lambda proxied: [Fault("delay", None, 0.03)],
    "long delay": lambda proxied: [Fault("delay", "to_client", 2)],
    "nobody cancels": lambda proxied: [Fault("ignore"), at(proxied, "stall", "to_client")],
    "cancel refused": lambda proxied: [Fault("refuse")],
}


class Outcome:
    """What a step has come to: checked for all that must be true of any."""

    def __init__(self, conn, step, deadline=DEADLINE):
        began = time.monotonic()
        self.exception = None
        try:
            with greenwait.timeout(deadline):
                got, expected = next(step)
            assert got == expected
        except psycopg2.Error as exc:
            self.exception = exc
        self.took = time.monotonic() - began
        assert self.took < BOUND
        if self.exception is None:
            assert not conn.closed
        elif not isinstance(self.exception, greenwait.QueryTimeout):
            assert isinstance(self.exception, psycopg2.OperationalError), self.exception
            assert conn.closed, self.exception
        else:
            assert not conn.closed

    @property
    def is_timeout(self):
        return isinstance(self.exception, greenwait.QueryTimeout)


@contextlib.contextmanager
def no_leaked_descriptors_of(proxy):
    """Of the client's, that is; the proxy's are dropped."""
    with no_leaked_descriptors():
        first = len(proxy.connections)
        yield
        proxy.drop(proxy.connections[first:])
