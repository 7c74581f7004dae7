"""Processes that stand still: a server process, or the postmaster."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from tests.lab.bounds import bound
from tests.lab.postgres import Server

TIMEOUT = bound(30)  # seconds


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    """In the block, the process *pid* stands still (SIGSTOP)."""
    os.kill(pid, signal.SIGSTOP)
    try:
        give_up = time.monotonic() + TIMEOUT
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            assert time.monotonic() < give_up
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def frozen_postmaster(server: Server) -> contextlib.AbstractContextManager[None]:
    """In the block, *server* accepts nobody and serves no cancel request."""
    return frozen(server.pid)
