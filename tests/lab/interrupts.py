"""What interrupts a wait, and queries that take it in their own way."""

import os
import signal
import threading
import time

import pytest

import greenwait

# It ends with a success though it is cancelled.
DEAF = """
do $$ begin
    perform pg_sleep(20);
exception when query_canceled then
    perform set_config('greenwait.deaf', 'yes', false); null;
end $$
"""
DEAF_AND_LOUD = DEAF.replace("null", "raise notice 'no'")
FAILING = DEAF.replace("null", "raise division_by_zero")
FAILING_AND_LOUD = FAILING.replace("raise", "raise notice 'no'; raise")


class Limit(Exception):
    """What a worker's time limit raises, as Celery's SoftTimeLimitExceeded is."""


def send(number):
    return lambda: os.kill(os.getpid(), number)


def raising(exc):
    """Return a signal handler that raises *exc*, with nothing of an earlier test about it."""
    exc.__cause__ = exc.__context__ = None

    def handler(*_):
        raise exc

    return handler


LIMIT = Limit("soft limit", 7)


def interrupt_soon(seconds=0.2, number=signal.SIGINT):
    """Send this process a signal; return the timer that does so."""
    timer = threading.Timer(seconds, os.kill, (os.getpid(), number))
    timer.daemon = True
    timer.start()
    return timer


def timed_out(conn, seconds, query="select pg_sleep(10)"):
    """Execute *query* with a timeout; return the exception, and how long it took."""
    began = time.monotonic()
    with pytest.raises(greenwait.QueryTimeout) as info, greenwait.timeout(seconds):
        conn.cursor().execute(query)
    return info.value, time.monotonic() - began
