"""The options of a WaitCallback, in C, and their defaults."""

from greenwait._sleep cimport POLLER_POLL, WARN_IN_DEBUG_MODE

cdef Options default_options
default_options.poller = POLLER_POLL
default_options.spin_auto = False
default_options.spin_ns = 0
default_options.slow_ns = -1
default_options.timeout_ns = -1
default_options.grace_ns = 1_000_000_000
default_options.on_event_loop = WARN_IN_DEBUG_MODE
