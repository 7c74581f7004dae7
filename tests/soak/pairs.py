"""Two interrupts, the second a few ms after the first: which of them is raised?

Whatever ends a greenlet, a task or the program outranks a time limit or an Exception; of two of the
same rank it is the first one. The other one is the context of what is raised, if it came before that.
"""

import contextlib
import sys

import psycopg2

import greenwait
from greenwait._errors import outranks
from tests.soak.operations import SKIPPED, one

_TIME = 5  # seconds; a connection that is closed does not cancel it
_FIRST, _SECOND = 0.05, 0.02  # seconds to the first, at most, and from that to the second

# It ends a while after it was cancelled, so that the second comes while the first is drained.
_STUBBORN = (
    f"do $$begin perform pg_sleep({_TIME}); "
    "exception when query_canceled then perform pg_sleep(0.03); end$$"
)


def contexts_of(exc):
    """Return *exc* and what it was raised in."""
    found = []
    while exc is not None and exc not in found:
        found.append(exc)
        exc = exc.__context__
    return found


class Pair:
    """Both of them, and the one statement that they strike."""

    def __init__(self, job):
        context, rng = job.soak.context, job.rng
        self.job, self.patient = job, context.is_patient
        self.kinds = rng.choices([*context.kinds(), greenwait.QueryTimeout], k=2)
        first = rng.random() * _FIRST
        self.moments = [first, first + rng.random() * _SECOND]
        self.thrown = []  # exceptions, or their classes where a framework makes them
        self.late = []  # those that come when the statement has raised another
        self.seen = None
        self._disarm = []

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
                with greenwait.timeout(deadline):
                    one(conn, _STUBBORN + "; select 1")
            except BaseException as exc:
                self.seen = exc  # no call, at which a signal could strike

    def check(self):
        """Is what was raised the right one?"""
        seen = self.seen
        while seen in self.late:  # it was raised as the right one was handled
            seen = seen.__context__
        about = f"{seen!r} was raised of {self.kinds} at {self.moments}; {self.thrown}, {self.late}"
        assert seen is not None, f"the interrupts have not come: {about}"
        chain = contexts_of(self.seen)
        for exc in self.thrown:
            if isinstance(exc, type):
                is_there = any(isinstance(each, exc) for each in chain)
                is_higher = issubclass(exc, seen.__class__) or not outranks(exc(), seen)
            else:
                is_there = exc in chain
                is_higher = not outranks(exc, seen)
            # A task's cancellation waits for the end of what a deadline stops; then it comes.
            assert (is_there and is_higher) or self.patient, f"lost, or of a lower rank: {about}"
        of_equal_rank = [
            exc for exc in self.thrown if not isinstance(exc, type) and not outranks(seen, exc)
        ]
        if of_equal_rank and not isinstance(seen, greenwait.QueryTimeout):
            assert seen is of_equal_rank[0], f"the second was raised: {about}"
