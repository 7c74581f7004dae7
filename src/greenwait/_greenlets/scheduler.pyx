"""A scheduler of greenlets that wait for descriptors, timers and each other.

Where a greenlet would wait for the server it steps aside: its descriptor is armed, and the next
greenlet that is due runs. The loop has no greenlet of its own: a greenlet that steps aside and
finds none due polls the descriptors, sleeps if none is ready, and switches straight to the
greenlet whose wait is over, or just returns if that is itself.

A loop runs in one thread. Everything that is in use across a switch lies in objects: a
greenlet's C stack is copied away meanwhile, and pointers into it are invalid.
"""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.pythread cimport PyThread_get_thread_ident
from libc.errno cimport EINTR
from libc.stdint cimport int64_t, uint32_t

from greenwait._deadline cimport after
from greenwait._psycopg.state cimport ConnectionState
from greenwait._ranks cimport higher
from greenwait._stats cimport counters
from greenwait._system.clock cimport NO_DEADLINE, monotonic_ns
from greenwait._system.periods cimport CLOSED_NS, SIGNALS_NS
from greenwait._system.readiness cimport READINESS_READ, readiness_check
from greenwait._system.readiness_set cimport (
    readiness_set_close,
    readiness_set_forget,
    readiness_set_open,
    readiness_set_wait,
    readiness_set_watch,
    readiness_t,
)
from greenwait._system.sealed_type cimport seal_type
from greenwait._system.threads cimport is_main_thread
from greenwait._waiter cimport Waiter, WakeupFd

import heapq
import os
from collections import deque

from greenlet import getcurrent, greenlet

cdef object current_greenlet = getcurrent
cdef object switch_to = greenlet.switch  # a look-up of the method costs as much as the call
cdef object push = heapq.heappush
cdef object pop = heapq.heappop
cdef object heapify = heapq.heapify

cdef enum:
    BATCH = 128


@cython.auto_pickle(False)
@cython.final
cdef class InterruptTarget:
    """The interrupt state of a greenlet: that of a job, or the one that entered the hub."""


@cython.auto_pickle(False)
@cython.final
cdef class SuspendedWait:
    """One wait of one greenlet."""


@cython.auto_pickle(False)
@cython.final
cdef class WatchedFd:
    """A descriptor, and its registration in the readiness set."""


seal_type(SuspendedWait, "a greenlet that waits makes it")
seal_type(WatchedFd, "a Scheduler makes it")


cdef SuspendedWait new_suspended_wait(int fd, int64_t deadline_ns):
    cdef SuspendedWait suspended = SuspendedWait.__new__(SuspendedWait)
    suspended.fd = fd
    suspended.deadline_ns = deadline_ns
    return suspended


@cython.auto_pickle(False)
cdef class Scheduler(Waiter):
    """The base class of schedulers; a subclass decides what begins, and in which greenlets."""

    def __cinit__(self):
        self.due = deque()
        self.woken = deque()
        self.watched = []
        self.timers = []

    def __dealloc__(self):
        if self.is_open:
            readiness_set_close(&self.ready_set)

    cdef InterruptTarget target_of(self, object here):
        """Return the target of a greenlet; None if it has none."""
        raise NotImplementedError

    cdef bint may_begin(self, object due) except -1:
        """Is *due*, which is not a wait, still to begin?"""
        raise NotImplementedError

    cdef int begin(self, object due, object here) except -1:
        """Switch to a greenlet in which *due* begins."""
        raise NotImplementedError

    # The methods below are called in the loop's thread only.

    cdef int open(self) except -1:
        """Bind the loop to this thread and to the running greenlet."""
        cdef int rc = readiness_set_open(&self.ready_set)
        if rc < 0:  # pragma: no cover: no descriptors are left
            raise OSError(-rc, f"no descriptor for a hub: {os.strerror(-rc)}")
        self.is_open = True
        self.thread = PyThread_get_thread_ident()
        self.is_main_thread = is_main_thread()
        self.entered_by = current_greenlet()
        self.target = InterruptTarget.__new__(InterruptTarget)
        self.last_look_ns = monotonic_ns()
        return 0

    cdef int close(self) except -1:
        """Close all descriptors of the loop; no greenlet waits any more."""
        readiness_set_close(&self.ready_set)
        self.wakeup_fd = None
        self.is_open = False
        return 0

    cdef int wait_for(
        self, int fd, int events, int64_t deadline_ns, bint draining, ConnectionState state
    ) except -1:
        cdef SuspendedWait suspended = new_suspended_wait(fd, deadline_ns)
        suspended.draining = draining
        cdef WatchedFd watched = self.watched_at(fd)
        cdef int rc
        if watched.suspended is not None:
            return self.wait_beside(suspended, events)
        if state is None or watched.state is not state or watched.events != events:
            self.generation += 1
            if self.generation == 0:  # pragma: no cover: after 4294967296 waits
                self.generation = 1  # 0 is wakeup_fd's
            watched.generation = self.generation
            rc = self.watch(fd, events, watched.generation)
            if rc < 0:  # pragma: no cover: epoll_ctl(2) fails
                return rc
            watched.state, watched.events = state, events
        watched.suspended = suspended
        try:
            self.suspend(suspended)
        finally:
            watched.suspended = None
            if state is None:
                self.forget(watched, fd)
        return suspended.revents

    cdef int wait_beside(self, SuspendedWait suspended, int events) except -1:
        """Return after 10 ms, as if it were ready: another greenlet waits on the descriptor."""
        suspended.fd, suspended.revents = -1, events
        suspended.deadline_ns = min(suspended.deadline_ns, after(10_000_000))
        self.suspend(suspended)
        return events

    cdef bint postpone(self, object exc) except -1:
        cdef InterruptTarget target = self.target_of(current_greenlet())
        if target is None or target is self.target or exc is not target.raised:
            return False
        target.raised = None
        earlier = target.interruption
        target.interruption = exc if earlier is None else higher(exc, earlier)
        target.wait_for_drain = True
        return True

    cdef object new_wakeup(self):
        if self.wakeup_fd is None:
            self.wakeup_fd = WakeupFd()
            self.listen()
        return new_suspended_wait(-1, NO_DEADLINE)

    cdef int wait_for_wakeup(self, object wakeup, int64_t deadline_ns) except -1:
        (<SuspendedWait>wakeup).deadline_ns = deadline_ns
        return self.suspend(wakeup)

    cdef int wake(self, object wakeup) except -1:
        if PyThread_get_thread_ident() == self.thread:
            return self.make_due(wakeup)
        self.woken.append(wakeup)
        if self.wakeup_fd is not None:  # or the hub is closed, and no wait is left
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
            self.make_due(self.woken.popleft())
        return 0

    cdef WatchedFd watched_at(self, int fd):
        while fd >= len(self.watched):
            self.watched.append(WatchedFd.__new__(WatchedFd))
        return self.watched[fd]

    cdef int watch(self, int fd, int events, uint32_t generation) except? -1:
        """Add it to the set; returns 0 or -errno."""
        return readiness_set_watch(&self.ready_set, fd, events, generation)

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

    cdef int suspend(self, SuspendedWait suspended) except -1:
        """Let others run until it is due; raise what interrupts this greenlet."""
        here = current_greenlet()
        cdef InterruptTarget target = self.target_of(here)
        cdef SuspendedWait outer = None if target is None else target.innermost
        suspended.greenlet = here
        try:
            if target is not None:
                self.raise_interruption(target, suspended)
                target.innermost = suspended
            if suspended.deadline_ns != NO_DEADLINE:
                self.set_timer(suspended)
            while not suspended.is_due:
                due = self.next_due(suspended)
                if due is not None:
                    self.go_on(due, here)
        finally:
            suspended.is_due = True  # for its timer, and if it was made due since
            if target is not None:
                target.innermost = outer
        if target is not None:
            self.raise_interruption(target, suspended)
        return 0

    cdef int raise_interruption(self, InterruptTarget target, SuspendedWait suspended) except -1:
        if target.interruption is None or (target.wait_for_drain and suspended.draining):
            return 0
        target.raised, target.interruption = target.interruption, None
        raise target.raised

    cdef object take_interruption(self, object reason):
        cdef InterruptTarget target = self.target_of(current_greenlet())
        if target is None:
            return None
        exc, target.interruption = target.interruption, None
        return exc

    cdef int go_on(self, object due, object here) except -1:
        """Switch to the greenlet of *due*, unless that is *here*."""
        cdef SuspendedWait suspended
        if not isinstance(due, SuspendedWait):
            return self.begin(due, here)
        suspended = due
        suspended.is_due = True
        if suspended.greenlet is not here:
            switch_to(suspended.greenlet)
        return 0

    cdef int interrupt(self, InterruptTarget target, object exc, bint wait_for_drain) except -1:
        """Make its current or next wait raise *exc*, or the higher of two that are pending."""
        earlier = target.interruption
        target.interruption = exc if earlier is None else higher(earlier, exc)
        target.wait_for_drain = wait_for_drain
        if target.innermost is not None and not (wait_for_drain and target.innermost.draining):
            self.make_due(target.innermost)
        return 0

    cdef int make_due(self, SuspendedWait suspended) except -1:
        self.due.append(suspended)
        return 0

    cdef int set_timer(self, SuspendedWait suspended) except -1:
        # Most waits are over before their deadlines: these are cleared away now and then.
        if len(self.timers) > 64 and len(self.timers) > 2 * self.timers_left:
            self.timers = [timer for timer in self.timers if not (<SuspendedWait>timer[2]).is_due]
            heapify(self.timers)
            self.timers_left = len(self.timers)
        self.generation += 1
        push(self.timers, (suspended.deadline_ns, self.generation, suspended))
        return 0

    cdef SuspendedWait pop_timer(self):
        return pop(self.timers)[2]

    cdef object next_due(self, SuspendedWait suspended):
        """Return a wait that is over, or what is to begin, as soon as there is one.

        None once *suspended* is due, which a signal handler that waited in this greenlet has seen.
        Without it this greenlet does not wait: None if the one that entered can poll instead,
        because a signal handler must not wait in a greenlet that no one waits for.
        """
        while True:
            while self.left_of_batch > 0:
                self.left_of_batch -= 1
                due = self.due.popleft()
                if not isinstance(due, SuspendedWait):
                    if self.may_begin(due):
                        return due
                elif not (<SuspendedWait>due).is_due:
                    return due
            if suspended is None and self.target.innermost is not None:
                return None
            # Waits that became due meanwhile come after those that are ready now.
            self.poll(not self.due)
            self.left_of_batch = len(self.due)
            if suspended is not None and suspended.is_due:
                return None

    cdef int poll(self, bint may_sleep) except -1:
        """Collect the waits that are due; sleep until one is, or it is time for a check."""
        cdef readiness_t[BATCH] ready
        cdef int64_t began_ns = monotonic_ns()
        cdef int64_t now_ns
        cdef int timeout_ms = self.timeout_ms(began_ns) if may_sleep else 0
        cdef int i, count
        cdef bint is_stale = False
        cdef SuspendedWait suspended
        cdef WatchedFd watched
        if timeout_ms == 0:
            count = readiness_set_wait(&self.ready_set, ready, BATCH, 0)
        else:
            with nogil:
                count = readiness_set_wait(&self.ready_set, ready, BATCH, timeout_ms)
        now_ns = monotonic_ns()
        counters.asleep_ns += now_ns - began_ns
        for i in range(count):
            if ready[i].generation == 0:
                self.collect_woken()
                continue
            watched = self.watched_at(ready[i].fd)
            if watched.generation != ready[i].generation:
                is_stale = True
            elif watched.suspended is None:
                self.forget(watched, ready[i].fd)  # without a reader it would end every sleep
            else:
                watched.suspended.revents = ready[i].revents
                self.due.append(watched.suspended)
        if is_stale:
            self.rebuild_set()
        while self.timers and self.timers[0][0] <= now_ns:
            suspended = self.pop_timer()
            if not suspended.is_due:
                self.due.append(suspended)
        if now_ns - self.last_look_ns >= CLOSED_NS:
            self.last_look_ns = now_ns
            self.look_for_closed()
        if count < 0 and count != -EINTR:
            self.interrupt(self.target, OSError(-count, os.strerror(-count)), False)
        elif self.is_main_thread:
            try:
                PyErr_CheckSignals()
            except BaseException as exc:
                self.interrupt(self.target, exc, False)
        return 0

    cdef int timeout_ms(self, int64_t now_ns) except -1:
        cdef int64_t until_ns = now_ns + (SIGNALS_NS if self.is_main_thread else CLOSED_NS)
        if self.timers:
            until_ns = min(until_ns, <int64_t>self.timers[0][0])
        return <int>max(0, (until_ns - now_ns + 999_999) // 1_000_000)

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
