"""The recorder of a trace: what the program waits for, and when, in a file.

The places that record, each of which tests ``trace_is_on`` or ``observed_ns`` where it would wait:
``_interrupt.wait_observed()`` (queries, deadlines, interrupts), ``_stop.send_cancel()`` and
``_cancel.cancel()``, ``FairSemaphore.enter()`` (the pool, a connection's lock).
"""

from libc.stdint cimport int64_t

from greenwait._poll cimport Wait
from greenwait._psycopg.state cimport ConnectionState

cdef bint trace_is_on
# Waits are observed if their callback's slow_ns is not less: only those that are to be logged while
# this is 0, and all while there is a trace.
cdef int64_t observed_ns

# The row of the running thread, while a trace is on and no framework runs in the process; 0 where
# row_here() has to be asked.
cdef int row_known() noexcept
# The row of the running greenlet or thread. It may run Python code, and raise an interrupt.
cdef int row_here(bint* stops_loop) except -1
# Record the wait of a connection like an earlier one of the same line; False: trace_wait() has to.
cdef bint trace_again(ConnectionState state, const Wait* wait, int64_t ended_ns) noexcept
# Record the wait of a connection, when it is over; *state* is that of *wait*. It may run Python
# code too.
cdef int trace_wait(
    object conn, ConnectionState state, const Wait* wait, int64_t ended_ns
) except -1
# Record what began then and is over now.
cdef int trace_span(int row, str category, str name, int64_t began_ns) except -1
cdef int trace_mark(int row, object kind, int64_t at_ns) except -1
