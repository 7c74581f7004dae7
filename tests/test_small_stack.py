"""A thread whose C stack is as small as musl's: its greenlets have all of it, too."""

import os
import subprocess
import sys

import pytest

from tests.lab.bounds import bound
from tests.lab.programs import PROGRAMS, WARNINGS

STACK = 128 * 1024  # musl's, pthread_create(3)


@pytest.fixture
def survives(server):
    """Return a function that tells whether a query at this depth does not end the process."""

    def survives(how, depth):
        command = [sys.executable, *WARNINGS, str(PROGRAMS / "recursion.py")]
        arguments = [server.dsn(server.transports[0]), how, str(depth), str(STACK)]
        done = subprocess.run(
            [*command, *arguments], capture_output=True, timeout=bound(40), check=False
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
