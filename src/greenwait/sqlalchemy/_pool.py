"""SQLAlchemy's ``QueuePool``, in whose queue greenlets, tasks and threads wait their turn.

``QueuePool`` counts its connections, keeps them and tells of them, as before. But who comes when
all are in use waits for a place first, and so never in SQLAlchemy's own queue: that stops the
thread, and with it whoever is to give a connection back.
"""

from typing import Any

from sqlalchemy import exc, pool

from greenwait.sqlalchemy._places import Idle, Places

__all__ = ["AsyncFairQueuePool", "FairQueuePool"]


class FairQueuePool(pool.QueuePool):
    """The pool of an engine, for jobs, calls, greenlets and threads: first come, first served."""

    _queue_class: Any = Idle

    def __init__(
        self,
        creator: Any,
        pool_size: int = 5,
        max_overflow: int = 10,
        timeout: Any = 30.0,  # seconds; None: no limit
        *args: Any,
        **kwargs: Any,
    ) -> None:
        for name, value, kinds, what in (
            ("pool_size", pool_size, int, "number of connections"),
            ("max_overflow", max_overflow, int, "number of connections; -1: no limit"),
            ("pool_timeout", timeout, (int, float), "number of seconds"),
        ):
            if value is None and name == "pool_timeout":
                continue
            if isinstance(value, bool) or not isinstance(value, kinds) or value != value:
                raise TypeError(f"{name} must be a {what}, not {type(value).__name__!r}")
        super().__init__(creator, pool_size, max_overflow, timeout, *args, **kwargs)
        has_limit = self._max_overflow > -1
        self._places = Places(self._pool.maxsize + self._max_overflow if has_limit else None)

    def _do_get(self) -> Any:
        record = self._places.take(self._timeout, super()._do_get)
        if record is None:
            raise exc.TimeoutError(
                f"QueuePool limit of size {self.size()} overflow {self.overflow()} reached, "
                f"connection timed out, timeout {self._timeout:.2f}",
                code="3o7r",
            )
        return record

    def _do_return_conn(self, record: Any) -> None:
        self._places.give_back(super()._do_return_conn, record)


class AsyncFairQueuePool(FairQueuePool):
    """The pool of an async engine."""

    _is_asyncio = True
    _dialect = vars(pool.AsyncAdaptedQueuePool)["_dialect"]  # until it is told its own
