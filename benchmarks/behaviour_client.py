"""A process that tries one wait callback in one situation; ``behaviour.py`` starts it.

    python benchmarks/behaviour_client.py SITUATION CALLBACK DSN

Each line on its standard output is a JSON object that says what has come of it. It imports no more
than the callback needs: with greenwait imported, psycopg2 decodes what it receives in C, whichever
callback is registered.
"""

import argparse
import contextlib
import importlib
import json
import os
import random
import resource
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import psycopg2.extras
from psycopg2.extensions import connection, set_wait_callback

_DEADLINE = 0.5  # seconds
_SLEEP = "select pg_sleep(20)"
_DESCRIPTORS = 1100
_NOTIFICATIONS = 2000  # in an answer
_STRIKES = 40
_STRIKING_SECONDS = 2.0


def _tell(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def _raised(exc: BaseException | None) -> str:
    return "" if exc is None else type(exc).__name__


def _is_usable(conn: connection) -> bool:
    if conn.closed:
        return False
    with conn.cursor() as cur:
        cur.execute("select 6 * 7")
        return cur.fetchone() == (42,)


# -- The callbacks, and how a program under each bounds a query


def _register(callback: str) -> None:
    if callback == "wait_select":
        set_wait_callback(psycopg2.extras.wait_select)
    elif callback == "psycogreen":
        from psycogreen.gevent import patch_psycopg

        patch_psycopg()
    else:
        import greenwait

        greenwait.install()


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block by a signal handler: what works under any callback."""

    def expire(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _bounded(callback: str, seconds: float) -> contextlib.AbstractContextManager[Any]:
    if callback == "greenwait":
        import greenwait

        return greenwait.timeout(seconds)
    if callback == "psycogreen":
        import gevent

        return gevent.Timeout(seconds)
    return _alarm(seconds)


# -- The situations


def _sleep(dsn: str, bounded: contextlib.AbstractContextManager[Any]) -> connection:
    """Sleep on the server until something ends that; tell what, and when."""
    conn = psycopg2.connect(dsn)
    conn.autocommit = True
    cur = conn.cursor()
    _tell(backend=conn.info.backend_pid)
    struck: BaseException | None = None
    began = time.monotonic()
    try:
        with bounded:
            cur.execute(_SLEEP)
    except BaseException as exc:
        struck = exc
    ended = time.monotonic()
    _tell(raised=_raised(struck), ended=ended, seconds=ended - began)
    return conn


def interrupted(callback: str, dsn: str) -> None:
    """Sleep until Ctrl-C comes."""
    conn = _sleep(dsn, contextlib.nullcontext())
    _tell(is_kept=_is_usable(conn))


def deadline(callback: str, dsn: str) -> None:
    """Sleep for longer than there is time."""
    conn = _sleep(dsn, _bounded(callback, _DEADLINE))
    _tell(is_kept=_is_usable(conn))


def frozen(callback: str, dsn: str) -> None:
    """Sleep until Ctrl-C comes; the server does not say anything any more."""
    _sleep(dsn, contextlib.nullcontext())


def descriptor(callback: str, dsn: str) -> None:
    """Query on a descriptor above 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(_DESCRIPTORS)]
    try:
        with contextlib.closing(psycopg2.connect(dsn)) as conn:
            _tell(raised="", fd=conn.fileno(), is_right=_is_usable(conn))
    except Exception as exc:
        _tell(raised=_raised(exc), fd=max(taken) + 1, is_right=False)


def connecting(callback: str, dsn: str) -> None:
    """Connect to a host that accepts and stays silent; the DSN has a connect_timeout."""
    _tell()
    began = time.monotonic()
    try:
        psycopg2.connect(dsn)
    except psycopg2.OperationalError as exc:
        _tell(raised=_raised(exc), seconds=time.monotonic() - began)


def two_greenlets(callback: str, dsn: str) -> None:
    """Commit in a greenlet while another one queries, on the same connection, under gevent."""
    gevent: Any = importlib.import_module("gevent")
    connect: Callable[[str], connection] = psycopg2.connect
    if callback == "greenwait":
        import greenwait.gevent

        greenwait.gevent.patch_psycopg()
        connect = greenwait.connect
    conn = connect(dsn)
    turns = during = 0

    def query() -> object:
        nonlocal during
        with conn.cursor() as cur:
            before = turns
            cur.execute("select 42 from pg_sleep(0.5)")
            during = turns - before
            return cur.fetchone()

    def count() -> None:
        nonlocal turns
        while True:
            gevent.sleep(0.01)
            turns += 1

    counting = gevent.spawn(count)
    querying = gevent.spawn(query)
    committing = gevent.spawn_later(0.1, conn.commit)
    _tell()
    gevent.joinall([querying, committing])
    counting.kill()
    errors = [_raised(each.exception) for each in (querying, committing) if each.exception]
    _tell(errors=errors, is_right=querying.value == (42,), turns=during)


class _Strike:
    """A Ctrl-C at some moment of an answer with notifications."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._is_inside = self._has_struck = False
        self._connect()
        signal.signal(signal.SIGALRM, self._raise)

    def _connect(self) -> None:
        self._conn = psycopg2.connect(self._dsn)
        self._conn.autocommit = True
        self._conn.cursor().execute("listen behaviour")

    def _raise(self, *_: object) -> None:
        if self._is_inside:
            self._has_struck = True
            raise KeyboardInterrupt

    def answer(self) -> None:
        with self._conn.cursor() as cur:
            cur.execute(
                "select pg_notify('behaviour', n::text) from generate_series(1, %s) n",
                (_NOTIFICATIONS,),
            )

    def clean_seconds(self) -> float:
        """Return how long it takes when nothing comes in between, the shortest of three times."""
        took = []
        for _ in range(3):
            began = time.monotonic()
            self.answer()
            took.append(time.monotonic() - began)
        return min(took)

    def after(self, seconds: float) -> tuple[int, int, int]:
        """Return how many interrupts, notifications and connections are lost by one more."""
        del self._conn.notifies[:]
        self._has_struck, came = False, True
        try:
            self._is_inside = True
            signal.setitimer(signal.ITIMER_REAL, seconds)
            self.answer()
            self._is_inside = came = False
        except (KeyboardInterrupt, psycopg2.Error):
            self._is_inside = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        lost = int(self._has_struck and not came)
        if self._conn.closed:
            self._connect()
            return lost, 0, 1
        got = len({each.payload for each in self._conn.notifies})
        # All, or none: then the query was stopped before its transaction had ended.
        return lost, (_NOTIFICATIONS - got) if got else 0, 0


def notification(callback: str, dsn: str) -> None:
    """Interrupt answers that have notifications, at random moments."""
    strike = _Strike(dsn)
    _tell()
    seconds, rng = strike.clean_seconds(), random.Random(1)
    enough = time.monotonic() + _STRIKING_SECONDS
    found: list[tuple[int, int, int]] = []
    while len(found) < _STRIKES and time.monotonic() < enough:
        found.append(strike.after(seconds * rng.uniform(0.2, 1)))
    interrupts, notifications, connections = map(sum, zip(*found, strict=True))
    _tell(
        strikes=len(found),
        lost=interrupts,
        notifications=notifications,
        connections=connections,
    )


SITUATIONS: dict[str, Callable[[str, str], None]] = {
    each.__name__: each
    for each in (
        interrupted,
        deadline,
        frozen,
        descriptor,
        connecting,
        two_greenlets,
        notification,
    )
}


def main() -> None:
    """Try it, and tell."""
    parser = argparse.ArgumentParser(description="Try a wait callback in a situation.")
    parser.add_argument("situation", choices=SITUATIONS)
    parser.add_argument("callback", choices=("wait_select", "psycogreen", "greenwait"))
    parser.add_argument("dsn")
    options = parser.parse_args()
    # In the background a shell has a program ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _register(options.callback)
    SITUATIONS[options.situation](options.callback, options.dsn)


if __name__ == "__main__":
    main()
