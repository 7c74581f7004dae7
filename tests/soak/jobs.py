"""What is a job, and what may come of it?"""

import contextlib
import time
import traceback
from typing import Any

import psycopg2
from psycopg2.extensions import QueryCanceledError

import greenwait
from tests.lab.queries import assert_usable
from tests.soak.contexts import contexts_of
from tests.soak.operations import LONG, OF_SHARED, OPERATIONS, SKIPPED, sleep_too_long
from tests.soak.pairs import struck_twice

WAYS = {"kept": 6, "new": 3, "pool": 3, "shared": 1}  # to a connection, and how likely each is
_INTERRUPTED = 0.4  # of all jobs
_LIMITED = 0.2  # of all operations


def _choice(rng, weighted):
    (chosen,) = rng.choices(list(weighted), weighted.values())
    return chosen


class Job:
    """A few operations, one after the other, on one connection; what becomes of it is kept."""

    def __init__(self, soak, rng):
        self.soak, self.rng = soak, rng
        self.is_sound = rng.random() < 0.6
        self.way = _choice(rng, WAYS)
        operations = OF_SHARED if self.way == "shared" else {**OPERATIONS, struck_twice: 4}
        if self.way == "shared":
            self.is_sound = True
        self.operations = [_choice(rng, operations) for _ in range(rng.randint(1, 6))]
        #: Seconds after its beginning in which it is to be interrupted, once or twice.
        self.moments = []
        if rng.random() < _INTERRUPTED:
            self.moments.append(rng.choice([0.0, 0.001, 0.01, 0.1, 0.5]) * rng.random())
            if self.way != "shared" and rng.random() < 0.2:
                self.moments.append(self.moments[0] + rng.random() * 0.02)
        self.is_surely_interrupted = len(self.moments) == 1  # unless it ends before
        self.may_be_struck = True  # with all the others of its round
        self.was_struck_twice = False
        self.thrown = None  # interrupts, since it has begun
        self.interruption = None  # what has ended it
        self.swallowed = []  # what it has heard of, and has gone on
        self.made_at = time.monotonic()
        self.is_native = False  # does it await?
        self.is_over = False
        self.was_canceled = False  # by greenwait.cancel()
        self.deadlines = 0  # that there were so far
        self.conn: Any = None
        self.was_open = None  # at the end; None: there was none
        self.exception = None
        self.shakes = None
        self.doing = "nothing yet"

    def count(self, what):
        self.soak.counts[what] += 1

    @property
    def long_time(self):
        """Seconds that a query may be made to take which a deadline cancels."""
        # One that is interrupted twice, or whose cancel is lost, is left to end by itself.
        is_struck = self.moments or self.was_struck_twice
        return LONG if self.is_sound and not is_struck else 5

    def is_interrupt_to_come(self):
        """Will there be one yet, and only one, on a connection that is cancelled then?"""
        is_struck_once = self.is_sound and self.is_surely_interrupted and not self.deadlines
        return is_struck_once and time.monotonic() < self.made_at + self.moments[0]

    # -- Doing it

    def __call__(self):
        """Run it in the calling context; what interrupts it is raised on."""
        self.shakes = self.soak.board.shakes
        self.thrown = []
        try:
            self._connect_and_operate()
            self.doing = "nothing any more"
        except self.soak.context.interrupts as exc:
            self.count("interrupted")
            self.interruption = exc
            raise
        except BaseException as exc:
            self.exception = exc
        finally:
            self.is_over = True

    def _connect_and_operate(self):
        """Do all operations on a connection.

        In no block of a generator's: a signal handler that strikes in contextlib leaves that open.
        """
        if self.way == "pool":
            self.doing = "borrowing"
            with self.soak.pool(self.is_sound).connection() as self.conn:
                self._operate()
            return
        if self.way == "shared":
            self.conn = self.soak.shared
            self._operate()
            return
        shelf = self.soak.shelf[self.is_sound]
        self.doing = "connecting"
        if self.way == "kept":
            at = self.rng.random()
            with contextlib.suppress(IndexError):  # empty, or another thread took the last
                self.conn = shelf.pop(int(at * len(shelf)))
        if self.conn is None:
            self.conn = self.soak.connect(self.is_sound, self.rng)
            self.count("connections")
        try:
            self._operate()
        finally:
            if self.way == "new":
                self.conn.close()
            elif not self.conn.closed:
                shelf.append(self.conn)

    def _operate(self):
        try:
            if self.way in ("kept", "new"):
                self.conn.rollback()  # whoever had it may have been interrupted
            for operation in self.operations:
                self._do(operation, self.conn)
        finally:
            if self.way != "shared":
                self.was_open = not self.conn.closed
        self.doing = "giving back"

    @contextlib.contextmanager
    def _looked_at(self):
        """Keep whether it is open when the job is through with it, and before the next one is."""
        try:
            yield
        finally:
            self.was_open = not self.conn.closed
        self.doing = "giving back"

    def _do(self, operation, conn):
        name = self.doing = operation.__name__
        limits = self.soak.context.limits
        limit = None
        self.deadlines += operation is sleep_too_long
        may_be = operation not in (sleep_too_long, struck_twice)
        may_be &= not (self.way == "shared" and self.moments)
        if may_be and self.rng.random() < _LIMITED:
            self.deadlines += 1
            limit = self.rng.choice(limits)(self.rng.choice([0.001, 0.05, 0.2]) * self.rng.random())
        try:
            with limit or contextlib.nullcontext():
                outcome = operation(self, conn)
                if self.way != "shared":
                    conn.commit() if self.rng.random() < 0.5 else conn.rollback()
        except greenwait.QueryTimeout as exc:
            if limit is None:
                raise
            self.swallowed += contexts_of(exc)
            self.count("cancelled by a deadline")
        except QueryCanceledError as exc:
            if self.is_sound and not self.was_canceled:
                raise
            self.swallowed += contexts_of(exc)
            self.count("cancelled by another")
        except self.soak.context.timeouts as exc:
            if exc is not limit:
                raise
            self.swallowed += contexts_of(exc)
            self.count("cancelled by the framework's timeout")
        else:
            if outcome is not SKIPPED:
                self.count(name)
            return
        self.doing = f"looking whether it is usable after {name}"
        if conn.closed:
            self._lost_in_the_grace(conn)
        assert_usable(conn)

    def _lost_in_the_grace(self, conn):
        """The framework's timeout is raised as it is, even where the server did not answer."""
        raise psycopg2.OperationalError("lost: the server has not answered within the grace")

    # -- Judging it

    def judge(self):
        """Return None if all is well, or what is wrong.

        What is lost to a server that is too slow is counted; how much of that may be is known
        to who has the counts.
        """
        exc = self.exception
        is_excused = not self.is_sound or self.is_shaken()
        lost = self._lost_interrupts()
        if lost:
            return self._report(f"it has not heard of {lost}, only of {self.interruption!r}")
        if self.shakes is not None and not self.is_over:  # it has begun
            return self._report("it has not ended")
        if exc is None:
            # A framework's interrupt is raised as it is, whatever has become of the connection.
            if self.was_open is False and not is_excused:
                return self._lost_or("its connection is closed", bool(self.moments))
            return None
        if not isinstance(exc, psycopg2.Error):
            return self._report("this is no error of psycopg2's")
        if isinstance(exc, QueryCanceledError) and not isinstance(exc, greenwait.QueryTimeout):
            may_be = not self.is_sound or self.was_canceled
            return None if may_be else self._report("nobody has cancelled this")
        if isinstance(exc, greenwait.QueryTimeout):
            return self._report("there was no deadline")
        if not isinstance(exc, psycopg2.OperationalError) and not (
            isinstance(exc, psycopg2.InterfaceError) and "closed" in str(exc) and not self.was_open
        ):
            return self._report("this is not a documented error")
        is_another_s = isinstance(exc, greenwait.PoolTimeout) or self.is_shaken()
        if self.was_open and not is_another_s:
            return self._report("its connection is open after that")
        self.count(f"{type(exc).__name__}, {'sound' if self.is_sound else 'mortal'}")
        if is_excused:
            return None
        # The server's answer, or the end of a COPY that is not to be.
        is_slow = any(text in str(exc) for text in ("not answered within", "not end within"))
        # Another job that shares it has lost it while this one waited for its turn.
        is_slow |= self.way == "shared" and isinstance(exc, psycopg2.InterfaceError)
        return self._lost_or("nothing has struck this connection", is_slow)

    @property
    def _may_be_struck_twice(self):
        """A second interrupt does not wait for the server any more, and costs the connection."""
        return len(self.moments) + (self.deadlines > 0) > 1 or self.was_struck_twice

    def _lost_interrupts(self):
        """Return which of those that were thrown at it have neither ended it nor are a context."""
        found = [*contexts_of(self.interruption), *contexts_of(self.exception), *self.swallowed]
        return [
            exc
            for exc in self.thrown or ()
            if exc not in found
            and not (isinstance(exc, type) and any(isinstance(each, exc) for each in found))
        ]

    def is_shaken(self):
        """Was the server restarted, or is it, since the connection was made?"""
        born = getattr(self.conn, "shakes", self.shakes)
        return self.soak.board.shakes != born or bool(self.soak.board.shakes % 2)

    def _lost_or(self, what, may_be):
        """Count it, if it *may_be* that the server was too slow; else say *what* is wrong."""
        if self._may_be_struck_twice:
            return None
        if not may_be:
            return self._report(what)
        self.count("sound connections lost to the grace")
        return None

    def _report(self, what):
        about = (
            f"{what}: {'a sound' if self.is_sound else 'a mortal'} connection, {self.way}, "
            f"native {self.is_native}, open at the end {self.was_open}, "
            f"interrupted at {self.moments}, at work on {self.doing} of "
            f"{[each.__name__ for each in self.operations]}, shakes {self.shakes}\n"
        )
        if self.conn is not None and not self.conn.closed:
            info = self.conn.info
            about += (
                f"status {info.status}, transaction {info.transaction_status}, "
                f"psycopg2's status {self.conn.status}, {info.error_message!r}\n"
            )
        if self.exception is not None:
            about += "".join(traceback.format_exception(self.exception))
        return about


class Look(Job):
    """Is a connection that was used, and whatever became of it, usable?"""

    def __init__(self, soak, rng, is_sound, conn):
        super().__init__(soak, rng)
        self.is_sound, self.way, self.conn = is_sound, "kept", conn
        self.moments, self.operations = [], []
        self.may_be_struck = False

    def __call__(self):
        self.shakes = self.soak.board.shakes
        self.doing = "looking at it"
        try:
            if not self.conn.closed:
                assert_usable(self.conn)
                self.count("looked at")
        except BaseException as exc:
            self.exception = exc
            self.was_open = not self.conn.closed
        finally:
            self.is_over = True

    def judge(self):
        # One that was closed already was judged by the job that did it.
        return None if self.exception is None else super().judge()
