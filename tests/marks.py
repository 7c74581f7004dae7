"""Marks of tests that make no sense everywhere."""

import os
import selectors

import pytest

from greenwait._psycopg.libpq import FAST_PATHS
from greenwait._sleep import POLLERS
from tests.fault_lab import shutdown_ends_an_attempt

__all__ = [
    "needs_epoll",
    "needs_fork",
    "needs_refusal",
    "needs_shutdown",
    "needs_silent_shutdown",
    "selects",
]

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork(2) here")
#: asyncio's event loop has no more than select(2), which fails for all when one is closed.
selects = issubclass(selectors.DefaultSelector, selectors.SelectSelector)

needs_epoll = pytest.mark.skipif("epoll" not in POLLERS, reason="there is no epoll(7) here")

#: An interrupt that meets a success is to cost nothing.
needs_refusal = pytest.mark.skipif(
    FAST_PATHS["interrupt"] != "on",
    reason="without libpq's functions an interrupt that meets a success costs the connection",
)

#: libpq goes on to the next host by itself where the attempt fails.
_ENDS = shutdown_ends_an_attempt()
needs_shutdown = pytest.mark.skipif(
    not _ENDS, reason="shutdown(2) does not end an attempt to connect here"
)
needs_silent_shutdown = pytest.mark.skipif(
    _ENDS, reason="shutdown(2) ends an attempt to connect here"
)
