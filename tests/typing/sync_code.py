"""What do type checkers make of synchronous code that uses greenwait? ``make types`` asks them.

It is not run: ``tests/`` does that. Each ``ignore`` has to be needed, so a wrong call whose
error went away would be reported.
"""

from collections.abc import Generator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import psycopg2
import psycopg2.extras
import psycopg2.pool
from psycopg2.extensions import Notify, set_wait_callback
from typing_extensions import assert_type

import greenwait
import greenwait.eventlet
import greenwait.gevent


class Own(greenwait.Connection):
    """A class of a user's."""


def length(word: str, *, times: int = 1) -> int:
    """Be called by others."""
    return len(word) * times


def callbacks() -> None:
    """Each of them is what psycopg2 takes."""
    set_wait_callback(greenwait.wait)
    set_wait_callback(greenwait.EpollWaitCallback)
    set_wait_callback(greenwait.WaitCallback(poller="epoll", timeout=5, spin="auto"))
    assert_type(greenwait.WaitCallback().timeout, float | None)
    assert_type(greenwait.wait(psycopg2.connect("", async_=1)), None)

    greenwait.wait("a string")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    greenwait.WaitCallback("epoll")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    greenwait.WaitCallback(poller="select")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    greenwait.WaitCallback(poler="poll")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def installing() -> None:
    """The options are WaitCallback's wherever they are passed on."""
    assert_type(greenwait.install(poller="epoll", slow=1.0), greenwait.WaitCallback)
    assert_type(greenwait.uninstall(), None)
    with greenwait.installed(timeout=1) as callback:
        assert_type(callback, greenwait.WaitCallback)
    assert_type(greenwait.gevent.patch_psycopg(spin=0.1), greenwait.WaitCallback)
    assert_type(greenwait.eventlet.patch_psycopg(), greenwait.WaitCallback)

    greenwait.install(poler="poll")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    greenwait.install(timeout="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    greenwait.gevent.patch_psycopg(spin="fast")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@greenwait.installed(timeout=1)
def decorated(number: int) -> str:
    """Keep its type."""
    return str(number)


def a_decorated_function() -> None:
    """It has its own parameters."""
    assert_type(decorated(1), str)
    decorated("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def connecting() -> None:
    """The connection's class is the factory's, and its cursors' theirs."""
    conn = greenwait.connect("dbname=postgres", connect_timeout=5)
    assert_type(conn, greenwait.Connection)
    assert_type(greenwait.connect(connection_factory=Own), Own)
    assert_type(psycopg2.connect("", connection_factory=Own), Own)
    with conn, conn.cursor() as cur:
        assert_type(cur, greenwait.Cursor)
        cur.execute("select %s", (1,))
        assert_type(cur.fetchone(), tuple[Any, ...] | None)
    named = conn.cursor("rows", psycopg2.extras.DictCursor, withhold=True)
    assert_type(named, psycopg2.extras.DictCursor)
    assert_type(greenwait.cancel(conn, timeout=2), None)
    assert_type(conn.tpc_recover(), list[psycopg2.extensions.Xid])
    assert_type(conn.reset(), None)
    assert_type(greenwait.notifies(conn, timeout=1), Generator[Notify, None, None])

    greenwait.cancel("conn")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    greenwait.connect(5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


def deadlines() -> None:
    """A block says whether its time is up."""
    with greenwait.timeout(0.5) as limit:
        assert_type(limit, greenwait.timeout)
    assert_type(limit.expired, bool)
    assert_type(greenwait.stats().cancels, int)
    try:
        greenwait.uninstall()
    except greenwait.QueryTimeout as exc:
        assert_type(exc.pgcode, str | None)

    greenwait.timeout("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def many_at_once() -> None:
    """What a function returns is what a job's result is, and what it takes has to be given."""
    with greenwait.Hub() as hub:
        job = hub.spawn(length, "four", times=2)
        assert_type(job, greenwait.Job[int])
        assert_type(job.result(timeout=1), int)
        assert_type(job.cancel(), bool)
        hub.spawn(length, 4)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        hub.spawn(length)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        hub.spawn(length, "a", time=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert_type(greenwait.gather(partial(length, "a"), partial(length, "b"), limit=1), list[int])
    assert_type(greenwait.map(length, ["a", "b"], concurrency=2), Generator[int, None, None])

    greenwait.gather(length)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    greenwait.gather(length("a"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    greenwait.map(length, [1])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def configure(conn: greenwait.Connection) -> None:
    """Be called with new connections."""


def configure_own(conn: Own) -> None:
    """Be called with those of one's own class."""


def keeps_any(pool: greenwait.Pool) -> greenwait.Connection:
    """Name a pool without the class of its connections: they are greenwait's."""
    assert_type(pool.connection(), AbstractContextManager[greenwait.Connection, None])
    with pool.connection(timeout=1) as conn:
        assert_type(conn, greenwait.Connection)
        assert_type(conn.cursor(), greenwait.Cursor)
    return pool.getconn()


def pools() -> None:
    """A pool lends connections of its class."""
    with greenwait.Pool("dbname=postgres", min_size=1, connection_factory=Own) as pool:
        assert_type(pool, greenwait.Pool[Own])
        assert_type(pool.connection(timeout=1), AbstractContextManager[Own, None])
        assert_type(pool.getconn(), Own)
        pool.putconn(pool.getconn(), close=True)
        assert_type(pool.stats(), greenwait.PoolStats)
        assert_type(pool.stats().seconds_waited, float)

    assert_type(greenwait.Pool("", application_name="a"), greenwait.Pool[greenwait.Connection])
    greenwait.Pool("", configure=configure, reset=lambda conn: conn.cursor().execute(""))
    greenwait.Pool("", configure=configure_own, connection_factory=Own)
    greenwait.Pool("", configure=configure_own)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    greenwait.Pool("", max_size="2")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    greenwait.Pool("", 1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


def pools_of_psycopg2() -> None:
    """greenwait's goes where psycopg2's does, and knows its connections."""
    pool = greenwait.ThreadedConnectionPool(1, 2, "")
    assert_type(pool.getconn("a key"), greenwait.Connection)
    assert_type(greenwait.ThreadedConnectionPool(1, 2, "", Own).getconn(), Own)
    assert_type(greenwait.ThreadedConnectionPool(1, 2, connection_factory=Own).getconn(), Own)
    theirs: psycopg2.pool.AbstractConnectionPool = pool
    theirs.putconn(theirs.getconn(), close=True)


def what_belongs_to_a_job() -> None:
    """Attributes are of any type."""
    own = greenwait.local(on_end=print)
    own.anything = 1
    assert_type(greenwait.local().anything, Any)
    del own.anything
    assert_type(greenwait.scope(), int)

    greenwait.local(on_end=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    greenwait.local(print)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
