"""The log records of queries that were stopped: cancels, deadlines, a grace that ran out."""

import logging

from greenwait._frames import stack_level

__all__ = ["log_cancel", "log_deadline", "log_stop"]

_logger = logging.getLogger("greenwait")


def log_stop(
    pid: int | None, reason: str, cancels: int, is_deadline: bool, grace: float | None
) -> None:
    """Log how a query was stopped.

    :param pid: that of its backend.
    :param reason: the class of the interrupt, or whose deadline has passed.
    :param cancels: the cancel requests that the server has taken.
    :param is_deadline: whether a deadline has ended the wait.
    :param grace: the seconds within which the server has not ended the query; None: it has.
    """
    extra = {"backend_pid": pid}
    if _logger.isEnabledFor(logging.DEBUG):
        level = stack_level()
        if is_deadline:
            text = "%s has struck a wait for backend %s"
            _logger.debug(text, reason, pid, stacklevel=level, extra=extra)
        if cancels > 0:
            text = "sent %d cancel request(s) to backend %s: %s"
            _logger.debug(text, cancels, pid, reason, stacklevel=level, extra=extra)
    if grace is not None:
        text = (
            "backend %s has not ended its query within the grace of %g s, and the connection is "
            "closed: %s"
        )
        _logger.warning(text, pid, grace, reason, stacklevel=stack_level(), extra=extra)


def log_cancel(pid: int) -> None:
    """Log that ``cancel()`` has sent a request."""
    if _logger.isEnabledFor(logging.DEBUG):
        text = "sent a cancel request to backend %s: cancel()"
        _logger.debug(text, pid, stacklevel=stack_level(), extra={"backend_pid": pid})


def log_deadline(reason: str) -> None:
    """Log a deadline that has ended a wait for something else than the server."""
    if _logger.isEnabledFor(logging.DEBUG):
        text = "%s has struck a wait for a connection or a lock"
        _logger.debug(text, reason, stacklevel=stack_level())
