"""The waits of a thread's greenlets: for descriptors, timers and each other.

A scheduler knows which of them are over, and is asked by the one who owns it: a hub, or an event
loop's adapter, which switches to their greenlets.
"""

cimport cython
from libc.errno cimport EINTR
from libc.stdint cimport int64_t

from greenwait._deadline cimport after
from greenwait._psycopg.state cimport ConnectionState
from greenwait._stats cimport counters
from greenwait._system.clock cimport NO_DEADLINE, monotonic_ns
from greenwait._system.periods cimport CLOSED_NS
from greenwait._system.readiness cimport READINESS_READ, readiness_check
from greenwait._system.readiness_set cimport (
    readiness_set_close,
    readiness_set_fileno,
    readiness_set_forget,
    readiness_set_open,
    readiness_set_wait,
    readiness_set_watch,
    readiness_t,
)
from greenwait._system.sealed_type cimport seal_type
from greenwait._waiter cimport WakeupFd

import os
from collections import deque

cdef enum:
    BATCH = 128
    FIRST_SLOTS = 64
    NO_PLACE = -1


@cython.auto_pickle(False)
@cython.final
@cython.freelist(32)
cdef class SuspendedWait:
    """One wait of one greenlet."""


@cython.auto_pickle(False)
@cython.final
cdef class WatchedFd:
    """A descriptor, and its registration in the readiness set."""


cdef SuspendedWait new_suspended_wait(int fd, int64_t deadline_ns):
    cdef SuspendedWait suspended = SuspendedWait.__new__(SuspendedWait)
    suspended.fd = fd
    suspended.deadline_ns = deadline_ns
    suspended.place = NO_PLACE
    return suspended


@cython.auto_pickle(False)
@cython.final
cdef class DueQueue:
    """A queue with the methods of collections.deque, which are slow to call from here."""

    def __cinit__(self):
        self.slots = [None] * FIRST_SLOTS

    def __len__(self):
        return self.count

    def __iter__(self):
        slots = self.slots[self.first:] + self.slots[:self.first]
        return iter(slots[:self.count])

    @cython.boundscheck(False)
    @cython.wraparound(False)
    cdef int append(self, object due) except -1:
        if self.count == len(self.slots):
            self.grow()
        self.slots[(self.first + self.count) & (len(self.slots) - 1)] = due
        self.count += 1
        return 0

    @cython.boundscheck(False)
    @cython.wraparound(False)
    cdef int appendleft(self, object due) except -1:
        if self.count == len(self.slots):
            self.grow()
        self.first = (self.first - 1) & (len(self.slots) - 1)
        self.slots[self.first] = due
        self.count += 1
        return 0

    @cython.boundscheck(False)
    @cython.wraparound(False)
    cdef object popleft(self):
        if self.count == 0:
            raise IndexError("nothing is due")
        due = self.slots[self.first]
        self.slots[self.first] = None
        self.first = (self.first + 1) & (len(self.slots) - 1)
        self.count -= 1
        return due

    cdef int clear(self) except -1:
        self.slots = [None] * FIRST_SLOTS
        self.first = self.count = 0
        return 0

    cdef int grow(self) except -1:
        self.slots = [*self, *[None] * self.count]
        self.first = 0
        return 0


@cython.auto_pickle(False)
@cython.final
cdef class Timers:
    """The waits that have a deadline, while they last: a heap, with the earliest one first.

    Unlike heapq's, it lets a wait leave from anywhere, since most are over before their deadlines.
    A wait's deadline does not change meanwhile.
    """

    def __cinit__(self):
        self.waits = []

    cdef int64_t first_ns(self) except -1:
        """Return the earliest deadline, or NO_DEADLINE."""
        return (<SuspendedWait>self.waits[0]).deadline_ns if self.waits else NO_DEADLINE

    cdef int add(self, SuspendedWait suspended) except -1:
        self.waits.append(suspended)
        suspended.place = len(self.waits) - 1
        return self.move_up(suspended)

    cdef int remove(self, SuspendedWait suspended) except -1:
        """Remove it, if it is there."""
        cdef SuspendedWait last
        if suspended.place == NO_PLACE:
            return 0
        last = self.waits.pop()
        if last is not suspended:
            self.put(last, suspended.place)
            self.move_up(last)
            self.move_down(last)
        suspended.place = NO_PLACE
        return 0

    cdef SuspendedWait pop(self):
        """Remove the earliest one, and return it."""
        cdef SuspendedWait first = self.waits[0]
        self.remove(first)
        return first

    cdef int clear(self) except -1:
        for suspended in self.waits:
            (<SuspendedWait>suspended).place = NO_PLACE
        self.waits = []
        return 0

    @cython.boundscheck(False)
    @cython.wraparound(False)
    cdef int put(self, SuspendedWait suspended, Py_ssize_t place) except -1:
        self.waits[place] = suspended
        suspended.place = place
        return 0

    @cython.boundscheck(False)
    @cython.wraparound(False)
    cdef int move_up(self, SuspendedWait suspended) except -1:
        """Let it change places with those above it, each at (place - 1) / 2, that are later."""
        cdef Py_ssize_t place = suspended.place
        cdef SuspendedWait above
        while suspended.place > 0:
            place = (suspended.place - 1) // 2
            above = <SuspendedWait>self.waits[place]
            if above.deadline_ns <= suspended.deadline_ns:
                break
            self.put(above, suspended.place)
            self.put(suspended, place)
        return 0

    @cython.boundscheck(False)
    @cython.wraparound(False)
    cdef int move_down(self, SuspendedWait suspended) except -1:
        """Let it change places with those below it that are earlier."""
        cdef Py_ssize_t count = len(self.waits)
        cdef Py_ssize_t place
        cdef SuspendedWait below, other
        while 2 * suspended.place + 1 < count:
            place = 2 * suspended.place + 1
            below = <SuspendedWait>self.waits[place]
            if place + 1 < count:
                other = <SuspendedWait>self.waits[place + 1]
                if other.deadline_ns < below.deadline_ns:
                    below = other
            if suspended.deadline_ns <= below.deadline_ns:
                break
            place = below.place
            self.put(below, suspended.place)
            self.put(suspended, place)
        return 0


@cython.auto_pickle(False)
@cython.final
cdef class Scheduler:
    """A set of descriptors, timers, and the queue of the waits that are due."""

    def __cinit__(self):
        self.due = DueQueue.__new__(DueQueue)
        self.woken = deque()
        self.watched = []
        self.timers = Timers.__new__(Timers)

    def __dealloc__(self):
        if self.is_open:
            readiness_set_close(&self.ready_set)

    cdef int open(self) except -1:
        cdef int rc = readiness_set_open(&self.ready_set)
        if rc < 0:  # pragma: no cover: no descriptors are left
            raise OSError(-rc, f"no descriptor for a hub: {os.strerror(-rc)}")
        self.is_open = True
        self.last_look_ns = monotonic_ns()
        return 0

    cdef int close(self) except -1:
        """Close all descriptors of its own; no greenlet waits any more."""
        readiness_set_close(&self.ready_set)
        self.wakeup_fd = None
        self.is_open = False
        return 0

    cdef int fileno(self) except -2:
        """Return the descriptor that is readable when a wait is over: the set's.

        Without epoll the set has none: then it is wakeup_fd's, or -1.
        """
        cdef int fd = readiness_set_fileno(&self.ready_set)
        return fd if fd >= 0 or self.wakeup_fd is None else self.wakeup_fd.fileno()

    # -- Descriptors

    cdef int arm(self, SuspendedWait suspended, int events, ConnectionState state) except? -1:
        """Make *suspended* due when its descriptor is ready; returns 0 or -errno.

        *state* is None if the descriptor may belong to another connection the next time.
        """
        cdef WatchedFd watched = self.claim(suspended, events)
        cdef int rc
        if watched is None or (
            state is not None and watched.state is state and watched.events == events
        ):
            return 0
        self.generation += 1
        if self.generation == 0:  # pragma: no cover: after 4294967296 waits
            self.generation = 1  # 0 is wakeup_fd's
        watched.generation = self.generation
        rc = readiness_set_watch(&self.ready_set, suspended.fd, events, watched.generation)
        if rc < 0:  # pragma: no cover: epoll_ctl(2) fails
            self.disarm(suspended, state)
            return rc
        watched.state, watched.events = state, events
        return 0

    cdef int disarm(self, SuspendedWait suspended, ConnectionState state) except -1:
        """End what ``arm()`` or ``claim()`` has begun."""
        cdef WatchedFd watched = suspended.watched
        cdef SuspendedWait other
        if watched is not None:
            watched.suspended = suspended.watched = None
            if state is None:
                self.forget(watched, suspended.fd)
            return 0
        # This greenlet reads now, and may read what the other one waits for: that looks again.
        other = (<WatchedFd>self.watched[suspended.fd]).suspended
        if other is not None and not other.is_due:
            other.revents = READINESS_READ
            self.due.append(other)
        return 0

    cdef WatchedFd claim(self, SuspendedWait suspended, int events):
        """Make *suspended* the wait for its descriptor; None if another greenlet waits for it.

        Then it is over after 10 ms, as if the descriptor were ready.
        """
        cdef WatchedFd watched
        while suspended.fd >= len(self.watched):
            self.watched.append(WatchedFd.__new__(WatchedFd))
        watched = self.watched[suspended.fd]
        if watched.suspended is None:
            watched.suspended, suspended.watched = suspended, watched
            return watched
        suspended.revents = events
        suspended.deadline_ns = min(suspended.deadline_ns, after(10_000_000))
        return None

    cdef int forget(self, WatchedFd watched, int fd) except -1:
        """Remove it from the set."""
        watched.state, watched.events = None, 0
        readiness_set_forget(&self.ready_set, fd)
        return 0

    cdef int rebuild_set(self) except -1:
        """Replace the set, one of whose descriptors is closed while its file is still open.

        A forked child has it open, for instance. epoll goes on reporting it, and it can't be
        removed any more, epoll(7) Q6.
        """
        cdef WatchedFd watched
        cdef int fd, rc
        self.is_stale = False
        readiness_set_close(&self.ready_set)
        rc = readiness_set_open(&self.ready_set)
        if rc < 0:  # pragma: no cover: no descriptors are left
            raise OSError(-rc, os.strerror(-rc))
        if self.wakeup_fd is not None:
            self.listen()
        for fd in range(len(self.watched)):
            watched = self.watched[fd]
            if watched.suspended is None:
                watched.state, watched.events = None, 0
            else:
                readiness_set_watch(&self.ready_set, fd, watched.events, watched.generation)
        return 0

    # -- Other threads

    cdef object new_wakeup(self):
        if self.wakeup_fd is None:
            self.wakeup_fd = WakeupFd()
            self.listen()
        return new_suspended_wait(-1, NO_DEADLINE)

    cdef int wake(self, object wakeup) except -1:
        """Make it due, from another thread."""
        self.woken.append(wakeup)
        if self.wakeup_fd is not None:  # or it is closed, and no wait is left
            self.wakeup_fd.wake()
        return 0

    cdef int listen(self) except -1:
        """Make wakeup_fd end the next sleep."""
        cdef int fd = self.wakeup_fd.fileno()
        cdef int rc = readiness_set_watch(&self.ready_set, fd, READINESS_READ, 0)
        if rc < 0:  # pragma: no cover: no memory is left
            raise OSError(-rc, os.strerror(-rc))
        return 0

    cdef int collect_woken(self) except -1:
        """Make the waits due that other threads have woken."""
        self.wakeup_fd.clear()  # first: a later wake() makes it readable again
        while self.woken:
            self.due.append(self.woken.popleft())
        return 0

    # -- What is due

    cdef int poll(self, int64_t longest_ns) except -1:
        """Make due what is ready or late; sleep until something is, *longest_ns* at most."""
        cdef readiness_t[BATCH] ready
        cdef int64_t began_ns = monotonic_ns()
        cdef int64_t now_ns
        cdef int i, count
        cdef WatchedFd watched
        if longest_ns > 0:
            longest_ns = min(longest_ns, self.timers.first_ns() - began_ns)
        if longest_ns <= 0:
            count = readiness_set_wait(&self.ready_set, ready, BATCH, 0)
        else:
            with nogil:
                count = readiness_set_wait(
                    &self.ready_set, ready, BATCH, <int>((longest_ns + 999_999) // 1_000_000)
                )
        now_ns = monotonic_ns()
        counters.asleep_ns += now_ns - began_ns
        for i in range(count):
            if ready[i].generation == 0:
                self.collect_woken()
                continue
            watched = self.watched[ready[i].fd]
            if watched.generation != ready[i].generation:
                self.is_stale = True
            elif watched.suspended is None:
                self.forget(watched, ready[i].fd)  # without a reader it would end every sleep
            else:
                watched.suspended.revents = ready[i].revents
                self.due.append(watched.suspended)
        while self.timers.first_ns() <= now_ns:
            self.due.append(self.timers.pop())
        if now_ns - self.last_look_ns >= CLOSED_NS:
            self.last_look_ns = now_ns
            self.look_for_closed()
        if count < 0 and count != -EINTR:  # pragma: no cover: epoll_wait(2) fails
            raise OSError(-count, os.strerror(-count))
        return 0

    cdef int look_for_closed(self) except -1:
        """End the waits whose descriptor was closed, which epoll does not report."""
        cdef WatchedFd watched
        cdef int complaint, fd
        # Not enumerate(), which Cython does not check for the None that the collector leaves.
        for fd in range(len(self.watched)):
            watched = self.watched[fd]
            if watched.suspended is None or watched.suspended.is_due:
                continue
            complaint = readiness_check(fd)
            if complaint != 0:
                watched.suspended.revents = complaint
                self.due.append(watched.suspended)
        return 0


cdef Scheduler new_scheduler():
    return Scheduler.__new__(Scheduler)


seal_type(SuspendedWait, "a greenlet that waits makes it")
seal_type(WatchedFd, "a Scheduler makes it")
seal_type(DueQueue, "a Scheduler makes it")
seal_type(Timers, "a Scheduler makes it")
seal_type(Scheduler, "a hub makes it, or the adapter of an event loop")
