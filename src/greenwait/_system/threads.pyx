"""The main thread, and the number of forks that led to this process."""

from cpython.pythread cimport PyThread_get_thread_ident

import _signal
import _thread
import os
import threading

cdef int forks = 0


cdef unsigned long find_main_thread_ident() except *:
    """Return the main thread's real ident: gevent patches threading's."""
    if hasattr(_thread, "_get_main_thread_ident"):  # CPython 3.13
        return _thread._get_main_thread_ident()
    try:
        _signal.signal(_signal.SIGINT, None)
    except TypeError:  # None is not a handler; other threads get a ValueError before that check
        return PyThread_get_thread_ident()
    except ValueError:  # pragma: no cover: imported by another thread, before Python 3.13
        return threading.main_thread().ident


cdef unsigned long main_thread_ident = find_main_thread_ident()


cdef bint is_main_thread() noexcept:
    """Is this the thread that runs Python's signal handlers?"""
    return PyThread_get_thread_ident() == main_thread_ident


def _after_fork_in_child():
    """Make the thread that has forked the child's main thread."""
    global forks, main_thread_ident
    forks += 1
    main_thread_ident = PyThread_get_thread_ident()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
