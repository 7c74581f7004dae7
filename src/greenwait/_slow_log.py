"""The log records of slow waits, with the line of Python that waited."""

import logging
import sys
from typing import Any

__all__ = ["log_slow_wait"]

_logger = logging.getLogger("greenwait")


def log_slow_wait(conn: Any, seconds: float) -> None:
    """Log that a wait for *conn* took *seconds*.

    Called from the wait callback: the compiled callback and psycopg2 have no Python
    frames, so the nearest frame is at the line that called ``execute()``, ``connect()``, ...
    """
    pid = getattr(getattr(conn, "info", None), "backend_pid", None)
    try:
        frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    except ValueError:  # pragma: no cover: execute() is all that this thread was started for
        where = "no Python code"
    else:
        where = f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}()"
    _logger.warning(
        "waited %.3f s for backend %s at %s",
        seconds,
        pid,
        where,
        stacklevel=2,
        extra={"seconds": seconds, "backend_pid": pid},
    )
