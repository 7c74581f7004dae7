"""The sleep of a plain thread, in poll(2) or epoll_wait(2), without the GIL."""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t

from greenwait._psycopg.libpq cimport PGconn

cdef enum Poller:
    POLLER_POLL
    POLLER_EPOLL

# The reaction to an event loop that runs in the thread that is to sleep.
cdef enum OnEventLoop:
    WARN_IN_DEBUG_MODE
    WARN_ALWAYS
    RAISE_ERROR

# Called without the GIL when the descriptor is ready; *revents* are poll(2)'s. It works without
# waiting, for a few milliseconds at most, since the clock is checked only between two calls.
# Returns 0 to go on sleeping, CALL_AGAIN if it can do more without a sleep, or a number above 0,
# which ends the sleep and is its result.
ctypedef int (*Advance)(void* argument, int revents) noexcept nogil

cdef enum:
    CALL_AGAIN = -1

# A sleep of a wait: its options, and what it learns.
cdef struct Sleep:
    PyObject* state       # the connection's ConnectionState, if it keeps its descriptor; NULL
    PGconn* has_socket    # to ask for the descriptor; NULL: conn.fileno()
    int events            # READINESS_READ, READINESS_WRITE or both
    bint recheck_tls      # end it after 50 ms, ready or not: it returns 0
    OnEventLoop on_event_loop
    bint draining         # for the end of an interrupted query
    int64_t deadline_ns   # raise DeadlinePassed then; NO_DEADLINE
    int64_t spin_ns       # spin for this long first; counted down
    Advance advance       # NULL: the sleep ends when the descriptor is ready, and returns 1
    bint is_ready         # advance before sleeping, whether the descriptor is ready or not
    int64_t rest_ns       # end it then if the descriptor was ready, and return 0; NO_DEADLINE
    bint may_stay         # a greenlet need not step aside for each part that has arrived
    void* argument
    # out:
    int64_t began_ns
    int64_t answer_ns     # from the first check until the descriptor was ready

cdef int sleep_until_ready(object conn, Poller poller, Sleep* sleep) except -1
cdef int run_signal_handlers() except -1
