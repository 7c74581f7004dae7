"""A thread whose C stack is as small as musl's: its greenlets have all of it, too."""

import os
import subprocess
import sys

import pytest

from tests.lab.programs import WARNINGS

STACK = 128 * 1024  # musl's, pthread_create(3)

RECURSE = """
import asyncio, sys, threading
import psycopg2
import greenwait
from greenwait import aio

dsn, how, depth = sys.argv[1], sys.argv[2], int(sys.argv[3])
greenwait.install()
conn = psycopg2.connect(dsn)  # libpq needs more of a stack for that
sys.setrecursionlimit(100_000)

def recurse(n):  # through C: map() calls it
    if n:
        return next(map(recurse, (n - 1,)))
    cur = conn.cursor()
    cur.execute("select 42")
    return cur.fetchone()[0]

async def main():
    return recurse(depth) if how == "plain" else await aio.run(recurse, depth)

found = []
threading.stack_size(STACK)
thread = threading.Thread(target=lambda: found.append(asyncio.run(main())))
thread.start()
thread.join()
assert found == [42]
"""


@pytest.fixture
def survives(server):
    """Return a function that tells whether a query at this depth does not end the process."""
    script = RECURSE.replace("STACK", str(STACK))

    def survives(how, depth):
        command = [sys.executable, *WARNINGS, "-c", script, server.dsn(server.transports[0])]
        done = subprocess.run(
            [*command, how, str(depth)], capture_output=True, timeout=40, check=False
        )
        return done.returncode == 0

    return survives


@pytest.mark.skipif(
    os.environ.get("GREENWAIT_TEST_PLATFORM") == "no_epoll",
    reason="our C takes this for a system that does not tell how large a stack is",
)
def test_call_recurses_as_deep_as_without_a_greenlet(survives):
    assert survives("plain", 0)
    fits, too_deep = 0, 1024
    while too_deep - fits > 8:
        depth = (fits + too_deep) // 2
        if survives("plain", depth):
            fits = depth
        else:
            too_deep = depth
    assert fits > 50
    # CPython as of 3.14 keeps a part of a small stack for itself: of the rest a tenth is little.
    assert survives("run", fits - max(fits // 10, 16))
