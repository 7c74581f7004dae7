"""Whose turn is it, among the greenlets of a thread that wait?"""

from libc.stdint cimport int64_t, uint32_t

from greenwait._known cimport Known
from greenwait._readiness_set cimport readiness_set_t
from greenwait._waiter cimport Bell, Waiter

cdef class Parked:
    cdef object greenlet
    cdef bint is_due
    cdef bint is_stopping     # it waits for the end of an interrupted query
    cdef int fd               # < 0: none
    cdef int revents
    cdef int64_t deadline_ns

cdef class Seat:
    cdef Parked innermost     # where it waits, if it does
    cdef object interruption  # to be raised there, or where it waits next
    cdef object raised        # it was
    cdef bint is_patient      # ... but not where it waits for the end of an interrupted query

cdef class Watched:
    cdef Parked parked        # who waits for it
    cdef Known connection     # whose it is, and stays; None: it is in the set for one wait only
    cdef int events           # 0: it is not in the set
    cdef uint32_t turn        # tells its readiness from that of what had the number before

cdef class Loop(Waiter):
    cdef readiness_set_t ready_set
    cdef bint is_open
    cdef unsigned long thread
    cdef bint is_main_thread
    cdef object entered_by      # the greenlet
    cdef Seat seat              # its own
    cdef object due             # waits that are over, and what is to begin, in that order
    cdef Py_ssize_t left_of_batch
    cdef list watched           # by descriptor
    cdef list timers            # a heap
    cdef uint32_t turns
    cdef Py_ssize_t timers_left  # when they were cleared last
    cdef int64_t last_look_ns   # for descriptors that were closed
    cdef Bell bell              # for other threads; None as long as nobody waits for these
    cdef object called          # waits that they have ended

    cdef Seat seat_of(self, object here)
    cdef bint may_begin(self, object due) except -1
    cdef int begin(self, object due, object here) except -1

    cdef int check_thread(self, str what) except -1
    cdef int wait_beside(self, Parked parked, int events) except -1
    cdef int open(self) except -1
    cdef int close(self) except -1
    cdef int listen(self) except -1
    cdef int answer_bell(self) except -1
    cdef Watched watched_at(self, int fd)
    cdef int watch(self, int fd, int events, uint32_t turn) except? -1
    cdef int forget(self, Watched watched, int fd) except -1
    cdef int begin_anew(self) except -1
    cdef int park(self, Parked parked) except -1
    cdef int raise_interruption(self, Seat seat, Parked parked) except -1
    cdef object take_interruption(self, object reason)
    cdef int go_on(self, object due, object here) except -1
    cdef int interrupt(self, Seat seat, object exc, bint is_patient) except -1
    cdef int make_due(self, Parked parked) except -1
    cdef int set_timer(self, Parked parked) except -1
    cdef Parked pop_timer(self)
    cdef object next_due(self, Parked own)
    cdef int poll(self, bint may_sleep) except -1
    cdef int timeout_ms(self, int64_t now_ns) except -1
    cdef int look_for_closed(self) except -1

cdef Parked a_parked(int fd, int64_t deadline_ns)
