"""The wait loop: ask the connection what it needs, and sleep, until it is done."""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t
from libc.string cimport memset

from greenwait._options cimport Options
from greenwait._psycopg.libpq cimport PGconn, can_see_pending, libpq
from greenwait._psycopg.state cimport ConnectionState, Ending
from greenwait._sleep cimport Sleep
from greenwait._system.clock cimport NO_DEADLINE

# psycopg2 names these in psycopg2.extensions; their values are part of its API.
cdef enum:
    POLL_OK = 0
    POLL_READ = 1
    POLL_WRITE = 2

# A wait for a connection, or a phase of one.
cdef struct Wait:
    const Options* options
    int64_t deadline_ns
    PyObject* state   # the connection's ConnectionState; None: it is not a psycopg2 connection
    PyObject* block   # the timeout() block that sets the deadline; None: the callback, or nothing
    bint is_answered  # some of the answer may have arrived before
    bint was_idle     # no transaction was open on the server before it
    int row           # in a trace; 0: it is not recorded
    bint draining     # it waits for the end of an interrupted query
    # If it is recorded: when it began, whether it stops an event loop, and what has interrupted it,
    # its class, and when.
    int64_t began_ns
    bint stops_loop
    PyObject* interrupted_by
    int64_t interrupted_ns
    # For a query that is being stopped:
    bint is_deadline  # the wait's own deadline has stopped it
    Ending ending     # it ends a transaction
    bint is_two_phase  # ... of two phases
    bint has_ended_stream  # it began a replication stream, which was ended
    int cancels       # the requests that were sent
    bint has_given_up  # the server has not ended it within the grace
    PyObject* copy    # the CopyData of the COPY that it transfers; NULL: it has not begun one

cdef int check_pollable(object conn) except -1
cdef int call_poll(object conn, const Wait* wait) except -1
cdef int wait_until_ok(object conn, Wait* wait) except -1
cdef int wait_until_sent(object conn, Wait* wait) except -1
cdef int sleep_for(object conn, int polled, Wait* wait) except -1
cdef int send(object conn, Wait* wait) except -1
cdef int restore_send_buffer(object conn, int former) except -1
cdef tuple messages_of(object conn)
cdef int raise_lost(PGconn* pgconn) except -1


cdef inline bint is_prepared(const Wait* wait) noexcept:
    """Is it the wait of a psycopg2 connection in a query?"""
    return wait.state is not <PyObject*>None and (<ConnectionState>wait.state).is_prepared


cdef inline bint rechecks_tls(const Wait* wait) noexcept:
    """May bytes of the answer lie in OpenSSL, unseen by poll(2)?"""
    return wait.state is not <PyObject*>None and (<ConnectionState>wait.state).recheck_tls


cdef inline bint has_pending(PGconn* pgconn) noexcept nogil:
    """Has OpenSSL decrypted bytes that libpq has not read? poll(2) does not see these."""
    cdef void* ssl = libpq.getssl(pgconn) if can_see_pending else NULL
    return ssl is not NULL and libpq.SSL_pending(ssl) > 0


cdef inline bint are_same(tuple these, tuple those) noexcept:
    # By identity: a server may repeat a notice's text. *those* keeps its notice from being freed.
    return these[0] is those[0] and these[1] == those[1]


cdef inline Wait phase_of(const Wait* wait, int64_t deadline_ns) noexcept:
    """Return a phase of the wait, which ends at *deadline_ns* at the latest."""
    cdef Wait phase = wait[0]
    phase.deadline_ns = min(wait.deadline_ns, deadline_ns)
    return phase


cdef inline Sleep new_sleep(int events, const Wait* wait) noexcept:
    """Return a new sleep of the wait."""
    cdef Sleep sleep
    memset(&sleep, 0, sizeof(sleep))
    sleep.events = events
    sleep.deadline_ns = wait.deadline_ns
    sleep.rest_ns = NO_DEADLINE
    sleep.draining = wait.draining
    sleep.on_event_loop = wait.options.on_event_loop
    if wait.state is not <PyObject*>None:
        sleep.has_socket = (<ConnectionState>wait.state).has_socket
        sleep.state = wait.state if is_prepared(wait) else NULL
    return sleep
