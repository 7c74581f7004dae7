"""What greenwait keeps of a connection, from one wait to the next."""

from greenwait._psycopg.libpq cimport PGconn
from greenwait._system.spin cimport spin_t

# Which statement is a method of a Connection executing?
cdef enum Ending:
    NO_ENDING = 0
    COMMIT = 1
    ROLLBACK = 2
    TPC_BEGIN = 3  # not an end; no query follows its BEGIN

cdef class ConnectionState:
    cdef object reference    # weak: it tells when to forget
    cdef spin_t spin
    cdef bint is_async       # async_=1: nobody holds the mutex while it is waited for
    cdef bint is_waiting     # in the callback now; psycopg2 holds its mutex
    # Of a connection that is_prepared:
    cdef bint is_prepared    # in its first query by now
    cdef bint is_plain       # only conn.poll() may be called, not libpq
    cdef bint recheck_tls     # bytes of its answer may lie in OpenSSL, unseen by poll(2)
    # What to ask for its state and for its descriptor while it is in a query. NULL: psycopg2.
    cdef PGconn* has_state
    cdef PGconn* has_socket
    # The last wait was ended by an error after an interruption, inside a transaction:
    # all that the server accepts next is a rollback.
    cdef bint is_failed
    # PQtransactionStatus() when the last wait was over.
    cdef int transaction_status
    # The end of a transaction that a method of it asked for, and the thread that did.
    cdef Ending ending
    cdef unsigned long ending_thread
    # Its method must see no error where there was none: what interrupts it is kept, and raised
    # by ``end_method()``.
    cdef bint keeps_interrupt
    cdef object kept
    # What has interrupted psycopg2's BEGIN; it stops the query that follows.
    cdef object interrupted_begin

cdef ConnectionState state_of(object conn)
cdef bint is_in_query(object conn) except -1
cdef bint is_in_transaction(object conn) except -1
cdef bint is_ready(object conn) except -1
cdef bint is_at_work(object conn) except -1
cdef int prepare(ConnectionState state, object conn) except -1
cdef PGconn* pgconn_of(object conn) except? NULL
