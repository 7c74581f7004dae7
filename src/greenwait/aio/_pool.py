"""The pool of an event loop, which ``greenwait.aio.create_pool()`` makes."""

import inspect
from asyncio import _get_running_loop
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Generic

import psycopg2.extensions

from greenwait._connections.pool import Pool, empty_pool, fill, give_up
from greenwait._connections.pool_stats import PoolStats
from greenwait._elsewhere import Elsewhere, refusing
from greenwait.aio._as_lent import leave_as_lent
from greenwait.aio._call import Call, await_
from greenwait.aio._loop import Loan, is_inherited

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from greenwait.aio import AsyncConnection

    _Connection = TypeVar(
        "_Connection", bound=psycopg2.extensions.connection, default=AsyncConnection
    )
else:
    from typing import TypeVar

    _Connection = TypeVar("_Connection", bound=psycopg2.extensions.connection)

__all__ = ["AsyncPool", "NewPool"]


_ENTER_POOL = "its end waits for the server: write 'async with greenwait.aio.create_pool(...)'"
_ENTER_BLOCK = "write 'async with pool.connection() as conn:', which waits for the connection"
_IN_BLOCK = "write 'async with pool.connection() as conn:', and use a cursor of conn"


class NewPool(Coroutine[Any, Any, "AsyncPool[_Connection]"]):
    """A pool to be made: by ``await``, or by ``async with``, which also closes it.

    It is a coroutine to ``asyncio.create_task()`` and its likes, too.
    """

    _pool: "AsyncPool[_Connection]"
    _making: "Coroutine[Any, Any, AsyncPool[_Connection]] | None" = None  # of a task

    def __init__(self, dsn: str | None, options: dict[str, Any]) -> None:
        for name in ("check", "configure", "reset"):
            if callable(options.get(name)):
                options[name] = _awaiting(options[name])
        self._unmade: Pool[Any] | None = empty_pool(dsn, **options)

    def __await__(self) -> "Generator[Any, Any, AsyncPool[_Connection]]":
        return self._make().__await__()

    def send(self, value: Any) -> Any:
        """Go on; as of a coroutine."""
        if self._making is None:
            self._making = self._make()
        return self._making.send(value)

    def throw(self, *exc_info: Any) -> Any:
        """Raise an exception where it waits; as of a coroutine."""
        if self._making is None:
            self._making = self._make()
        return self._making.throw(*exc_info)

    def close(self) -> None:
        """End it; as of a coroutine."""
        if self._making is not None:
            self._making.close()

    async def _make(self) -> "AsyncPool[_Connection]":
        pool, self._unmade = self._unmade, None
        if pool is None:
            raise RuntimeError("this pool was made before: call create_pool() for each")
        try:
            await Call(fill, (pool,), {})
        except BaseException:
            await Call(pool.close, (0,), {})
            raise
        return AsyncPool(pool)

    if not TYPE_CHECKING:
        __enter__ = __exit__ = refusing(_ENTER_POOL)

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(
                f"{name!r} of a pool that was not awaited: write "
                "pool = await greenwait.aio.create_pool(...)"
            )

    async def __aenter__(self) -> "AsyncPool[_Connection]":
        self._pool = await self._make()
        return self._pool

    async def __aexit__(self, *exc_info: Any) -> None:
        await self._pool.__aexit__(*exc_info)


def _awaiting(function: Callable[[Any], Any]) -> Callable[[Any], None]:
    """Return a function that calls one, and awaits what that returns, if it is asynchronous."""

    def call(conn: Any) -> None:
        result = function(conn)
        if inspect.isawaitable(result):
            await_(result)

    return call


class AsyncPool(Generic[_Connection]):
    """A ``greenwait.Pool`` whose methods are awaited; ``create_pool()`` makes it.

    ``async with`` closes it. Tasks wait in the same queue as all other borrowers; a task that
    is cancelled leaves it, and a connection that was just lent to it goes back. An idle
    connection belongs to no event loop: those of several threads may use the same pool. When
    an event loop is closed, the connections lent to its tasks are closed and given back.
    """

    def __init__(self, pool: "Pool[Any]", *args: Any, **options: Any) -> None:
        if not isinstance(pool, Pool) or args or options:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError("an AsyncPool is made by await greenwait.aio.create_pool(dsn, ...)")
        self._pool = pool
        self._loans: dict[int, Loan] = {}  # of getconn()

    def connection(self, timeout: float | None = None) -> "_Borrowed[_Connection]":
        """Return an ``async with`` block with a connection; see ``Pool.connection()``.

        :param timeout: seconds to wait for one, instead of the pool's.
        :raises greenwait.PoolTimeout: on entering, there was none in that time.
        """
        return _Borrowed(self._pool, timeout)

    async def getconn(self, timeout: float | None = None) -> _Connection:
        """Return a connection, to be given back by ``putconn()``.

        :param timeout: seconds to wait for one, instead of the pool's.
        :raises greenwait.PoolTimeout: there was none in that time.
        """
        lent: list[_Connection] = []
        try:
            await Call(_lend, (lent, self._pool.getconn, timeout), {})
        except BaseException:
            for conn in lent:  # a cancellation came just then
                await Call(self._pool.putconn, (conn,), {})
            raise
        conn = lent.pop()
        self._loans[id(conn)] = Loan(self._give_up, conn)
        return conn

    def _give_up(self, conn: Any) -> None:
        self._loans.pop(id(conn), None)
        give_up(self._pool, conn)

    async def putconn(self, conn: psycopg2.extensions.connection, *, close: bool = False) -> None:
        """Give a connection back. Uncommitted changes are rolled back.

        :param conn: a connection that ``getconn()`` has returned.
        :param close: close it.
        :raises ValueError: it does not belong to this pool, or was given back already.
        """
        if is_inherited():
            return  # it is the parent's
        loan = self._loans.pop(id(conn), None)
        if loan is not None:
            loan.end()
        await Call(self._pool.putconn, (conn,), {"close": close})

    def stats(self) -> PoolStats:
        """Return the pool's counts."""
        return self._pool.stats()

    async def close(self, timeout: float = 30.0) -> None:
        """Lend no more, close what is idle, and wait for what is in use; see ``Pool.close()``.

        :param timeout: seconds to wait for that.
        :raises greenwait.PoolTimeout: there are still some in use.
        """
        await Call(self._pool.close, (timeout,), {})

    if not TYPE_CHECKING:
        __enter__ = __exit__ = refusing(_ENTER_POOL)
        acquire = Elsewhere("AsyncPool.acquire", "it is connection(), for async with, or getconn()")
        release = Elsewhere("AsyncPool.release", "it is putconn()")
        execute = Elsewhere("AsyncPool.execute", _IN_BLOCK)
        fetch = Elsewhere("AsyncPool.fetch", _IN_BLOCK)
        fetchrow = Elsewhere("AsyncPool.fetchrow", _IN_BLOCK)
        fetchval = Elsewhere("AsyncPool.fetchval", _IN_BLOCK)
        cursor = Elsewhere("AsyncPool.cursor", _IN_BLOCK)
        get_stats = Elsewhere("AsyncPool.get_stats", "it is stats()")
        open = Elsewhere("AsyncPool.open", "it is open as soon as it is made")
        terminate = Elsewhere("AsyncPool.terminate", "it is close(0)")
        wait = Elsewhere("AsyncPool.wait", "its first min_size connections are there already")
        wait_closed = Elsewhere("AsyncPool.wait_closed", "close() waits")

    async def __aenter__(self) -> "AsyncPool[_Connection]":
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        if not is_inherited():
            await Call(self._pool.__exit__, exc_info, {})

    def __repr__(self) -> str:
        return repr(self._pool).replace("greenwait.Pool", "greenwait.aio.AsyncPool", 1)


def _lend(lent: list[Any], lend: Callable[..., Any], *args: Any) -> None:
    lent.append(lend(*args))


class _Borrowed(Generic[_Connection]):
    """An ``async with`` block that borrows a connection of a pool."""

    _loan: Loan | None = None
    _conn: _Connection

    def __init__(self, pool: "Pool[Any]", timeout: float | None) -> None:
        self._pool = pool
        self._block: Any = pool.connection(timeout)

    if not TYPE_CHECKING:
        __await__ = __enter__ = __exit__ = refusing(_ENTER_BLOCK)
        cursor = Elsewhere("AsyncPool.connection().cursor", _ENTER_BLOCK)
        execute = Elsewhere("AsyncPool.connection().execute", _ENTER_BLOCK)

    async def __aenter__(self) -> _Connection:
        was_entered = self._block.is_entered  # which raises below
        try:
            self._conn = await Call(self._block.__enter__, (), {})
        except BaseException:
            if self._block.has_connection and not was_entered:  # a cancellation came just then
                await Call(self._block.__exit__, (None, None, None), {})
            raise
        self._loan = Loan(give_up, self._pool, self._conn)
        return self._conn

    async def __aexit__(self, *exc_info: Any) -> None:
        if self._loan is None:
            raise RuntimeError("this block is not entered: use connection() in async with")
        if not self._loan.end():
            return  # its event loop was closed, or the connection is the parent process's
        if _get_running_loop() is None:  # the coroutine is closed, of a task that is freed
            give_up(self._pool, self._conn)
            return
        if not leave_as_lent(self._block):
            await Call(self._block.__exit__, exc_info, {})
