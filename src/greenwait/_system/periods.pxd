"""The longest sleeps between two checks, in milliseconds."""

cdef enum:
    # In the main thread, for signals: Python runs their handlers only there, and a signal that
    # arrives just before a sleep, or in another thread, does not end the sleep.
    SIGNALS_MS = 50
    SIGNALS_NS = 50_000_000
    # In every thread, for descriptors closed during a wait, which no poller reports.
    CLOSED_MS = 1000
    CLOSED_NS = 1_000_000_000
