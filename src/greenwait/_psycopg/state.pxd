"""The state that greenwait keeps for a connection, from one wait to the next."""

from greenwait._psycopg.libpq cimport PGconn
from greenwait._system.spin cimport spin_t

# The statement that a method of a Connection is executing.
cdef enum Ending:
    NO_ENDING = 0
    COMMIT = 1
    ROLLBACK = 2
    TPC_BEGIN = 3  # not an end; no query follows its BEGIN

cdef class ConnectionState:
    cdef object reference    # weak: its callback forgets the state
    cdef spin_t spin
    cdef bint is_async       # async_=1: no thread holds the mutex during a wait
    cdef bint is_waiting     # in the callback now; psycopg2 holds its mutex
    # Valid once it is_prepared:
    cdef bint is_prepared    # it has begun its first query
    cdef bint has_poll       # conn.poll() is psycopg2's own
    cdef bint is_plain       # only conn.poll() may be called, not libpq
    cdef bint recheck_tls    # bytes of its answer may lie in OpenSSL, unseen by poll(2)
    # libpq's connection, to ask for its state and its descriptor in a query. NULL: ask psycopg2.
    cdef PGconn* has_state
    cdef PGconn* has_socket
    # An interrupted wait ended with an error inside a transaction: the server accepts only
    # a rollback next.
    cdef bint is_failed
    # PQtransactionStatus() at the end of the last wait.
    cdef int transaction_status
    # The end of a transaction that its method is executing, and the thread of that method.
    cdef Ending ending
    cdef unsigned long ending_thread
    # Its method must not see an error where the server reported none: an interrupt is kept, and
    # raised by ``end_method()``.
    cdef bint keeps_interrupt
    cdef object kept
    # The CopyData of the cursor's method that executes a COPY, by thread; None before the first.
    cdef dict copies
    # start_replication() is executing its statement, which leaves a COPY BOTH open.
    cdef bint expects_stream
    # While a trace is written: the cursor whose method waits, and which; the backend's process.
    cdef object traced_cursor
    cdef str traced_method
    cdef bint traced_query  # ... executes the cursor's query
    cdef int traced_backend
    # The interrupt of psycopg2's BEGIN; it stops the query that follows.
    cdef object interrupted_begin

cdef ConnectionState state_of(object conn)
cdef object backend_pid(object conn)
cdef bint is_in_query(object conn) except -1
cdef bint is_in_transaction(object conn) except -1
cdef bint is_ready(object conn) except -1
cdef bint is_at_work(object conn) except -1
cdef int prepare(ConnectionState state, object conn) except -1
cdef PGconn* pgconn_of(object conn) except? NULL
