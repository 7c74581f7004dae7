"""Connecting to several hosts: their string, a name server, and the time that it takes."""

import contextlib
import gc
import re
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg2
import psycopg2.extras
import pytest
from psycopg2.extensions import make_dsn

import greenwait
import greenwait.aio
from tests.lab.hosts import dropping_listener, refusing_port, silent_listener
from tests.lab.leaks import no_leaked_descriptors
from tests.lab.postgres import DATABASE, USER

CONNECTS: dict[str, Callable[..., Any]] = {
    "psycopg2": psycopg2.connect,
    "greenwait": greenwait.connect,
}
BAD_HOSTS = {
    "silent": silent_listener,
    "dropping": dropping_listener,
    "refusing": refusing_port,
}
SLOW_NAME = "slow.invalid"

#: What a host's connect_timeout of one second looks like, on a busy machine too: that it was no
#: more is seen by the time that all of it took.
ONE_SECOND = re.compile(r"timed out after [1-9]\.\d s")


def dsn_of(*ports, **options):
    """Return the connection string of these ports of this host, tried one after another."""
    own = {"host": ",".join(["127.0.0.1"] * len(ports)), "port": ",".join(map(str, ports))}
    return make_dsn(**{"user": USER, "dbname": DATABASE, "sslmode": "disable"} | own | options)


@contextlib.contextmanager
def name_server(monkeypatch, **names):
    """Look up these names: an address, or a list, or how many seconds it takes to say nothing."""
    asked = []
    answered = []
    ended = threading.Event()
    real = socket.getaddrinfo

    def getaddrinfo(host, *args, **keywords):
        asked.append((host, threading.get_ident()))
        answer = names.get(host.partition(".")[0]) if host.endswith(".invalid") else host
        try:
            if isinstance(answer, (int, float)):
                ended.wait(answer)
                answer = None
            if answer is None:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            found = []
            for address in [answer] if isinstance(answer, str) else answer:
                found += real(address, *args, **keywords)
            return found
        finally:
            answered.append(host)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    try:
        yield asked
    finally:
        ended.set()
        give_up = time.monotonic() + 10
        while len(answered) < len(asked) and time.monotonic() < give_up:
            time.sleep(0.001)


def port_of(conn):
    """Use the connection; return where it leads."""
    with conn, conn.cursor() as cursor:
        cursor.execute("select 1")
        assert cursor.fetchone() == (1,)
    port = conn.info.port
    conn.close()
    return port


@contextlib.contextmanager
def stalls():
    """Yield a list of the times, in seconds, for which no thread of this process could run."""
    found: list[float] = []
    done = threading.Event()

    def tick():
        last = time.monotonic()
        while not done.is_set():
            time.sleep(0.01)
            now = time.monotonic()
            if now - last > 0.1:
                found.append(now - last)
            last = now

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


def connected(connect, dsn, live, seconds=float("inf")):
    """Return a connection that was made within *seconds*; on a busy machine one of three counts.

    The server, at the port *live*, or the look-up of a name that has an address, db.invalid, may
    itself not have answered within the connect_timeout.
    """
    busy = (f"port {live} timed out", '"db.invalid" to address: no answer')
    for _ in range(3):
        began = time.monotonic()
        try:
            conn = connect(dsn)
        except psycopg2.OperationalError as exc:
            if not any(text in str(exc) for text in busy):
                raise
            continue
        if time.monotonic() - began < seconds:
            return conn
        conn.close()
    return pytest.fail("it was never made in time")


@contextlib.contextmanager
def fails(seconds, *, within=0.95, match=None):
    """The block raises an OperationalError so long after it began; yields where that will be."""
    began = time.monotonic()
    with no_leaked_descriptors():
        with stalls() as stalled, pytest.raises(psycopg2.OperationalError, match=match) as info:
            yield info
        took = time.monotonic() - began
        assert seconds - 0.01 <= took < seconds + within + sum(stalled)
        info.value.__traceback__ = None
        gc.collect()


def connect_in_threads(dsn, count):
    """Connect so many times at once; return where to."""
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(port_of(greenwait.connect(dsn))), daemon=True)
        for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return found
