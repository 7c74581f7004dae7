"""A program of some event loop's with fifty queries under way, while a fault strikes half of them.

    python -m tests.programs.fault_client LOOP PROXY_DSN DIRECT_DSN

A line on its standard input begins a round: it connects, prepares the steps, says "ready",
waits for another line, runs them, and says how far it is, and at last "well"; or in JSON
what was not.
"""

import contextlib
import faulthandler
import json
import os
import sys
import time
import traceback
from functools import partial

import psycopg2

from greenwait.connection import Connection
from tests.lab.contexts import CONTEXTS
from tests.lab.queries import assert_usable
from tests.lab.steps import GRACE, STEPS, Outcome

IN_FLIGHT = 50

faulthandler.dump_traceback_later(300, exit=True)


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
        calls = [partial(Outcome, *each) for each in zip(struck, steps, strict=True)]
        began = time.monotonic()
        context.together([*calls, *[partial(go_on, conn) for conn in others]])
        assert time.monotonic() - began < 20
        print("over", flush=True)
        sys.stdin.readline()
        for conn in struck + others:
            if not conn.closed:
                assert_usable(conn)
        assert not any(conn.closed for conn in others)
        for step in steps:
            step.close()


context = CONTEXTS[sys.argv[1]](cancel_grace=GRACE)
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
