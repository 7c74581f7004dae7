"""A connection pool, fair to greenlets, tasks and threads alike."""

from libc.stdint cimport int64_t

from greenwait._connections.lock cimport FairLock
from greenwait._connections.pool_times cimport PoolTimes
from greenwait._connections.semaphore cimport FairSemaphore

cdef class Member:
    cdef object conn
    cdef FairLock lock          # the connection's; one that nobody takes if it has none
    cdef FairSemaphore places   # the pool's when it was lent: a forked child has another one
    cdef bint is_lent
    cdef bint is_in_block       # lent to a Borrowed, which gives it back
    cdef int64_t expires_ns
    cdef int64_t idle_since_ns
    cdef int64_t lent_ns        # when, if the pool's times are counted
    cdef tuple settings
    cdef object pid             # of the backend

cdef class Borrowed:
    cdef Pool pool
    cdef object timeout
    cdef readonly bint is_entered
    cdef Member member          # None: it has no connection
    cdef int leave_clean(self) except -1
    cdef int give_back(self, Member member) except -1

cdef class Pool:
    cdef str dsn
    cdef dict options
    cdef Py_ssize_t min_size
    cdef Py_ssize_t max_size
    cdef int64_t timeout_ns
    cdef int64_t max_idle_ns
    cdef int64_t max_lifetime_ns
    cdef object check
    cdef object configure
    cdef object reset
    cdef FairSemaphore places
    cdef dict members       # by the connection's id(); not those that are being made
    cdef list idle          # members; the one given back last is lent first
    cdef bint is_closed
    cdef FairSemaphore empty  # opened when no place is taken; close() waits for that
    cdef Py_ssize_t taken   # places
    cdef Py_ssize_t making
    cdef Py_ssize_t in_use
    cdef Py_ssize_t lent
    cdef Py_ssize_t timeouts
    cdef Py_ssize_t made
    cdef Py_ssize_t failures
    cdef Py_ssize_t discarded
    cdef int64_t waited_ns
    cdef bint is_watched    # there are times or news, of which lending has to know
    cdef PoolTimes times    # None: they are not counted
    cdef list news          # connections made and closed that are still to be logged, or None
    cdef object __weakref__

    cdef int begin(self) except -1
    cdef int fill(self) except -1
    cdef Member lend(self, int64_t timeout_ns, bint waits_for_place=*)
    cdef int64_t timeout_of(self, object timeout) except -1
    cdef int check_open(self) except -1
    cdef Member find(self, int64_t began_ns, int64_t deadline_ns)
    cdef bint is_fit(self, Member member, int64_t now_ns) except -1
    cdef Member make(self, int64_t deadline_ns)
    cdef object too_late(self, int64_t began_ns, object cause)
    cdef int take_back(self, Member member, bint is_wanted=*) except -1
    cdef int give_place_back(self, FairSemaphore places) except -1
    cdef bint is_clean(self, Member member, object reset) except -1
    cdef str why_closed(self, bint is_wanted, object interruption)
    cdef int put_aside(self, Member member) except -1
    cdef int discard_idle(self, int64_t now_ns) except -1
    cdef int discard(self, Member member, str why) except -1
    cdef int note(self, Member member, object what) except -1
    cdef int note_lent(self, Member member, int64_t began_ns) except -1
    cdef int note_used(self, Member member) noexcept
    cdef int tell(self, object raised=*) except -1
    cdef object log_news(self)

cdef object lend_now(Pool pool)
