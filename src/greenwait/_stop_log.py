"""The log records of queries that were stopped: cancels, deadlines, a grace that ran out."""

import logging
from typing import Any

__all__ = ["log_cancel", "log_deadline", "log_stop"]

_logger = logging.getLogger("greenwait")


def log_stop(
    pid: int | None, reason: str, cancels: int, is_deadline: bool, grace: float | None
) -> None:
    """Log how a query was stopped.

    :param pid: that of its backend.
    :param reason: the class of the interrupt, or whose deadline has passed.
    :param cancels: the cancel requests that were sent.
    :param is_deadline: whether a deadline has ended the wait.
    :param grace: the seconds within which the server has not ended the query; None: it has.

    Called from the wait callback: the nearest frame is at the line that called ``execute()``.
    """
    extra = {"backend_pid": pid}
    if _logger.isEnabledFor(logging.DEBUG):
        if is_deadline:
            _logger.debug(
                "%s has struck a wait for backend %s", reason, pid, stacklevel=2, extra=extra
            )
        if cancels > 0:
            _logger.debug(
                "sent %d cancel request(s) to backend %s: %s",
                cancels,
                pid,
                reason,
                stacklevel=2,
                extra=extra,
            )
    if grace is not None:
        _logger.warning(
            "backend %s has not ended its query within the grace of %g s, and the connection is "
            "closed: %s",
            pid,
            grace,
            reason,
            stacklevel=2,
            extra=extra,
        )


def log_cancel(conn: Any) -> None:
    """Log that ``cancel()`` has sent a request."""
    if _logger.isEnabledFor(logging.DEBUG):
        pid = conn.info.backend_pid
        _logger.debug(
            "sent a cancel request to backend %s: cancel()",
            pid,
            stacklevel=2,
            extra={"backend_pid": pid},
        )


def log_deadline(reason: str) -> None:
    """Log a deadline that has ended a wait for something else than the server."""
    _logger.debug("%s has struck a wait for a connection or a lock", reason, stacklevel=2)
