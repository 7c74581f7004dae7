"""How often a sleep looks up, in milliseconds: nobody sleeps for ever."""

cdef enum:
    # The main thread, for signals. Python runs their handlers there only, and one that comes just
    # before a sleep, or to another thread, does not end it.
    SIGNALS_MS = 50
    # Everybody, for descriptors that were closed under a wait, which no poller reports.
    CLOSED_MS = 1000
