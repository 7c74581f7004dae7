"""The log records of slow waits, with the line of Python that waited."""

import logging
from typing import Any

from greenwait._frames import line_of_caller, stack_level

__all__ = ["log_slow_wait"]

_logger = logging.getLogger("greenwait")


def log_slow_wait(conn: Any, seconds: float) -> None:
    """Log that a wait for *conn* took *seconds*, and which line of the program waited."""
    pid = getattr(getattr(conn, "info", None), "backend_pid", None)
    _logger.warning(
        "waited %.3f s for backend %s at %s",
        seconds,
        pid,
        line_of_caller() or "no Python code",
        stacklevel=stack_level(),
        extra={"seconds": seconds, "backend_pid": pid},
    )
