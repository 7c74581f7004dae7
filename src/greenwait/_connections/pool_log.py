"""The log records of connections that a pool has made or closed."""

import logging
from collections.abc import Iterable

__all__ = ["log_connections"]

_logger = logging.getLogger("greenwait")


def log_connections(news: Iterable[tuple[int, float | str]]) -> None:
    """Log for each connection its backend, and the seconds to make it, or why it was closed."""
    if not _logger.isEnabledFor(logging.DEBUG):
        return
    for pid, what in news:
        extra = {"backend_pid": pid}
        if isinstance(what, str):
            _logger.debug(
                "the pool closed the connection of backend %s: %s",
                pid,
                what,
                stacklevel=2,
                extra=extra,
            )
        else:
            _logger.debug(
                "the pool made a connection, backend %s, in %.3f s",
                pid,
                what,
                stacklevel=2,
                extra={**extra, "seconds": what},
            )
