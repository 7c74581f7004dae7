"""The wait loop: ask the connection what it needs, and sleep, until it is done."""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t
from libc.string cimport memset

from greenwait._psycopg.state cimport ConnectionState, Ending
from greenwait._sleep cimport OnEventLoop, Poller, Sleep
from greenwait._system.clock cimport NO_DEADLINE

# psycopg2 names these in psycopg2.extensions; their values are part of its API.
cdef enum:
    POLL_OK = 0
    POLL_READ = 1
    POLL_WRITE = 2

# What a WaitCallback was given, as C has it.
cdef struct Options:
    Poller poller
    bint spin_auto
    int64_t spin_ns
    int64_t slow_ns     # < 0: nothing is logged
    int64_t timeout_ns  # < 0: none
    int64_t grace_ns
    OnEventLoop on_event_loop

cdef Options default_options

cdef struct Wait:
    const Options* options
    int64_t deadline_ns
    bint is_answered  # some of the answer may have arrived before
    bint was_idle     # no transaction was open on the server before it
    bint draining  # what is waited for is the end of a query that was interrupted
    # Of a query that is being stopped:
    bint is_deadline  # the wait's own deadline has stopped it
    Ending ending     # it ends a transaction
    bint is_two_phase  # ... of two phases

cdef int check_pollable(object conn) except -1
cdef int call_poll(object conn) except -1
cdef int wait_until_ok(object conn, ConnectionState state, Wait* wait) except -1
cdef int wait_until_sent(object conn, ConnectionState state, Wait* wait) except -1
cdef int sleep_for(object conn, ConnectionState state, int polled, Wait* wait) except -1


cdef inline Sleep new_sleep(int events, ConnectionState state, const Wait* wait) noexcept:
    """Return one sleep of the wait."""
    cdef Sleep sleep
    memset(&sleep, 0, sizeof(sleep))
    sleep.events = events
    sleep.deadline_ns = wait.deadline_ns
    sleep.rest_ns = NO_DEADLINE
    sleep.draining = wait.draining
    sleep.on_event_loop = wait.options.on_event_loop
    if state is not None:
        sleep.has_socket = state.has_socket
        sleep.state = <PyObject*>state if state.is_prepared else NULL
    return sleep
