"""The pool of an event loop, which ``greenwait.aio.create_pool()`` returns."""

import asyncio
from collections.abc import Callable
from typing import Any

from greenwait._connections.pool import Pool, give_up
from greenwait._connections.pool_stats import PoolStats
from greenwait.aio._call import Call
from greenwait.aio._loop import Loan, is_inherited

__all__ = ["AsyncPool"]


class AsyncPool:
    """A ``greenwait.Pool`` whose methods are awaited; ``create_pool()`` returns it.

    ``async with`` closes it. Tasks wait in the same queue as all other borrowers; a task that
    is cancelled leaves it, and a connection that was just lent to it goes back. An idle
    connection belongs to no event loop: those of several threads may use the same pool. When
    an event loop is closed, the connections lent to its tasks are closed and given back.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._loans: dict[int, Loan] = {}  # of getconn()

    def connection(self, timeout: float | None = None) -> "_Borrowed":
        """Return an ``async with`` block with a connection; see ``Pool.connection()``.

        :param timeout: seconds to wait for one, instead of the pool's.
        :raises greenwait.PoolTimeout: on entering, there was none in that time.
        """
        return _Borrowed(self._pool, timeout)

    async def getconn(self, timeout: float | None = None) -> Any:
        """Return a connection, to be given back by ``putconn()``.

        :param timeout: seconds to wait for one, instead of the pool's.
        :raises greenwait.PoolTimeout: there was none in that time.
        """
        conn = await _lent(self._pool.getconn, timeout, give_back=self._pool.putconn)
        self._loans[id(conn)] = Loan(lambda: self._give_up(conn))
        return conn

    def _give_up(self, conn: Any) -> None:
        self._loans.pop(id(conn), None)
        give_up(self._pool, conn)

    async def putconn(self, conn: Any) -> None:
        """Give a connection back. Uncommitted changes are rolled back.

        :param conn: a connection that ``getconn()`` has returned.
        :raises ValueError: it does not belong to this pool, or was given back already.
        """
        if is_inherited():
            return  # it is the parent's
        loan = self._loans.pop(id(conn), None)
        if loan is not None:
            loan.end()
        await Call(self._pool.putconn, (conn,), {})

    def stats(self) -> PoolStats:
        """Return the pool's counts."""
        return self._pool.stats()

    async def close(self, timeout: float = 30.0) -> None:
        """Lend no more, close what is idle, and wait for what is in use; see ``Pool.close()``.

        :param timeout: seconds to wait for that.
        :raises greenwait.PoolTimeout: there are still some in use.
        """
        await Call(self._pool.close, (timeout,), {})

    async def __aenter__(self) -> "AsyncPool":
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        if not is_inherited():
            await Call(self._pool.__exit__, exc_info, {})

    def __repr__(self) -> str:
        return repr(self._pool).replace("greenwait.Pool", "greenwait.aio.AsyncPool", 1)


async def _lent(lend: Callable[..., Any], *args: Any, give_back: Callable[[Any], None]) -> Any:
    """Return the connection that *lend* returns; if the task is cancelled, *give_back* it."""
    lent: list[Any] = []
    try:
        await Call(lambda: lent.append(lend(*args)), (), {})
    except BaseException:
        for conn in lent:  # a cancellation came just then
            await Call(give_back, (conn,), {})
        raise
    return lent.pop()


class _Borrowed:
    """An ``async with`` block that borrows a connection of a pool."""

    _loan: Loan
    _give_up: Callable[[], None]

    def __init__(self, pool: Pool, timeout: float | None) -> None:
        self._pool = pool
        self._block = pool.connection(timeout)

    async def __aenter__(self) -> Any:
        conn = await _lent(self._block.__enter__, give_back=self._give_back)
        self._give_up = lambda: give_up(self._pool, conn)
        self._loan = Loan(self._give_up)
        return conn

    def _give_back(self, conn: Any) -> None:
        self._block.__exit__(None, None, None)

    async def __aexit__(self, *exc_info: Any) -> None:
        if not self._loan.end() or is_inherited():
            return  # its event loop was closed, or the connection is the parent process's
        if asyncio._get_running_loop() is None:  # the coroutine is closed, of a task that is freed
            self._give_up()
            return
        await Call(self._block.__exit__, exc_info, {})
