"""Two interrupts, the second a few ms after the first: which of them is raised?

Whatever ends a greenlet, a task or the program outranks a time limit or an Exception; of two of
the same rank it is the first one. The other one is its context, if it came before that was raised.
"""

import contextlib
import sys
from types import CodeType
from typing import Any

import psycopg2

import greenwait
from greenwait._ranks import outranks
from tests.lab.queries import one
from tests.soak.contexts import contexts_of
from tests.soak.operations import SKIPPED

_TIME = 5  # seconds; a connection that is closed does not cancel it
_FIRST, _SECOND = 0.05, 0.02  # seconds to the first, at most, and from that to the second

# It ends a while after it was cancelled, so that the second comes while the first is drained.
_STUBBORN = f"""
    do $$begin perform pg_sleep({_TIME});
    exception when query_canceled then perform pg_sleep(0.03); end$$; select 1
"""
_QUERIES = (_STUBBORN, f"select pg_sleep({_TIME})")


class Pair:
    """Both of them, and the one statement that they strike."""

    code: tuple[CodeType, ...]  # in which a signal may strike

    def __init__(self, job):
        context, rng = job.soak.context, job.rng
        self.job = job
        self.kinds = rng.choices([*context.kinds(), greenwait.QueryTimeout], k=2)
        first = rng.random() * _FIRST
        self.moments = [first, first + rng.random() * _SECOND]
        self.thrown = []  # exceptions, or their classes where a framework makes them
        self.late = []  # those that come when the statement has raised another
        self.seen: Any = None
        self.is_open = False  # to signals
        self.query = rng.choice(_QUERIES)

    def throws(self, exc):
        """Note that *exc*, or one of that class, is thrown at the job now."""
        is_late = self.seen is not None or sys.exc_info()[1] is not None
        (self.late if is_late else self.thrown).append(exc)

    def run(self, conn):
        """Have the statement struck by both."""
        deadline = None
        with contextlib.ExitStack() as stack:
            for kind, seconds in zip(self.kinds, self.moments, strict=True):
                if kind is greenwait.QueryTimeout:
                    deadline = min(deadline or seconds, seconds)
                else:
                    arm = self.job.soak.context.armed(self.job, self, seconds, kind)
                    stack.enter_context(arm)
            try:
                self.is_open = True
                with greenwait.timeout(deadline):
                    one(conn, self.query)
                self.is_open = False
            except BaseException as exc:
                self.is_open = False  # no call before that, at which a signal could strike
                self.seen = exc

    def check(self):
        """Is what was raised the right one?"""
        seen = self.seen
        while seen in self.late:  # it was raised as the right one was handled
            seen = seen.__context__
        about = f"{seen!r} was raised of {self.kinds} at {self.moments}; {self.thrown}, {self.late}"
        if seen is None:  # a result that comes after a deadline stands
            is_right = self.query is _STUBBORN and greenwait.QueryTimeout in self.kinds
            assert is_right, f"the interrupts have not come: {about}"
            assert not self.thrown, f"lost: {about}"
            return
        chain = contexts_of(self.seen)
        for exc in self.thrown:
            if isinstance(exc, type):
                is_right = isinstance(seen, exc)
            else:
                is_right = exc in chain and not outranks(exc, seen)
            assert is_right, f"lost, or of a lower rank: {about}"
        of_equal_rank = [
            exc for exc in self.thrown if not isinstance(exc, type) and not outranks(seen, exc)
        ]
        if of_equal_rank and not isinstance(seen, greenwait.QueryTimeout):
            assert seen is of_equal_rank[0], f"the second was raised: {about}"


Pair.code = Pair.run.__code__, one.__code__


def struck_twice(job, conn):
    """A query, two interrupts, and what comes of it."""
    if job.moments or job.was_struck_twice or job.way == "shared":
        return SKIPPED
    if not job.soak.context.is_interruptible(job):
        return SKIPPED
    pair = Pair(job)
    job.was_struck_twice = True
    try:
        pair.run(conn)
    except BaseException as exc:  # as the second was armed or disarmed
        if not isinstance(exc, job.soak.context.signals):
            raise
        if pair.seen is None:
            conn.rollback()
            return SKIPPED
    is_failure = isinstance(pair.seen, psycopg2.Error) and not isinstance(
        pair.seen, greenwait.QueryTimeout
    )
    if is_failure and (not pair.thrown or not job.is_sound or job.is_shaken()):
        raise pair.seen
    pair.check()
    job.count("pairs of interrupts" if len(pair.thrown) > 1 else "interrupts before their second")
    if isinstance(pair.seen, job.soak.context.interrupts):
        raise pair.seen
    job.swallowed += contexts_of(pair.seen)
    if conn.closed:
        raise psycopg2.OperationalError("lost: the second interrupt has closed it")
    conn.rollback()
    return None
