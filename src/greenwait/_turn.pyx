"""Whose turn is it? A lock that greenlets and threads wait for side by side.

psycopg2 has a mutex for each connection, which stops the thread of whoever has to wait for
it, and with it the greenlet that is to give it back. So a turn is taken before.
"""

cimport cython

from greenwait._finalizing cimport Py_IsFinalizing
from greenwait._known cimport is_at_work
from greenwait._line cimport Line
from greenwait._monotonic cimport NO_DEADLINE
from greenwait._waiter cimport is_hub_itself, waiters_entered

from functools import update_wrapper

from greenlet import getcurrent

from greenwait._psycopg2 import ProgrammingError

__all__ = ["Turn", "cursor_in_turn", "in_turn"]

# Module-level C variables outlive the module's dict: a commit in a __del__ at interpreter
# exit still finds them.
cdef object current_greenlet = getcurrent
cdef object programming_error = ProgrammingError
cdef object at_exit = object()  # owns turns when greenlets are no more


@cython.auto_pickle(False)
@cython.final
cdef class Turn:
    """The turn on one connection."""

    cdef Line line
    cdef object owner  # the greenlet whose turn it is, or None; each thread has one at least

    def __cinit__(self):
        self.line = Line(1)

    @property
    def is_taken(self):
        """Is it somebody's, or about to be?"""
        return self.line.free == 0

    def run(self, conn, str what, function, /, *args, **kwargs):
        """Call the function when it is this greenlet's turn, and return what it returns.

        :param conn: the connection.
        :param what: the method of it, or of a cursor, that is called.
        :raises psycopg2.ProgrammingError: psycopg2 is at work on it below this very greenlet; or
            another one is, and this one can't wait: an event loop's own, or at interpreter exit.

        A method may call another one, and so may an adapter or a typecaster: psycopg2 calls them
        without its mutex. A signal handler's exception, or a deadline, ends the
        wait. Not a pair of methods to take a turn and to give it back: an interrupt between
        the two would keep it for ever.
        """
        here = at_exit if Py_IsFinalizing() else current_greenlet()
        if self.owner is here:
            if not is_at_work(conn):
                return function(*args, **kwargs)
            raise programming_error(
                f"{what}: this connection is at work for the very greenlet or thread that "
                "calls, below a signal handler or a __del__; use another connection there, "
                "or cancel()"
            )
        if self.line.free == 0 and (
            here is at_exit or (waiters_entered > 0 and is_hub_itself())
        ):
            raise programming_error(
                f"{what}: another greenlet or thread is at work on this connection, and can't be "
                "waited for here, in an event loop's own greenlet or at interpreter exit; use "
                "another connection, or cancel()"
            )
        self.line.enter(NO_DEADLINE)
        self.owner = here
        try:
            return function(*args, **kwargs)
        finally:
            self.owner = None
            self.line.leave()


def in_turn(own, str name):
    """Return *own*, a method of a connection's, to be executed when it is the caller's turn."""
    cdef str what = f"{name}()"

    def method(self, /, *args, **kwargs):
        return self._turn.run(self, what, own, self, *args, **kwargs)

    return update_wrapper(method, own)


def cursor_in_turn(own, str name, *, bint only_named=False):
    """Return *own*, a method of a cursor's; *only_named*: others do not wait for the server."""
    cdef str what = f"{name}()"

    def method(self, /, *args, **kwargs):
        conn = self.connection
        turn = getattr(conn, "_turn", None)  # of a Connection, that is
        if turn is None or (only_named and self.name is None):
            return own(self, *args, **kwargs)
        return turn.run(conn, what, own, self, *args, **kwargs)

    return update_wrapper(method, own)
