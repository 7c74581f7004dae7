"""What the programs call of their framework, and of ours, by the same names for each."""

import importlib
import os
import sys
import time
from typing import Any

import psycopg2

from tests.lab.queries import one

DSN = sys.argv[1]
NAME = sys.argv[2].partition(",")[0]
framework: Any = importlib.import_module(NAME)

spawn: Any
sleep: Any
Timeout: Any
start_timeout: Any

if NAME == "gevent":
    import gevent
    import gevent.socket
    from gevent.monkey import get_original

    from greenwait.gevent import patch_psycopg as patch_psycopg

    spawn, sleep, Timeout = gevent.spawn, gevent.sleep, gevent.Timeout
    start_timeout = Timeout.start_new

    def join(jobs, timeout: float | None = 30):
        """Return their results; a timeout keeps the loop alive."""
        return [job.get(timeout=timeout) for job in jobs]

    def wait_write(fd):
        gevent.socket.wait_write(fd)

    def call_in_hub(function):
        gevent.get_hub().loop.run_callback(function)

    def original(module, name):
        """Return what the module has before it is patched."""
        return get_original(module, name)

else:
    import eventlet
    import eventlet.hubs
    from eventlet import patcher

    from greenwait.eventlet import patch_psycopg as patch_psycopg

    spawn, sleep, Timeout = eventlet.spawn, eventlet.sleep, eventlet.Timeout
    start_timeout = Timeout

    def join(jobs, timeout: float | None = 30):
        return [job.wait() for job in jobs]

    def wait_write(fd):
        eventlet.hubs.trampoline(fd, write=True)

    def call_in_hub(function):
        eventlet.hubs.get_hub().schedule_call_global(0, function)

    def original(module, name):
        """Return what the module has before it is patched."""
        return getattr(patcher.original(module), name)


def kill(job):
    job.kill()


def start_thread(function):
    """Have a native thread call it."""
    original("_thread", "start_new_thread")(function, ())


def connect(dsn: str = DSN, **options: Any) -> Any:
    return psycopg2.connect(dsn, **options)


def assert_stopped(pid):
    give_up = time.monotonic() + 0.5
    query = "select count(*) from pg_stat_activity where pid = %s and state = 'active'"
    while one(watcher, query, pid):
        assert time.monotonic() < give_up


def descriptors():
    return len(os.listdir("/proc/self/fd"))


patch_psycopg(cancel_grace=10)
watcher = connect()
watcher.autocommit = True
