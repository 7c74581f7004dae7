"""A pool of two, for every callback."""

import threading

import pytest

import greenwait
from tests.lab.leaks import no_leaked_descriptors
from tests.lab.queries import one


@pytest.fixture
def dsn(server):
    return server.dsn("unix") if "unix" in server.transports else server.dsn()


@pytest.fixture(name="pool")
def _pool(callback, connect, dsn, watcher):
    """A pool of two."""
    one(connect(), "select pg_sleep(0.001)")  # it opens what this thread keeps, and
    first = threading.Thread(target=one, args=(connect(), "select pg_sleep(0.001)"), daemon=True)
    first.start()  # what all others keep
    first.join(20)
    with no_leaked_descriptors(), greenwait.Pool(dsn, max_size=2, timeout=20) as pool:
        yield pool
