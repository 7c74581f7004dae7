"""A fair lock for greenlets and threads; each shared connection has one.

psycopg2 has a mutex for each connection. A wait for it stops the thread, and with it the
greenlet that is to release the mutex. So this lock is taken before.
"""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject

from greenwait._connections.semaphore cimport FairSemaphore
from greenwait._psycopg.attributes cimport value_of
from greenwait._psycopg.state cimport ConnectionState, is_at_work, is_ready, state_of
from greenwait._system.clock cimport NO_DEADLINE
from greenwait._system.finalizing cimport Py_IsFinalizing
from greenwait._system.method cimport (
    Method,
    PyObject_Vectorcall,
    PyVectorcall_NARGS,
    make_method_class,
)
from greenwait._system.sealed_type cimport seal_type
from greenwait._system.switching cimport current_greenlet
from greenwait._trace cimport trace_is_on
from greenwait._waiter cimport is_hub_itself, waiters_entered

from functools import update_wrapper

from greenwait._psycopg.prototypes import with_signature
from greenwait._psycopg.psycopg2 import (
    STATUS_BEGIN,
    InterfaceError,
    ProgrammingError,
    connection,
)

__all__ = [
    "FairLock",
    "block_alone",
    "block_end",
    "cursor_block_end",
    "cursor_with_lock",
    "unless_idle",
    "with_lock",
]

cdef object programming_error = ProgrammingError
cdef object interface_error = InterfaceError
cdef object at_exit = object()  # the owner when the greenlet module is gone
cdef object end_of_block = connection.__exit__
cdef object connection_closed = connection.closed
cdef object connection_async = connection.async_
cdef int STATUS_IN_TRANSACTION = STATUS_BEGIN

cdef str ENTERED = (
    "a with block of this connection is open already, in this task, greenlet or thread, or in "
    "another one that shares it. Blocks do not nest, nor wait for each other: the end of this one "
    "would commit, or roll back, what the other one does. The open block goes on; use a "
    "connection for each, from a pool for instance, and a savepoint within a block"
)

cdef str NOT_LENT_ANY_MORE = (
    "this connection was given back to its pool: use it within its with block, or before "
    "putconn(), and borrow one again for what comes later"
)


@cython.auto_pickle(False)
@cython.final
cdef class FairLock:
    """The lock of one connection."""

    def __cinit__(self):
        self.semaphore = FairSemaphore(1)
        self.semaphore.what = "the connection's lock"
        self.state = USABLE

    @property
    def is_taken(self):
        """Whether the lock is held, or about to be."""
        return self.semaphore.free == 0

    @property
    def is_left_open(self):
        """Whether the end of a block was interrupted, so that the next owner rolls it back."""
        return self.state == LEFT_OPEN

    cpdef bint is_idle(self, conn) except -1:
        """Return whether nobody is at work on the connection, and no transaction is open."""
        return (
            self.semaphore.free > 0
            and self.state == USABLE
            and is_ready(conn)
            and not value_of(connection_closed, conn)
            and not value_of(connection_async, conn)
        )

    def run(self, conn, str what, function, /, *args, **kwargs):
        """Call the function while holding the lock, and return its result.

        :param conn: the connection.
        :param what: the method of the connection, or of a cursor, that is called.
        :raises psycopg2.InterfaceError: the connection was given back to its pool.
        :raises psycopg2.ProgrammingError: psycopg2 is at work on the connection in this very
            greenlet; or another greenlet holds the lock, and this one can't wait, because it is
            an event loop's own, or at interpreter exit.

        A method may call another one, and so may an adapter or a typecaster: psycopg2 calls them
        without its mutex. A signal handler's exception, or a deadline, ends the wait. Python code
        has no pair of methods to take the lock and to release it: an interrupt between the two
        would keep it for ever.
        """
        cdef bint was_taken = self.take(conn, what)
        try:
            return function(*args, **kwargs)
        finally:
            if was_taken:
                self.release()

    cdef bint take(self, conn, str what) except -1:
        """Take the lock; return False if this greenlet holds it already."""
        here = at_exit if Py_IsFinalizing() else current_greenlet()
        if self.owner is here:
            if not is_at_work(conn):
                return False
            raise programming_error(
                f"{what}: this connection is at work for the very greenlet or thread that "
                "calls, from a signal handler or a __del__; use another connection there, "
                "or cancel()"
            )
        if self.semaphore.free == 0 and (
            here is at_exit or (waiters_entered > 0 and is_hub_itself())
        ):
            raise programming_error(
                f"{what}: another greenlet or thread is at work on this connection, and can't be "
                "waited for here, in an event loop's own greenlet or at interpreter exit; use "
                "another connection, or cancel()"
            )
        self.semaphore.enter(NO_DEADLINE)
        self.owner = here
        if self.state != USABLE and what != "close()":
            self.recover(conn, what)
        return True

    cdef int recover(self, conn, str what) except -1:
        """Make the connection usable, for the owner, or release the lock and raise why it isn't."""
        try:
            if self.state == NOT_LENT:
                raise interface_error(f"{what}: {NOT_LENT_ANY_MORE}")
            end_of_block(conn, programming_error, None, None)  # it calls conn.rollback()
        except BaseException:
            self.release()
            raise
        self.state = USABLE
        return 0

    cdef int release(self) except -1:
        self.owner = None
        return self.semaphore.leave()

    cdef int leave_block(self, conn, base_method, tuple exc_info) except -1:
        """End the transaction of a block while holding the lock."""
        cdef list begun = []

        if self.owner is current_greenlet():  # within a method of the connection, see run()
            base_method(conn, *exc_info)
            return 0

        # psycopg2 lets the next block be entered as soon as it is called.
        def end():
            begun.append(True)
            base_method(conn, *exc_info)

        try:
            self.run(conn, "the end of a with block", end)
        except BaseException:
            if conn.closed == 0 and not (begun and conn.status != STATUS_IN_TRANSACTION):
                self.state = LEFT_OPEN
            raise
        return 0


def nothing():
    """Do nothing."""


def block_alone(base_method):
    """Return a connection's ``__enter__()``, whose error explains why no block can be entered.

    Compiled, as ``block_end()`` is: an interrupt between two lines would leave it entered.
    """

    def __enter__(self, /):
        cdef FairLock lock = self._lock
        if lock.state != USABLE:
            lock.run(self, "a with block", nothing)
        PyErr_CheckSignals()
        try:
            return base_method(self)
        except programming_error:
            raise programming_error(ENTERED) from None

    return update_wrapper(__enter__, base_method)


def block_end(base_method):
    """Return a connection's ``__exit__()``, which holds the lock."""

    def __exit__(self, /, kind, exc, traceback):
        (<FairLock>self._lock).leave_block(self, base_method, (kind, exc, traceback))

    return update_wrapper(__exit__, base_method)


def cursor_block_end(self, /, kind, exc, traceback):
    """Close the cursor. psycopg2's does the same, but looks for close() by a new str each time."""
    self.close()


@cython.auto_pickle(False)
@cython.final
@cython.internal
cdef class Guard(Method):
    """A method of a connection or of a cursor that holds the lock while its base method runs."""

    cdef object base_method
    cdef readonly object nameless  # what a cursor without a name calls instead, or None
    cdef str what
    cdef bint is_of_cursor

    def __cinit__(self):
        self.vectorcall = <void*>call_guarded


cdef object call_guarded(Guard guard, PyObject** args, size_t nargsf, PyObject* names):
    cdef bint was_taken
    if PyVectorcall_NARGS(nargsf) == 0:
        raise TypeError(f"{guard.what} is a method, and was called without its object")
    conn = <object>args[0]
    if guard.nameless is not None and conn.name is None:
        return PyObject_Vectorcall(guard.nameless, args, nargsf, names)
    if guard.is_of_cursor:
        conn = conn.connection
    lock = getattr(conn, "_lock", None)
    if type(lock) is not FairLock:  # only a Connection has one
        return PyObject_Vectorcall(guard.base_method, args, nargsf, names)
    was_taken = (<FairLock>lock).take(conn, guard.what)
    try:
        if trace_is_on and guard.is_of_cursor:
            return call_recorded(guard, conn, args, nargsf, names)
        return PyObject_Vectorcall(guard.base_method, args, nargsf, names)
    finally:
        if was_taken:
            (<FairLock>lock).release()


cdef object call_recorded(
    Guard guard, object conn, PyObject** args, size_t nargsf, PyObject* names
):
    """Call the method of a cursor; its waits are recorded by the cursor's statement."""
    cdef ConnectionState state = state_of(conn)
    cursor, method, is_query = state.traced_cursor, state.traced_method, state.traced_query
    state.traced_cursor, state.traced_method = <object>args[0], guard.what
    state.traced_query = guard.nameless is None  # a fetch has another statement
    try:
        return PyObject_Vectorcall(guard.base_method, args, nargsf, names)
    finally:  # it would keep the cursor, and with it the connection
        state.traced_cursor, state.traced_method, state.traced_query = cursor, method, is_query


make_method_class(Guard)
seal_type(Guard, "a connection's or a cursor's class makes it")


@cython.auto_pickle(False)
@cython.final
@cython.internal
cdef class Ending(Method):
    """A method that ends a transaction, and need not do anything while none is open."""

    cdef object base_method

    def __cinit__(self):
        self.vectorcall = <void*>call_ending


cdef object call_ending(Ending ending, PyObject** args, size_t nargsf, PyObject* names):
    if PyVectorcall_NARGS(nargsf) == 1 and names is NULL:
        conn = <object>args[0]
        lock = getattr(conn, "_lock", None)
        if type(lock) is FairLock and (<FairLock>lock).is_idle(conn):
            return None
    return PyObject_Vectorcall(ending.base_method, args, nargsf, names)


make_method_class(Ending)
seal_type(Ending, "a connection's class makes it")


def unless_idle(base_method):
    """Return a connection's method that calls *base_method* unless no transaction is open."""
    cdef Ending ending = Ending.__new__(Ending)
    ending.base_method = base_method
    return update_wrapper(ending, base_method)


def with_lock(base_method, str name):
    """Return a connection's method that holds the lock while *base_method* runs."""
    return new_guard(base_method, name)


def cursor_with_lock(base_method, str name, *, nameless=None):
    """Return a cursor's method that holds the lock while *base_method* runs.

    :param nameless: what a cursor without a name calls instead, and without the lock, if given.
    """
    cdef Guard guard = new_guard(base_method, name)
    guard.is_of_cursor, guard.nameless = True, nameless
    return guard


cdef Guard new_guard(object base_method, str name):
    cdef Guard guard = Guard.__new__(Guard)
    guard.base_method, guard.what = base_method, f"{name}()"
    return update_wrapper(guard, with_signature(base_method))
