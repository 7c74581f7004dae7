"""The options of a WaitCallback, in C, and their defaults."""

from libc.stdint cimport int64_t

from greenwait._sleep cimport OnEventLoop, Poller

cdef struct Options:
    Poller poller
    bint spin_auto
    int64_t spin_ns
    int64_t slow_ns     # < 0: nothing is logged
    int64_t timeout_ns  # < 0: none
    int64_t grace_ns
    OnEventLoop on_event_loop

# Those of greenwait.wait; WaitCallback's signature says the same.
cdef Options default_options
