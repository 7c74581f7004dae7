"""Whose turn is it, among the greenlets of a thread that wait?

Where one would wait for the server it steps aside: the descriptor is armed, and the next
greenlet that is due goes on. There is no greenlet for the loop: whoever steps aside and
finds nobody due looks for what is ready, sleeps if nothing is, and switches straight to
whoever it is for, or just returns if that is itself.

All of a loop happens in one thread. Everything a greenlet may be switched away from lies in
objects: its C stack is copied away meanwhile, and pointers into it lead nowhere.
"""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.pythread cimport PyThread_get_thread_ident
from libc.errno cimport EINTR
from libc.stdint cimport int64_t, uint32_t

from greenwait._deadline cimport after
from greenwait._known cimport Known
from greenwait._monotonic cimport NO_DEADLINE, monotonic_ns
from greenwait._ranks cimport higher
from greenwait._readiness cimport READINESS_READ
from greenwait._readiness_set cimport (
    readiness_set_close,
    readiness_set_forget,
    readiness_set_open,
    readiness_set_wait,
    readiness_set_watch,
    readiness_t,
)
from greenwait._sealed_type cimport seal_type
from greenwait._sleep cimport is_main_thread
from greenwait._stats cimport counters
from greenwait._waiter cimport LOOK_NS, Bell, Waiter, complaint_about

import heapq
import os
from collections import deque

from greenlet import getcurrent, greenlet

# Module-level C variables outlive the module's dict: a generator of map()'s that is closed
# at interpreter exit still finds them.
cdef object current_greenlet = getcurrent
cdef object switch_to = greenlet.switch  # a look-up of the method costs as much as the call
cdef object push = heapq.heappush
cdef object pop = heapq.heappop
cdef object heapify = heapq.heapify

cdef enum:
    BATCH = 128

# Signals that come just before the sleep are noticed this late.
cdef int64_t LOOK_UP_NS = 50_000_000


@cython.auto_pickle(False)
@cython.final
cdef class Seat:
    """What a greenlet has that can be interrupted: each job, and whoever entered the hub."""


@cython.auto_pickle(False)
@cython.final
cdef class Parked:
    """One wait of one greenlet."""


@cython.auto_pickle(False)
@cython.final
cdef class Watched:
    """A descriptor, and what the readiness set knows of it."""


seal_type(Parked, "a greenlet that waits makes it")
seal_type(Watched, "a Loop makes it")


cdef Parked a_parked(int fd, int64_t deadline_ns):
    cdef Parked parked = Parked.__new__(Parked)
    parked.fd = fd
    parked.deadline_ns = deadline_ns
    return parked


@cython.auto_pickle(False)
cdef class Loop(Waiter):
    """See ``_loop.pxd``; what a subclass begins, and in which greenlets, is its own."""

    def __cinit__(self):
        self.due = deque()
        self.called = deque()
        self.watched = []
        self.timers = []

    def __dealloc__(self):
        if self.is_open:
            readiness_set_close(&self.ready_set)

    cdef Seat seat_of(self, object here):
        """Return the seat of a greenlet; None if it has none."""
        raise NotImplementedError

    cdef bint may_begin(self, object due) except -1:
        """Is it still to begin, what is due and no wait?"""
        raise NotImplementedError

    cdef int begin(self, object due, object here) except -1:
        """Switch to a greenlet in which that begins."""
        raise NotImplementedError

    cdef int check_thread(self, str what) except -1:
        if not self.is_open:
            raise RuntimeError(f"{what}: the hub's with block is over, or has not begun")
        if PyThread_get_thread_ident() != self.thread:
            raise RuntimeError(f"{what}: a hub is its thread's alone; this is another one")
        if self.is_of_parent:
            raise RuntimeError(f"{what}: the hub's jobs are the parent process's; make another hub")
        return 0

    # What is below is called in the loop's thread only.

    cdef int open(self) except -1:
        """Belong to this thread, and to the greenlet that runs now."""
        cdef int rc = readiness_set_open(&self.ready_set)
        if rc < 0:
            raise OSError(-rc, f"no descriptor for a hub: {os.strerror(-rc)}")
        self.is_open = True
        self.thread = PyThread_get_thread_ident()
        self.is_main_thread = is_main_thread()
        self.entered_by = current_greenlet()
        self.seat = Seat.__new__(Seat)
        self.last_look_ns = monotonic_ns()
        return 0

    cdef int close(self) except -1:
        """Let go of everything; nobody waits any more."""
        readiness_set_close(&self.ready_set)
        self.bell = None
        self.is_open = False
        return 0

    cdef int wait_for(
        self, int fd, int events, int64_t deadline_ns, bint is_stopping, Known connection
    ) except -1:
        cdef Parked parked = a_parked(fd, deadline_ns)
        parked.is_stopping = is_stopping
        cdef Watched watched = self.watched_at(fd)
        cdef int rc
        if watched.parked is not None:
            return self.wait_beside(parked, events)
        if connection is None or watched.connection is not connection or watched.events != events:
            self.turns += 1
            if self.turns == 0:
                self.turns = 1  # 0 is the bell's
            watched.turn = self.turns
            rc = self.watch(fd, events, watched.turn)
            if rc < 0:
                return rc
            watched.connection, watched.events = connection, events
        watched.parked = parked
        try:
            self.park(parked)
        finally:
            watched.parked = None
            if connection is None:
                self.forget(watched, fd)
        return parked.revents

    cdef int wait_beside(self, Parked parked, int events) except -1:
        """Look now and then: another greenlet waits on the same descriptor."""
        parked.fd, parked.revents = -1, events
        parked.deadline_ns = min(parked.deadline_ns, after(10_000_000))
        self.park(parked)
        return events

    cdef bint postpone(self, object exc) except -1:
        cdef Seat seat = self.seat_of(current_greenlet())
        if seat is None or seat is self.seat or exc is not seat.raised:
            return False
        seat.raised = None
        seat.interruption = exc if seat.interruption is None else higher(exc, seat.interruption)
        seat.is_patient = True
        return True

    cdef object a_place(self):
        if self.bell is None:
            self.bell = Bell()
            self.listen()
        return a_parked(-1, NO_DEADLINE)

    cdef int wait_for_call(self, object place, int64_t deadline_ns) except -1:
        (<Parked>place).deadline_ns = deadline_ns
        return self.park(place)

    cdef int call(self, object place) except -1:
        if PyThread_get_thread_ident() == self.thread:
            return self.make_due(place)
        self.called.append(place)
        if self.bell is not None:  # or the hub is closed, and nobody waits in it
            self.bell.ring()
        return 0

    cdef int listen(self) except -1:
        """Have the bell end the next sleep."""
        cdef int rc = readiness_set_watch(&self.ready_set, self.bell.fileno(), READINESS_READ, 0)
        if rc < 0:
            raise OSError(-rc, os.strerror(-rc))
        return 0

    cdef int answer_bell(self) except -1:
        """See whom other threads have called."""
        self.bell.silence()  # first: what is called from now on rings again
        while self.called:
            self.make_due(self.called.popleft())
        return 0

    cdef Watched watched_at(self, int fd):
        while fd >= len(self.watched):
            self.watched.append(Watched.__new__(Watched))
        return self.watched[fd]

    cdef int watch(self, int fd, int events, uint32_t turn) except? -1:
        """Take it into the set; returns 0 or -errno."""
        return readiness_set_watch(&self.ready_set, fd, events, turn)

    cdef int forget(self, Watched watched, int fd) except -1:
        """Take it out of the set."""
        watched.connection, watched.events = None, 0
        readiness_set_forget(&self.ready_set, fd)
        return 0

    cdef int begin_anew(self) except -1:
        """Make a new set: of this one's descriptors one is closed, and its file still open.

        A forked child has it, for instance. epoll goes on reporting it, and nobody can take
        it out any more, epoll(7) Q6.
        """
        cdef Watched watched
        cdef int fd, rc
        readiness_set_close(&self.ready_set)
        rc = readiness_set_open(&self.ready_set)
        if rc < 0:
            raise OSError(-rc, os.strerror(-rc))
        if self.bell is not None:
            self.listen()
        for fd in range(len(self.watched)):
            watched = self.watched[fd]
            if watched.parked is None:
                watched.connection, watched.events = None, 0
            else:
                readiness_set_watch(&self.ready_set, fd, watched.events, watched.turn)
        return 0

    cdef int park(self, Parked parked) except -1:
        """Let others go on until it is due; raise what interrupts this greenlet."""
        here = current_greenlet()
        cdef Seat seat = self.seat_of(here)
        cdef Parked outer = None if seat is None else seat.innermost
        parked.greenlet = here
        try:
            if seat is not None:
                self.raise_interruption(seat, parked)
                seat.innermost = parked
            if parked.deadline_ns != NO_DEADLINE:
                self.set_timer(parked)
            while not parked.is_due:
                due = self.next_due(parked)
                if due is not None:
                    self.go_on(due, here)
        finally:
            parked.is_due = True  # for its timer, and for whoever has made it due
            if seat is not None:
                seat.innermost = outer
        if seat is not None:
            self.raise_interruption(seat, parked)
        return 0

    cdef int raise_interruption(self, Seat seat, Parked parked) except -1:
        if seat.interruption is None or (seat.is_patient and parked.is_stopping):
            return 0
        seat.raised, seat.interruption = seat.interruption, None
        raise seat.raised

    cdef object take_interruption(self, object reason):
        cdef Seat seat = self.seat_of(current_greenlet())
        if seat is None:
            return None
        exc, seat.interruption = seat.interruption, None
        return exc

    cdef int go_on(self, object due, object here) except -1:
        """Switch to whoever *due* is for, unless that is *here*."""
        cdef Parked parked
        if not isinstance(due, Parked):
            return self.begin(due, here)
        parked = due
        parked.is_due = True
        if parked.greenlet is not here:
            switch_to(parked.greenlet)
        return 0

    cdef int interrupt(self, Seat seat, object exc, bint is_patient) except -1:
        """Have its wait, now or next, raise *exc*; of two that wait for that, the higher one."""
        seat.interruption = exc if seat.interruption is None else higher(seat.interruption, exc)
        seat.is_patient = is_patient
        if seat.innermost is not None and not (is_patient and seat.innermost.is_stopping):
            self.make_due(seat.innermost)
        return 0

    cdef int make_due(self, Parked parked) except -1:
        self.due.append(parked)
        return 0

    cdef int set_timer(self, Parked parked) except -1:
        # Most waits are over before their deadlines: these are cleared away now and then.
        if len(self.timers) > 64 and len(self.timers) > 2 * self.timers_left:
            self.timers = [timer for timer in self.timers if not (<Parked>timer[2]).is_due]
            heapify(self.timers)
            self.timers_left = len(self.timers)
        self.turns += 1
        push(self.timers, (parked.deadline_ns, self.turns, parked))
        return 0

    cdef Parked pop_timer(self):
        return pop(self.timers)[2]

    cdef object next_due(self, Parked own):
        """Return a wait that is over, or what is to begin, as soon as there is one.

        None when *own* is: a signal handler that waited in this greenlet has seen to that. If this
        greenlet does not wait, None when the one that has entered can look in its place: a
        handler is not to wait where nobody waits for it.
        """
        while True:
            while self.left_of_batch > 0:
                self.left_of_batch -= 1
                due = self.due.popleft()
                if not isinstance(due, Parked):
                    if self.may_begin(due):
                        return due
                elif not (<Parked>due).is_due:
                    return due
            if own is None and self.seat.innermost is not None:
                return None
            # Those who became due meanwhile have their turn after those who are ready now.
            self.poll(not self.due)
            self.left_of_batch = len(self.due)
            if own is not None and own.is_due:
                return None

    cdef int poll(self, bint may_sleep) except -1:
        """See who is due; sleep until somebody is, or it is time to look up."""
        cdef readiness_t[BATCH] ready
        cdef int64_t began_ns = monotonic_ns()
        cdef int64_t now_ns
        cdef int timeout_ms = self.timeout_ms(began_ns) if may_sleep else 0
        cdef int i, count
        cdef bint is_stale = False
        cdef Parked parked
        cdef Watched watched
        if timeout_ms == 0:
            count = readiness_set_wait(&self.ready_set, ready, BATCH, 0)
        else:
            with nogil:
                count = readiness_set_wait(&self.ready_set, ready, BATCH, timeout_ms)
        now_ns = monotonic_ns()
        counters.asleep_ns += now_ns - began_ns
        for i in range(count):
            if ready[i].turn == 0:
                self.answer_bell()
                continue
            watched = self.watched_at(ready[i].fd)
            if watched.turn != ready[i].turn:
                is_stale = True
            elif watched.parked is None:
                self.forget(watched, ready[i].fd)  # nobody reads: it would end every sleep
            else:
                watched.parked.revents = ready[i].revents
                self.due.append(watched.parked)
        if is_stale:
            self.begin_anew()
        while self.timers and self.timers[0][0] <= now_ns:
            parked = self.pop_timer()
            if not parked.is_due:
                self.due.append(parked)
        if now_ns - self.last_look_ns >= LOOK_NS:
            self.last_look_ns = now_ns
            self.look_for_closed()
        if count < 0 and count != -EINTR:
            self.interrupt(self.seat, OSError(-count, os.strerror(-count)), False)
        elif self.is_main_thread:
            try:
                PyErr_CheckSignals()
            except BaseException as exc:
                self.interrupt(self.seat, exc, False)
        return 0

    cdef int timeout_ms(self, int64_t now_ns) except -1:
        cdef int64_t until_ns = now_ns + (LOOK_UP_NS if self.is_main_thread else LOOK_NS)
        if self.timers:
            until_ns = min(until_ns, <int64_t>self.timers[0][0])
        return <int>max(0, (until_ns - now_ns + 999_999) // 1_000_000)

    cdef int look_for_closed(self) except -1:
        """Somebody may have closed a descriptor under a wait, which epoll keeps to itself."""
        cdef Watched watched
        cdef int complaint, fd
        # Not enumerate(), which Cython does not check for the None that the collector leaves.
        for fd in range(len(self.watched)):
            watched = self.watched[fd]
            if watched.parked is None or watched.parked.is_due:
                continue
            complaint = complaint_about(fd)
            if complaint != 0:
                watched.parked.revents = complaint
                self.due.append(watched.parked)
        return 0
