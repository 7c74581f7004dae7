"""The log records of connections that a pool has made or closed."""

import logging
from collections.abc import Iterable

from greenwait._frames import stack_level

__all__ = ["log_connections"]

_logger = logging.getLogger("greenwait")


def log_connections(news: Iterable[tuple[int, float | str]]) -> None:
    """Log for each connection its backend, and the seconds to make it, or why it was closed."""
    if not _logger.isEnabledFor(logging.DEBUG):
        return
    level = stack_level()
    for pid, what in news:
        extra: dict[str, float] = {"backend_pid": pid}
        if isinstance(what, str):
            text = "the pool closed the connection of backend %s: %s"
            _logger.debug(text, pid, what, stacklevel=level, extra=extra)
        else:
            text = "the pool made a connection, backend %s, in %.3f s"
            extra |= {"seconds": what}
            _logger.debug(text, pid, what, stacklevel=level, extra=extra)
