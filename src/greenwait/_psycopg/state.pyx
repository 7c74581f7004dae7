"""The state that greenwait keeps for a connection, from one wait to the next.

It holds facts that are too slow to find out in every wait, and those learned in earlier
waits. A connection has no room for it, so a dict keeps it until the connection is freed.
"""

cimport cython
from cpython.long cimport PyLong_AsVoidPtr, PyLong_FromVoidPtr
from cpython.object cimport PyObject
from cpython.pythread cimport PyThread_get_thread_ident

from greenwait._psycopg.attributes cimport value_of
from greenwait._psycopg.libpq cimport (
    PGconn,
    can_end_copy,
    can_receive,
    can_see_pending,
    can_set_nonblocking,
    leaves_tls_bytes,
    libpq,
)
from greenwait._system.sealed_type cimport seal_type

import weakref

from greenwait._psycopg import psycopg2

__all__ = ["begin_method", "end_method", "expect_stream"]

# psycopg2's own attributes, even if a subclass overrides them. None of them takes a lock.
cdef type connection_type = psycopg2.connection
cdef object connection_pgconn_ptr = connection_type.pgconn_ptr
cdef object connection_async = connection_type.async_
cdef object connection_status = connection_type.status
cdef object connection_info = connection_type.info

# The status of a connection; 20 and above are the steps of connecting (psycopg/connection.h).
cdef enum:
    STATUS_SETUP = 0
    STATUS_READY = 1
    STATUS_BEGIN = 2
    STATUS_CONNECTING = 20

cdef extern from "connection_mutex.h":
    bint connection_mutex_is_known(type state) noexcept
    bint connection_mutex_is_held(object conn) noexcept

cdef bint can_see_mutex = connection_mutex_is_known(connection_type)

cdef dict states = {}

# Some of them by their connection's address, without a reference: a look into the dict needs an int
# first, and costs more than all the rest of state_of().
cdef enum:
    PLACES = 1024

cdef struct Place:
    PyObject* conn
    PyObject* state

cdef Place[PLACES] places


cdef inline Place* place_of(PyObject* conn) noexcept:
    cdef size_t number = <size_t>conn >> 4  # objects lie 16 bytes apart at least
    return &places[(number ^ (number >> 10)) % PLACES]


class _Reference(weakref.ref):
    """A weak reference that remembers its object's address."""

    __slots__ = ("address",)


def _forget(reference):
    cdef PyObject* conn = <PyObject*>PyLong_AsVoidPtr(reference.address)
    cdef Place* place = place_of(conn)
    if place.conn is conn:
        place.conn = place.state = NULL
    states.pop(reference.address, None)


@cython.final
cdef class ConnectionState:
    """The state kept for a connection; see ``state.pxd``."""


seal_type(ConnectionState, "it is made when a connection first waits")


cdef ConnectionState state_of(object conn):
    """Return the state of a psycopg2 connection, made on first use."""
    cdef Place* place = place_of(<PyObject*>conn)
    cdef ConnectionState state
    if place.conn is <PyObject*>conn:
        return <ConnectionState>place.state
    key = PyLong_FromVoidPtr(<PyObject*>conn)
    state = states.get(key)
    if state is None:
        state = ConnectionState.__new__(ConnectionState)
        state.reference = _Reference(conn, _forget)
        state.reference.address = key
        state.is_async = value_of(connection_async, conn)
        states[key] = state
    place.conn, place.state = <PyObject*>conn, <PyObject*>state
    return state


cdef object backend_pid(object conn):
    """Return the pid of its backend, 0 without one; no Python code runs for that."""
    return value_of(connection_info, conn).backend_pid


cdef bint is_in_query(object conn) except -1:
    """Is it connected, so that its waits are for a query's answer?"""
    cdef int status = value_of(connection_status, conn)
    return STATUS_SETUP < status < STATUS_CONNECTING


cdef bint is_in_transaction(object conn) except -1:
    """Has psycopg2 begun a transaction on it?"""
    cdef int status = value_of(connection_status, conn)
    return status == STATUS_BEGIN


cdef bint is_ready(object conn) except -1:
    """Is there neither an open nor a prepared transaction, as far as psycopg2 knows?"""
    cdef int status = value_of(connection_status, conn)
    return status == STATUS_READY


cdef bint is_at_work(object conn) except -1:
    """Does psycopg2 hold the connection's mutex, or wait for the server on it?"""
    return state_of(conn).is_waiting or (can_see_mutex and connection_mutex_is_held(conn))


cdef int prepare(ConnectionState state, object conn) except -1:
    """Make a connection that is in its first query ready for its waits.

    One that was opened before a wait callback was registered is in libpq's blocking
    mode, in which PQsendQuery() does not return before all is sent: that is over now,
    and later statements are sent from the callback.
    """
    cdef PGconn* pgconn = pgconn_of(conn)
    if can_set_nonblocking and pgconn is not NULL and not libpq.isnonblocking(pgconn):
        libpq.setnonblocking(pgconn, 1)  # fails if the connection is lost: poll() will report that
    state.has_poll = has_own(conn, "poll")
    state.is_plain = not can_receive or state.is_async or not state.has_poll
    state.recheck_tls = (
        leaves_tls_bytes
        and (state.is_plain or not can_see_pending)
        and conn.info.ssl_in_use
    )
    if not state.is_async:
        state.has_state = pgconn if can_end_copy else NULL
        state.has_socket = pgconn if libpq.socket and has_own(conn, "fileno") else NULL
    state.is_prepared = True
    return 0


cdef bint has_own(object conn, str method) except -1:
    """Is the method psycopg2's own, not overridden by a subclass or an instance?"""
    if type(conn) is connection_type:
        return True
    own = getattr(type(conn), method) is getattr(connection_type, method)
    return own and method not in getattr(conn, "__dict__", ())


cdef PGconn* pgconn_of(object conn) except? NULL:
    """Return libpq's connection; NULL if it is closed."""
    pointer = value_of(connection_pgconn_ptr, conn)
    return NULL if pointer is None else <PGconn*>PyLong_AsVoidPtr(pointer)


cdef dict endings = {"commit": COMMIT, "rollback": ROLLBACK, "tpc_begin": TPC_BEGIN}


def begin_method(conn, kind, bint keeps_interrupt):
    """Record that this thread is in a method of *conn* that ends a transaction or sets an option.

    :param kind: ``"commit"``, ``"rollback"``, ``"tpc_begin"``, or None.
    :param keeps_interrupt: keep an interrupt for ``end_method()`` to raise. psycopg2 changes its
        own state only if the method succeeds, and the server must not be ahead of that.
    """
    cdef ConnectionState state = state_of(conn)
    state.ending = endings.get(kind, NO_ENDING)
    state.ending_thread = PyThread_get_thread_ident()
    state.keeps_interrupt = keeps_interrupt


def end_method(conn):
    """Record that the method is over; raise the interrupt that was kept, if any."""
    cdef ConnectionState state = state_of(conn)
    state.ending = NO_ENDING
    state.keeps_interrupt = False
    exc, state.kept = state.kept, None
    if exc is not None:
        raise exc


def expect_stream(conn, bint expects):
    """Record whether *conn* is executing a statement that is to leave a COPY BOTH open."""
    state_of(conn).expects_stream = expects
