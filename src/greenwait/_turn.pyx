"""Whose turn is it? A lock that greenlets and threads wait for side by side.

psycopg2 has a mutex for each connection, which stops the thread of whoever has to wait for
it, and with it the greenlet that is to give it back. So a turn is taken before.
"""

cimport cython
from cpython.exc cimport PyErr_CheckSignals

from greenwait._finalizing cimport Py_IsFinalizing
from greenwait._known cimport is_at_work
from greenwait._line cimport Line
from greenwait._monotonic cimport NO_DEADLINE
from greenwait._waiter cimport is_hub_itself, waiters_entered

from functools import update_wrapper

from greenlet import getcurrent

from greenwait._psycopg2 import STATUS_BEGIN, ProgrammingError, connection

__all__ = ["Turn", "block_alone", "block_end", "cursor_in_turn", "in_turn"]

# Module-level C variables outlive the module's dict: a commit in a __del__ at interpreter
# exit still finds them.
cdef object current_greenlet = getcurrent
cdef object programming_error = ProgrammingError
cdef object at_exit = object()  # owns turns when greenlets are no more
cdef object end_of_block = connection.__exit__
cdef int STATUS_IN_TRANSACTION = STATUS_BEGIN

cdef str ENTERED = (
    "a with block of this connection is open already, in this task, greenlet or thread, or in "
    "another one that shares it. Blocks do not nest, nor wait for each other: the end of this one "
    "would commit, or roll back, what the other one does. The open block goes on; use a "
    "connection for each, from a pool for instance, and a savepoint within a block"
)


@cython.auto_pickle(False)
@cython.final
cdef class Turn:
    """The turn on one connection."""

    cdef Line line
    cdef object owner  # the greenlet whose turn it is, or None; each thread has one at least
    # A block was left, and its end interrupted before its turn came: it is not committed, and
    # whoever has the next turn rolls it back.
    cdef readonly bint is_left_open

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
            if self.is_left_open and what != "close()":
                end_of_block(conn, programming_error, None, None)  # it calls conn.rollback()
                self.is_left_open = False
            return function(*args, **kwargs)
        finally:
            self.owner = None
            self.line.leave()

    cdef int leave_block(self, conn, own, tuple exc_info) except -1:
        """End the transaction of a block, when it is this greenlet's turn."""
        cdef list begun = []

        if self.owner is current_greenlet():  # below a method of the connection's, see run()
            own(conn, *exc_info)
            return 0

        # psycopg2 lets the next block be entered as soon as it is called.
        def end():
            begun.append(True)
            own(conn, *exc_info)

        try:
            self.run(conn, "the end of a with block", end)
        except BaseException:
            if conn.closed == 0 and not (begun and conn.status != STATUS_IN_TRANSACTION):
                self.is_left_open = True
            raise
        return 0


def nothing():
    """Do nothing."""


def block_alone(own):
    """Return *own*, a connection's ``__enter__()``, which tells what it means if it can't be.

    Compiled, as is the other one: an interrupt between two lines would leave it entered.
    """

    def __enter__(self, /):
        cdef Turn turn = self._turn
        if turn.is_left_open:
            turn.run(self, "a with block", nothing)
        PyErr_CheckSignals()
        try:
            return own(self)
        except programming_error:
            raise programming_error(ENTERED) from None

    return update_wrapper(__enter__, own)


def block_end(own):
    """Return *own*, a connection's ``__exit__()``, to be executed when it is the caller's turn."""

    def __exit__(self, /, kind, exc, traceback):
        (<Turn>self._turn).leave_block(self, own, (kind, exc, traceback))

    return update_wrapper(__exit__, own)


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
