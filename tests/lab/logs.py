"""A handler of greenwait's log records."""

import contextlib
import logging
from collections.abc import Callable, Iterator

__all__ = ["handled_by"]


@contextlib.contextmanager
def handled_by(emit: Callable[[logging.LogRecord], object]) -> Iterator[None]:
    """Have *emit* called with each record of greenwait's."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            emit(record)

    handler = Handler()
    logger = logging.getLogger("greenwait")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
