"""A program of some event loop's with fifty queries under way, while a fault strikes half of them.

    python -m tests.programs.fault_client LOOP PROXY_DSN DIRECT_DSN

A line on its standard input begins a round: it connects, prepares the steps, says "ready",
waits for another line, runs them, and says how far it is, and at last "well"; or in JSON
what was not.
"""

import contextlib
import faulthandler
import functools
import json
import os
import sys
import time
import traceback
import warnings

import psycopg2

from greenwait.connection import Connection
from tests.lab.queries import assert_usable
from tests.lab.steps import GRACE, STEPS, Outcome

IN_FLIGHT = 50

faulthandler.dump_traceback_later(300, exit=True)


def loops(kind):
    """Return what registers the callback, and what runs calls at the same time."""
    if kind == "gevent":
        import gevent

        from greenwait.gevent import patch_psycopg

        def run(calls):
            for job in [gevent.spawn(*call) for call in calls]:
                job.get(timeout=20)

    elif kind == "eventlet":
        warnings.simplefilter("ignore")
        import eventlet

        from greenwait.eventlet import patch_psycopg

        def run(calls):
            for job in [eventlet.spawn(*call) for call in calls]:
                job.wait()

    elif kind == "trio":
        import trio

        import greenwait
        import greenwait.trio

        patch_psycopg = greenwait.install

        async def run_all(calls):
            async with trio.open_nursery() as nursery:
                for call in calls:
                    nursery.start_soon(functools.partial(greenwait.trio.run, *call))

        def run(calls):
            trio.run(run_all, calls)

    else:
        import asyncio

        import uvloop

        import greenwait
        from greenwait import aio

        loop = (uvloop if kind == "uvloop" else asyncio).new_event_loop()
        patch_psycopg = greenwait.install

        async def run_all(calls):
            await asyncio.gather(*[aio.run(*call) for call in calls])

        def run(calls):
            loop.run_until_complete(asyncio.wait_for(run_all(calls), 20))

    return patch_psycopg, run


def connect(stack, dsn):
    """Connect, until the round is over."""
    conn = psycopg2.connect(dsn, connection_factory=Connection)
    stack.callback(conn.close)
    return conn


def go_on(conn):
    """Be one of those that do not notice."""
    for number in range(5):
        with conn.cursor() as cur:
            cur.execute("select %s from pg_sleep(0.01)", (number,))
            assert cur.fetchone() == (number,)


def play():
    """Run one round."""
    with contextlib.ExitStack() as stack:
        struck = [connect(stack, sys.argv[2]) for _ in range(IN_FLIGHT // 2)]
        others = [connect(stack, sys.argv[3]) for _ in range(IN_FLIGHT // 2)]
        steps = []
        for number, conn in enumerate(struck):
            steps.append(list(STEPS.values())[number % len(STEPS)](conn))
            next(steps[-1])
        print("ready", flush=True)
        sys.stdin.readline()
        calls = [(Outcome, conn, step) for conn, step in zip(struck, steps, strict=True)]
        run([*calls, *[(go_on, conn) for conn in others]])
        print("over", flush=True)
        sys.stdin.readline()
        for conn in struck + others:
            if not conn.closed:
                assert_usable(conn)
        assert not any(conn.closed for conn in others)
        for step in steps:
            step.close()


patch_psycopg, run = loops(sys.argv[1])
patch_psycopg(cancel_grace=GRACE)
descriptors = []
for _ in sys.stdin:
    try:
        play()
        print("closed", flush=True)
        sys.stdin.readline()
        give_up = time.monotonic() + 5
        descriptors.append(len(os.listdir("/proc/self/fd")))
        while descriptors[-1] > descriptors[0] and time.monotonic() < give_up:
            time.sleep(0.01)  # a thread that was given up closes its own
            descriptors[-1] = len(os.listdir("/proc/self/fd"))
        assert descriptors[-1] <= descriptors[0], descriptors
        print("well", flush=True)
    except BaseException:
        print(json.dumps(traceback.format_exc()), flush=True)
