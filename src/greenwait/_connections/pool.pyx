"""A connection pool, fair to greenlets, tasks and threads alike.

A borrower makes its connection itself, if none is idle and the pool is not full: so it is made
in the borrower's context, and the pool has no thread or greenlet of its own. The semaphore
counts places, not connections; a place is taken before a connection is looked for, and given
back after the connection.

It is compiled because an interrupt must not come between two of its steps: a place that is
lost that way is lost for good.
"""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t

from greenwait._connections.lock cimport NOT_LENT, USABLE, FairLock
from greenwait._connections.pool_times cimport count_time
from greenwait._connections.pooled cimport (
    configure as configure_new,
    is_alive,
    is_restored,
    settings_of,
)
from greenwait._connections.semaphore cimport FairSemaphore, pause_until
from greenwait._deadline cimport (
    after,
    call_outside_blocks,
    checked_seconds,
    timeout as timeout_block,
    to_ns,
)
from greenwait._psycopg.proxy cimport without_proxy
from greenwait._psycopg.state cimport backend_pid
from greenwait._ranks cimport higher
from greenwait._system.clock cimport NO_DEADLINE, monotonic_ns
from greenwait._system.sealed_type cimport seal_type

import os
import random
from contextlib import AbstractContextManager
from types import GenericAlias
from typing import TypeVar
from weakref import WeakSet

from greenwait._connections.connect import connect
from greenwait._connections.pool_log import log_connections
from greenwait._connections.pool_options import check_arguments, check_sizes
from greenwait._connections.pool_stats import PoolStats
from greenwait._elsewhere import Elsewhere, refusing
from greenwait._errors import PoolTimeout, QueryTimeout
from greenwait._psycopg import psycopg2

__all__ = ["Pool", "empty_pool", "fill", "give_up"]

_Connection = TypeVar("_Connection", bound=psycopg2.connection)

cdef str SYNCHRONOUS = (
    "a greenwait.Pool is a synchronous one: enter it, and its connection(), by 'with'; "
    "greenwait.aio.create_pool() makes one for 'async with'"
)
cdef str IN_BLOCK = "write 'with pool.connection() as conn:', and use a cursor of conn"
cdef str AS_BLOCK = "it is a with block: write 'with pool.connection() as conn:'"

cdef object Psycopg2Error = psycopg2.Error
cdef object OperationalError = psycopg2.OperationalError
cdef object InterfaceError = psycopg2.InterfaceError
cdef object log = log_connections

# The pause between two attempts to connect, doubled each time; and shortened at random, so that
# not all borrowers try at the same moment.
cdef int64_t SHORTEST_PAUSE_NS = 20_000_000
cdef int64_t LONGEST_PAUSE_NS = 640_000_000

# The attempts to clean a connection while that is interrupted: in psycopg2's rollback, in its
# view of that, and in one of the settings.
cdef enum:
    ATTEMPTS = 4


@cython.auto_pickle(False)
@cython.final
cdef class Member:
    """A connection of the pool."""


@cython.auto_pickle(False)
@cython.final
cdef class Borrowed:
    """A ``with`` block that borrows a connection of the pool."""

    @property
    def has_connection(self):
        """Whether it has a connection, which is to be given back."""
        return self.member is not None

    def __enter__(self):
        PyErr_CheckSignals()  # see timeout.__enter__()
        if self.is_entered:
            raise RuntimeError("this block is entered already: call connection() for each")
        self.is_entered = True
        try:
            self.member = self.pool.lend(self.pool.timeout_of(self.timeout))
        except BaseException:
            self.is_entered = False
            raise
        self.member.is_in_block = True
        return self.member.conn

    def __exit__(self, kind, exc, traceback):
        cdef Member member = self.member
        if member is None:
            raise RuntimeError("this block is not entered: use connection() in a with statement")
        self.member = None
        try:
            # A connection that the block itself has closed is rolled back. If the server closed
            # it, and the block did not notice, commit() raises.
            if exc is None and member.conn.closed != 1 and member.places is self.pool.places:
                member.conn.commit()
        finally:
            self.give_back(member)

    __aenter__ = __aexit__ = refusing(SYNCHRONOUS)
    cursor = Elsewhere("Pool.connection().cursor", AS_BLOCK)
    execute = Elsewhere("Pool.connection().execute", AS_BLOCK)

    cdef int leave_clean(self) except -1:
        """Leave the block without ``commit()``: there is nothing to commit."""
        cdef Member member = self.member
        self.member = None
        return self.give_back(member)

    cdef int give_back(self, Member member) except -1:
        self.is_entered = member.is_in_block = False
        return self.pool.take_back(member)


seal_type(Member, "a Pool makes it")
seal_type(Borrowed, "it is made by Pool.connection()")


@cython.auto_pickle(False)
@cython.final
cdef class Pool:
    """Pool(dsn=None, *, min_size=0, max_size=10, timeout=30.0, max_idle=600.0, max_lifetime=3600.0,
check=None, configure=None, reset=None, **kwargs)
--

    A pool of connections that threads, greenlets and jobs borrow.

    :param dsn: the connection string, as for ``greenwait.connect()``, which makes them.
    :param min_size: how many are made now, and kept however long they are idle.
    :param max_size: how many there may be.
    :param timeout: seconds to wait for one.
    :param max_idle: seconds after which an idle connection is closed; None: never.
    :param max_lifetime: seconds after which a connection that is not in use is closed; None:
        never.
    :param check: a function that is called with each connection before it is lent again, and
        raises a psycopg2.Error if that is to be closed. Without it, the pool finds out,
        at no cost, whether the server has closed the connection.
    :param configure: a function that is called once with each new connection, before it is lent:
        to set autocommit, to register types. What it leaves open is committed. If it raises, the
        connection is closed, and that is the borrower's exception, or an attempt to connect that
        failed if it is a psycopg2.OperationalError.
    :param reset: a function that is called with each connection that is given back, in autocommit
        mode, after a rollback: ``lambda conn: conn.cursor().execute("discard all")``, say. If it
        raises, the connection is closed; what is not a psycopg2.Error is raised where the
        connection is given back.
    :param kwargs: further arguments of ``greenwait.connect()``. With a *connection_factory* the
        connections are of its class.
    :raises psycopg2.Error: one of the first *min_size* connections failed.
    :raises TypeError: an argument is of the wrong type, or neither a pool's nor libpq's.
    :raises ValueError: an argument is out of its range.

    First come, first served, in any context: a plain thread, a job of a hub, a gevent or
    eventlet greenlet. A borrower that waits stops no one else. Idle connections are checked
    when one is lent or given back. A forked child does not get its parent's connections; its
    pool makes new ones.
    """

    # Not in __init__(), which may never be called, or be called again.
    def __cinit__(
        self, dsn=None, *args, min_size=0, max_size=10, timeout=30.0, max_idle=600.0,
        max_lifetime=3600.0, check=None, configure=None, reset=None, **kwargs
    ):
        functions = {"check": check, "configure": configure, "reset": reset}
        check_arguments(dsn, args, functions, kwargs)
        check_sizes(min_size, max_size)
        self.dsn = dsn
        self.options = kwargs
        self.min_size, self.max_size = min_size, max_size
        self.timeout_ns = to_ns(checked_seconds("timeout", timeout, ""))
        self.max_idle_ns = duration("max_idle", max_idle)
        self.max_lifetime_ns = duration("max_lifetime", max_lifetime)
        self.check, self.configure, self.reset = check, configure, reset
        self.begin()
        self.fill()
        pools.add(self)

    __class_getitem__ = classmethod(GenericAlias)  # Pool[Connection] is a type to annotate with

    cdef int fill(self) except -1:
        """Make the first connections; close the pool if one fails."""
        try:
            while len(self.members) < self.min_size:
                self.put_aside(self.make(after(self.timeout_ns)))
            self.tell()
        except BaseException:
            self.close(timeout=0)
            raise
        return 0

    cdef int begin(self) except -1:
        self.places = FairSemaphore(self.max_size)
        self.places.category, self.places.what = "pool", "a connection of the pool"
        self.empty = FairSemaphore(0)
        self.empty.category, self.empty.what = "pool", "the end of the pool's use"
        self.members = {}
        self.idle = []
        self.taken = self.making = self.in_use = 0
        self.news = None
        if self.times is not None:
            self.times.forget()
        return 0

    def connection(
        self, timeout: float | None = None
    ) -> AbstractContextManager[_Connection, None]:
        """Return a ``with`` block with a connection; it commits, or rolls back on an exception.

        :param timeout: seconds to wait for one, instead of the pool's.
        :raises PoolTimeout: on entering, there was none in that time; the message has the counts.
        :raises psycopg2.OperationalError: on entering, the pool could not make a first connection.
        :raises QueryTimeout: on entering, an outer ``greenwait.timeout()`` has expired.
        :raises psycopg2.InterfaceError: the pool is closed.
        :raises CommitInDoubt: on leaving, the outcome of the commit is unknown.

        A signal handler's exception, an outer ``greenwait.timeout()`` or a cancellation ends
        the wait, and the next borrower moves up. A lost connection is not lent again.
        """
        cdef Borrowed block = Borrowed.__new__(Borrowed)
        block.pool = self
        block.timeout = timeout
        return block

    def getconn(self, timeout: float | None = None) -> _Connection:
        """Return a connection, to be given back by ``putconn()``.

        :param timeout: seconds to wait for one, instead of the pool's.
        :raises PoolTimeout: there was none in that time; the message has the counts.
        :raises psycopg2.OperationalError: the pool could not make its first connection.
        :raises QueryTimeout: an outer ``greenwait.timeout()`` has expired.
        :raises psycopg2.InterfaceError: the pool is closed.

        The wait ends as in ``connection()``.
        """
        return self.lend(self.timeout_of(timeout)).conn

    def putconn(
        self, conn: psycopg2.connection, *, close: bool = False
    ) -> None:
        """Give a connection back. Uncommitted changes are rolled back.

        :param conn: a connection that ``getconn()`` has returned.
        :param close: close it, without waiting for the server.
        :raises ValueError: it does not belong to this pool, was given back already, or will be
            by the ``with`` block of ``connection()``.
        """
        cdef Member member = self.members.get(id(conn))
        if member is None or not member.is_lent:
            raise ValueError(
                "putconn() of a connection that this pool has not lent, or that was given back "
                "already: it takes, once, what getconn() of the same pool has returned"
            )
        if member.is_in_block:
            raise ValueError("putconn() within connection()'s with block, which gives it back")
        self.take_back(member, not close)

    def stats(self) -> PoolStats:
        """Return the pool's counts, a ``PoolStats``; it takes no lock."""
        return PoolStats(
            size=len(self.members) + self.making,
            max_size=self.max_size,
            in_use=self.in_use,
            idle=len(self.idle),
            waiting=len(self.places.waiting),
            lent=self.lent,
            seconds_waited=self.waited_ns / 1e9,
            timeouts=self.timeouts,
            made=self.made,
            failures=self.failures,
            discarded=self.discarded,
        )

    def close(self, timeout: float = 30.0) -> None:
        """Lend no more, close what is idle, and wait for what is in use.

        :param timeout: seconds to wait for that.
        :raises PoolTimeout: there are still some in use; each is closed when it is given back.

        A borrower that waits for a connection gets psycopg2.InterfaceError. It may be called
        again.
        """
        cdef int64_t deadline_ns = after(to_ns(checked_seconds("timeout", timeout, "")))
        self.is_closed = True
        self.places.open()
        while self.idle:
            self.discard(self.idle.pop(), "the pool is closed")
        self.tell()
        if self.taken > 0 and not self.empty.enter(deadline_ns):
            raise PoolTimeout(
                f"the pool is closed, but after {timeout:g} s {self.in_use} of its connections "
                "are still in use; each is closed when it is given back"
            )

    __aenter__ = __aexit__ = refusing(SYNCHRONOUS)
    acquire = Elsewhere("Pool.acquire", "it is connection(), for a with block, or getconn()")
    release = Elsewhere("Pool.release", "it is putconn()")
    execute = Elsewhere("Pool.execute", IN_BLOCK)
    fetch = Elsewhere("Pool.fetch", IN_BLOCK)
    cursor = Elsewhere("Pool.cursor", IN_BLOCK)
    closeall = Elsewhere("Pool.closeall", "it is close()")
    get_stats = Elsewhere("Pool.get_stats", "it is stats()")
    open = Elsewhere("Pool.open", "it is open as soon as it is made")
    wait = Elsewhere("Pool.wait", "its first min_size connections are there once it is made")

    def __enter__(self):
        return self

    def __exit__(self, kind, exc, traceback):
        try:
            self.close()
        except PoolTimeout:  # pragma: no cover: 30 s of waiting for what is in use
            if exc is None:
                raise

    def __repr__(self):
        return (
            f"<greenwait.Pool {'closed, ' if self.is_closed else ''}{self.in_use} of "
            f"{self.max_size} in use, {len(self.idle)} idle, {len(self.places.waiting)} waiting>"
        )

    # -- A connection is lent

    cdef int64_t timeout_of(self, object timeout) except -1:
        if timeout is None:
            return self.timeout_ns
        return to_ns(checked_seconds("timeout", timeout, ""))

    cdef Member lend(self, int64_t timeout_ns, bint waits_for_place=True):
        """Lend a connection; wait for a place, and then for a connection."""
        cdef int64_t began_ns = monotonic_ns()
        cdef int64_t deadline_ns = began_ns + timeout_ns
        cdef FairSemaphore places = self.places
        cdef Member member
        self.check_open()
        if not places.enter(deadline_ns if waits_for_place else 0):
            raise self.too_late(began_ns, None)
        self.taken += 1
        try:
            self.check_open()
            member = self.find(began_ns, deadline_ns)
        except BaseException as exc:
            self.give_place_back(places)
            interruption = self.log_news()
            if interruption is not None:
                raise higher(exc, interruption)
            raise
        member.places = places
        member.is_lent = True
        self.in_use += 1
        self.lent += 1
        self.waited_ns += monotonic_ns() - began_ns
        if self.is_watched:
            self.note_lent(member, began_ns)
        return member

    cdef int check_open(self) except -1:
        if self.is_closed:
            raise InterfaceError("the pool is closed, and lends no more: make another one")
        return 0

    cdef Member find(self, int64_t began_ns, int64_t deadline_ns):
        """Return an idle connection that is alive, or a new one, as soon as there is one."""
        cdef int64_t pause_ns = SHORTEST_PAUSE_NS
        cdef int64_t now_ns = monotonic_ns()
        cdef Member member
        reason = None
        self.discard_idle(now_ns)
        while True:
            while self.idle:
                member = self.idle.pop()
                member.lock.state = USABLE
                if self.is_fit(member, now_ns):
                    return member
            try:
                return self.make(deadline_ns)
            except OperationalError as exc:
                failure = exc
            now_ns = monotonic_ns()
            if isinstance(failure, QueryTimeout):
                if failure.timeout is not None or now_ns < deadline_ns:
                    raise failure
                raise self.too_late(began_ns, failure.__cause__ or reason)
            if self.made == 0:
                raise failure  # it never worked, and waiting won't help
            if now_ns >= deadline_ns:
                raise self.too_late(began_ns, failure)
            reason = failure
            pause_until(min(deadline_ns, now_ns + <int64_t>(pause_ns * random.uniform(0.5, 1.0))))
            pause_ns = min(2 * pause_ns, LONGEST_PAUSE_NS)
            self.check_open()

    cdef bint is_fit(self, Member member, int64_t now_ns) except -1:
        """Is this idle connection fit to be lent? If not, it is closed."""
        cdef str flaw = "its max_lifetime is over"
        try:
            if now_ns < member.expires_ns:
                flaw = "the server has closed it"
                if is_alive(member.conn):
                    flaw = "check() has not passed it"
                    if self.check is not None:
                        self.check(member.conn)
                    if self.check is None or self.is_clean(member, None):
                        flaw = None
        except Psycopg2Error as exc:
            if isinstance(exc, QueryTimeout):
                raise
        finally:
            if flaw is not None:
                self.discard(member, flaw)
        return flaw is None

    cdef Member make(self, int64_t deadline_ns):
        """Return a new connection."""
        cdef Member member = Member.__new__(Member)
        cdef int64_t began_ns = monotonic_ns()
        cdef int64_t took_ns
        cdef timeout_block block = timeout_block(max(0, deadline_ns - began_ns) / 1e9)
        block.is_internal = True
        self.making += 1
        try:
            block.enter()
            try:
                member.conn = connect(self.dsn, **self.options)
                if self.configure is not None:
                    configure_new(member.conn, self.configure)
            finally:
                block.leave()
        except BaseException as exc:
            if member.conn is not None:
                close(member.conn)
            if not isinstance(exc, OperationalError):
                raise
            self.failures += 1
            if isinstance(exc, QueryTimeout) and exc.timeout is block:
                exc.timeout = None  # the pool's own
            raise
        finally:
            self.making -= 1
        member.settings = settings_of(member.conn)
        member.lock = lock_of(member.conn)
        member.expires_ns = NO_DEADLINE
        if self.max_lifetime_ns != NO_DEADLINE:  # not all at the same time
            member.expires_ns = after(<int64_t>(self.max_lifetime_ns * random.uniform(0.9, 1.0)))
        self.made += 1
        self.members[id(member.conn)] = member
        member.pid = backend_pid(without_proxy(member.conn))
        took_ns = monotonic_ns() - began_ns
        if self.times is not None:
            count_time(self.times.made, took_ns)
        self.note(member, took_ns / 1e9)
        return member

    cdef object too_late(self, int64_t began_ns, object cause):
        """Return the exception of a borrower that has waited too long."""
        self.timeouts += 1
        if cause:
            why = f"; the last attempt to connect failed: {str(cause).strip()}"
        elif self.in_use + self.making < self.max_size:
            why = ": making one took longer; raise timeout"
        else:
            why = ": give connections back earlier, or raise max_size or timeout"
        exc = PoolTimeout(
            f"no connection within {(monotonic_ns() - began_ns) / 1e9:.3g} s: of at most "
            f"{self.max_size} there are {self.in_use} in use, {self.making} being "
            f"made and {len(self.idle)} idle, and {len(self.places.waiting)} others wait{why}"
        )
        exc.__cause__ = cause
        return exc

    # -- It comes back

    cdef int take_back(self, Member member, bint is_wanted=True) except -1:
        cdef bint is_clean = False
        if member.places is not self.places:
            return 0  # it was the parent's, and this is a forked child
        member.is_lent = False
        if self.is_watched:
            self.note_used(member)
        interruption = None
        try:
            # An interrupt may come again and again, as from anyio's cancel scopes; each time the
            # server's answer has come, or the connection is closed.
            for _ in range(ATTEMPTS):
                try:
                    if is_wanted and not self.is_closed:
                        is_clean = self.is_clean(member, self.reset)
                    break
                except BaseException as exc:
                    if interruption is None:
                        interruption = exc
                    if isinstance(exc, QueryTimeout):
                        break
        finally:
            try:
                if is_clean:
                    self.put_aside(member)
                else:
                    self.discard(member, self.why_closed(is_wanted, interruption))
            finally:
                self.in_use -= 1
                self.give_place_back(member.places)
        if self.is_watched:
            self.tell(interruption)
        if interruption is not None:
            raise interruption
        return 0

    cdef int give_place_back(self, FairSemaphore places) except -1:
        if places is self.places:
            self.taken -= 1
            places.leave()
            if self.is_closed and self.taken == 0:
                self.empty.open()
        return 0

    cdef bint is_clean(self, Member member, object reset) except -1:
        """Restore the state that the connection was made in. Returns whether it has that."""
        return is_restored(member.conn, member.settings, reset) and not self.is_closed

    cdef str why_closed(self, bint is_wanted, object interruption):
        """Return why a connection that was given back is not kept."""
        if self.is_closed:
            return "the pool is closed"
        if not is_wanted:
            return "putconn() was told to"
        if interruption is not None:
            return f"{type(interruption).__name__} while it was given back"
        return "it was given back closed, or could not be restored"

    cdef int put_aside(self, Member member) except -1:
        cdef int64_t now_ns = monotonic_ns()
        member.idle_since_ns = now_ns
        if getattr(member.conn, "_event_loop", None) is not None:
            member.conn._event_loop = None  # greenwait.aio's: the next task may run in another
        if member.expires_ns <= now_ns:
            return self.discard(member, "its max_lifetime is over")
        member.lock.state = NOT_LENT
        self.idle.append(member)
        return self.discard_idle(now_ns)

    cdef int discard_idle(self, int64_t now_ns) except -1:
        """Close the connections that have been idle for ``max_idle`` seconds."""
        cdef Member oldest
        while self.max_idle_ns != NO_DEADLINE and len(self.members) > self.min_size and self.idle:
            oldest = self.idle[0]
            if now_ns - oldest.idle_since_ns < self.max_idle_ns:
                break
            self.discard(self.idle.pop(0), "it was idle for max_idle")
        return 0

    cdef int discard(self, Member member, str why) except -1:
        if self.members.pop(id(member.conn), None) is not None:
            self.discarded += 1
            self.note(member, why)
        return close(member.conn)

    # -- Who looks on is told

    cdef int note(self, Member member, object what) except -1:
        """Note what is to be logged when no step of the pool is half done."""
        item = (member.pid, what)  # first: a finalizer may give a connection back meanwhile
        if self.news is None:
            self.news = []
        self.news.append(item)
        self.is_watched = True
        return 0

    cdef int note_lent(self, Member member, int64_t began_ns) except -1:
        """Count the wait, log the news; if that is interrupted, the connection goes back."""
        if self.times is not None:
            member.lent_ns = monotonic_ns()
            count_time(self.times.waited, member.lent_ns - began_ns)
        interruption = self.log_news()
        if interruption is not None:
            try:
                self.take_back(member)
            except BaseException as exc:
                interruption = higher(interruption, exc)
            raise interruption
        return 0

    cdef int note_used(self, Member member) noexcept:
        if self.times is not None and member.lent_ns > self.times.since_ns:
            count_time(self.times.used, monotonic_ns() - member.lent_ns)
        return 0

    cdef int tell(self, object raised=None) except -1:
        """Log the news; raise what interrupts that, or *raised*, whichever ranks higher."""
        interruption = self.log_news()
        if interruption is not None:
            raise interruption if raised is None else higher(raised, interruption)
        return 0

    cdef object log_news(self):
        """Log the connections that were made and closed; return what has interrupted that."""
        if self.news is None:
            return None
        news, self.news = self.news, None
        self.is_watched = self.times is not None
        return call_outside_blocks(log, (news,))


def give_up(Pool pool, conn):
    """Close a connection that *pool* has lent and that is never given back; it does not wait.

    It is logged later, by the next who uses the pool: what a log handler raises would keep the
    caller from giving up the others.
    """
    cdef Member member = pool.members.get(id(conn))
    if member is None or not member.is_lent or member.places is not pool.places:
        return
    member.is_lent = member.is_in_block = False
    if pool.is_watched:
        pool.note_used(member)
    try:
        pool.discard(member, "it was never given back, and its event loop or its pool is closed")
    finally:
        pool.in_use -= 1
        pool.give_place_back(member.places)


def empty_pool(dsn=None, *, min_size=0, **options):
    """Return a ``Pool`` whose first connections are made by ``fill()``."""
    cdef Pool pool = Pool(dsn, **options)
    check_sizes(min_size, pool.max_size)
    pool.min_size = min_size
    return pool


def fill(Pool pool not None):
    """Make the first connections; close the pool if one fails."""
    pool.fill()


cdef object lend_now(Pool pool):
    """Lend a connection if there is a place now, and raise PoolTimeout otherwise."""
    return pool.lend(pool.timeout_ns, waits_for_place=False).conn


cdef int close(object conn) except -1:
    try:
        conn.close()
    except Psycopg2Error:  # pragma: no cover: another thread or greenlet is at work on it
        pass
    return 0


cdef FairLock lock_of(object conn):
    """Return the lock of a ``greenwait.Connection``, or for another one a lock of no use."""
    lock = getattr(conn, "_lock", None)
    return lock if isinstance(lock, FairLock) else FairLock()


cdef int64_t duration(str name, object seconds) except -1:
    return NO_DEADLINE if seconds is None else to_ns(checked_seconds(name, seconds, ", or None"))


pools = WeakSet()


def _after_fork_in_child():
    """Forget the parent's connections; psycopg2 does not end them when they are freed."""
    cdef Pool pool
    for pool in pools:
        pool.begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
