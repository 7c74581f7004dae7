"""``with`` blocks of greenwait's under signals: entered and left, or neither."""

import ctypes
import functools
import gc
import signal
import socket
import sys

import pytest
from psycopg2.extensions import POLL_READ, get_wait_callback

import greenwait
from greenwait import _install
from greenwait._callback import wait_at_most
from greenwait._greenlets.hub import SharedHub, hub_here
from tests.lab.random_moments import interrupted

BLOCKS = {
    "timeout": lambda pool: greenwait.timeout(0),
    "Hub": lambda pool: greenwait.Hub(),
    "SharedHub": lambda pool: SharedHub(),
    "installed": lambda pool: greenwait.installed(),
    "Pool.connection": lambda pool: pool.connection(),
}


class Struck(Exception):
    pass


@pytest.fixture
def pool(callback, server):
    with greenwait.Pool(server.dsn(server.transports[0]), max_size=1) as pool:
        pool.putconn(pool.getconn())
        yield pool


class Silent:
    """What nothing ever comes from."""

    def __init__(self, quiet):
        self.fileno = quiet.fileno

    def poll(self):
        return POLL_READ


@pytest.fixture
def silent():
    """What is waited for until a deadline."""
    quiet, peer = socket.socketpair()
    with quiet, peer:
        yield Silent(quiet)


def assert_nothing_is_entered(pool, silent):
    assert hub_here() is None
    assert _install._entries == []
    assert pool.stats().in_use == 0
    assert not wait_at_most(silent, 0.01)  # of no other deadline


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="sends a signal")
@pytest.mark.parametrize("kind", BLOCKS)
def test_signal_before_a_block_takes_effect_is_acted_on_there(kind, pool, silent, on_signal):
    """CPython 3.14 acts on it after __enter__(), and before anything protects the block."""
    raise_signal = ctypes.PyDLL(None)["raise"]

    def strike(*_):
        raise Struck

    on_signal(signal.SIGUSR1, strike)
    block = BLOCKS[kind](pool)
    steps = [functools.partial(raise_signal, signal.SIGUSR1), functools.partial(block.__enter__)]
    with pytest.raises(Struck):
        list(map(functools.partial.__call__, steps))  # no Python code between the two
    assert_nothing_is_entered(pool, silent)
    with BLOCKS[kind](pool):
        pass
    assert_nothing_is_entered(pool, silent)


def run_gather(pool, silent):
    assert greenwait.gather(lambda: 1, lambda: 2) == [1, 2]


def run_map(pool, silent):
    assert list(greenwait.map(str, range(3), concurrency=2)) == ["0", "1", "2"]


def run_installed(pool, silent):
    with greenwait.installed():
        pass


def run_decorated(pool, silent):
    greenwait.installed()(get_wait_callback)()


def run_timeout(pool, silent):
    assert not wait_at_most(silent, 0)


not_on_3_14 = pytest.mark.skipif(
    sys.version_info[:2] == (3, 14), reason="the block is Python's own, cpython issue 148874"
)


@pytest.mark.parametrize(
    "function",
    [
        run_gather,
        run_map,
        pytest.param(run_installed, marks=not_on_3_14),
        run_decorated,
        run_timeout,
    ],
)
def test_function_that_is_interrupted_at_any_moment_leaves_no_block_entered(function, pool, silent):
    registered = get_wait_callback()
    gc.collect()  # what it runs, a weak reference's callback, is not to be interrupted
    assert interrupted(lambda: function(pool, silent), microseconds=150, times=1500) > 0
    assert_nothing_is_entered(pool, silent)
    assert get_wait_callback() is registered
