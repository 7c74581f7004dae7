"""Wait for what another thread or process does, and not for ever."""

import contextlib
import threading
import time

import greenwait
from tests.lab.bounds import bound

__all__ = ["TIMEOUT", "takes", "until", "when", "when_waiting"]

TIMEOUT = bound(30)  # seconds


def until(happened):
    """Return as soon as *happened()*."""
    give_up = time.monotonic() + TIMEOUT
    while not happened():
        assert time.monotonic() < give_up
        time.sleep(0.001)


@contextlib.contextmanager
def when(wait, action):
    """In the ``with`` block, run *action* in a thread as soon as *wait()* has returned there."""

    def run():
        wait()
        action()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join(TIMEOUT + 5)
    assert not thread.is_alive()


def when_waiting(action):
    """In the ``with`` block, run *action* in a thread as soon as the main one waits."""
    waits = greenwait.stats().waits
    return when(lambda: until(lambda: greenwait.stats().waits > waits), action)


@contextlib.contextmanager
def takes(at_least, less_than):
    """Assert that the ``with`` block takes so many seconds, or more where bounds are wider."""
    began = time.monotonic()
    yield
    assert at_least <= time.monotonic() - began < bound(less_than)
