"""The feedback that keeps replication streams open while the program is busy elsewhere.

A server ends a stream whose client was silent for ``wal_sender_timeout``. A program that takes
longer for a message does not wait for the next one meanwhile, in no context. So one native thread
of the process sends feedback for all streams, whatever framework the program uses. It repeats the
positions that the program has confirmed, and confirms none.
"""

from cpython.pythread cimport (
    PyThread_acquire_lock,
    PyThread_allocate_lock,
    PyThread_release_lock,
    PyThread_type_lock,
)
from libc.stdint cimport int64_t

from greenwait._connections.replication_stream cimport Stream
from greenwait._system.clock cimport NO_DEADLINE, monotonic_ns

import os
from weakref import ref

from greenwait._connections.lookup import start_native_thread

__all__ = ["keep_alive"]

cdef extern from "pythread.h":
    int PyThread_acquire_lock_timed(
        PyThread_type_lock lock, long long microseconds, int intr_flag
    ) noexcept nogil

# A stream whose connection's lock is taken is looked at again after this time.
cdef int64_t SHORTEST_SLEEP_NS = 20_000_000
cdef int64_t LONGEST_SLEEP_NS = 1_000_000_000_000

cdef list streams = []  # weak references
cdef bint is_running = False
cdef PyThread_type_lock bell = PyThread_allocate_lock()  # taken; released to wake the thread


if bell is NULL:
    raise MemoryError("no lock to wait for")
PyThread_acquire_lock(bell, 0)


def keep_alive(Stream stream, double seconds):
    """Send feedback for *stream* until it ends, if nobody else has for *seconds*."""
    global is_running
    stream.keepalive_ns = <int64_t>(min(seconds, 1e6) * 1e9)
    streams.append(ref(stream))
    if is_running:
        wake()
        return
    is_running = True
    try:
        start_native_thread(_keep, ())
    except BaseException:
        is_running = False
        raise


cdef void wake() noexcept:
    """Make the thread look again at what is due."""
    PyThread_acquire_lock(bell, 0)
    PyThread_release_lock(bell)


def _keep():
    """Send feedback for all streams, until the last one has ended."""
    global is_running
    cdef int64_t now_ns, due_ns
    while True:
        due_ns = next_due_ns()
        if not streams:
            is_running = False
            return
        now_ns = monotonic_ns()
        sleep_ns(min(max(due_ns - now_ns, SHORTEST_SLEEP_NS), LONGEST_SLEEP_NS))


cdef int64_t next_due_ns():
    """Send what is due; return when something will be."""
    cdef int64_t due_ns = NO_DEADLINE
    cdef Stream stream
    for each in list(streams):
        stream = each()
        if stream is not None and stream.keep_alive():
            due_ns = min(due_ns, stream.due_ns())
        else:
            streams.remove(each)
    return due_ns


cdef int sleep_ns(int64_t duration_ns) noexcept:
    with nogil:
        PyThread_acquire_lock_timed(bell, duration_ns // 1000, 0)
    return 0


def _after_fork_in_child():
    """Leave the streams to the parent, whose thread is not in the child."""
    global bell, is_running, streams
    streams = []
    is_running = False
    bell = PyThread_allocate_lock()
    PyThread_acquire_lock(bell, 0)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
