"""A scheduler of greenlets that wait for descriptors, timers and each other.

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
from greenwait._psycopg.state cimport ConnectionState
from greenwait._ranks cimport higher
from greenwait._stats cimport counters
from greenwait._system.clock cimport NO_DEADLINE, monotonic_ns
from greenwait._system.periods cimport CLOSED_MS, SIGNALS_MS
from greenwait._system.readiness cimport READINESS_READ
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
from greenwait._waiter cimport Waiter, WakeupFd, check_fd

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

cdef int64_t SIGNALS_NS = SIGNALS_MS * <int64_t>1_000_000
cdef int64_t CLOSED_NS = CLOSED_MS * <int64_t>1_000_000


@cython.auto_pickle(False)
@cython.final
cdef class InterruptTarget:
    """What a greenlet has that can be interrupted: each job, and whoever entered the hub."""


@cython.auto_pickle(False)
@cython.final
cdef class SuspendedWait:
    """One wait of one greenlet."""


@cython.auto_pickle(False)
@cython.final
cdef class WatchedFd:
    """A descriptor, and what the readiness set knows of it."""


seal_type(SuspendedWait, "a greenlet that waits makes it")
seal_type(WatchedFd, "a Scheduler makes it")


cdef SuspendedWait new_suspended_wait(int fd, int64_t deadline_ns):
    cdef SuspendedWait suspended = SuspendedWait.__new__(SuspendedWait)
    suspended.fd = fd
    suspended.deadline_ns = deadline_ns
    return suspended


@cython.auto_pickle(False)
cdef class Scheduler(Waiter):
    """See ``_loop.pxd``; what a subclass begins, and in which greenlets, is its own."""

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
        """Let go of everything; nobody waits any more."""
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
        """Look now and then: another greenlet waits on the same descriptor."""
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
        if self.wakeup_fd is not None:  # or the hub is closed, and nobody waits in it
            self.wakeup_fd.wake()
        return 0

    cdef int listen(self) except -1:
        """Have wakeup_fd end the next sleep."""
        cdef int fd = self.wakeup_fd.fileno()
        cdef int rc = readiness_set_watch(&self.ready_set, fd, READINESS_READ, 0)
        if rc < 0:  # pragma: no cover: no memory is left
            raise OSError(-rc, os.strerror(-rc))
        return 0

    cdef int see_to_woken(self) except -1:
        """See whom other threads have woken."""
        self.wakeup_fd.clear()  # first: what is woken from now on is told again
        while self.woken:
            self.make_due(self.woken.popleft())
        return 0

    cdef WatchedFd watched_at(self, int fd):
        while fd >= len(self.watched):
            self.watched.append(WatchedFd.__new__(WatchedFd))
        return self.watched[fd]

    cdef int watch(self, int fd, int events, uint32_t generation) except? -1:
        """Take it into the set; returns 0 or -errno."""
        return readiness_set_watch(&self.ready_set, fd, events, generation)

    cdef int forget(self, WatchedFd watched, int fd) except -1:
        """Take it out of the set."""
        watched.state, watched.events = None, 0
        readiness_set_forget(&self.ready_set, fd)
        return 0

    cdef int rebuild_set(self) except -1:
        """Make a new set: of this one's descriptors one is closed, and its file still open.

        A forked child has it, for instance. epoll goes on reporting it, and nobody can take
        it out any more, epoll(7) Q6.
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
        """Let others go on until it is due; raise what interrupts this greenlet."""
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
            suspended.is_due = True  # for its timer, and for whoever has made it due
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
        """Switch to whoever *due* is for, unless that is *here*."""
        cdef SuspendedWait suspended
        if not isinstance(due, SuspendedWait):
            return self.begin(due, here)
        suspended = due
        suspended.is_due = True
        if suspended.greenlet is not here:
            switch_to(suspended.greenlet)
        return 0

    cdef int interrupt(self, InterruptTarget target, object exc, bint wait_for_drain) except -1:
        """Have its wait, now or next, raise *exc*; of two that wait for that, the higher one."""
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

    cdef object next_due(self, SuspendedWait own):
        """Return a wait that is over, or what is to begin, as soon as there is one.

        None when *own* is: a signal handler that waited in this greenlet has seen to that. If this
        greenlet does not wait, None when the one that has entered can look in its place: a
        handler is not to wait where nobody waits for it.
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
            if own is None and self.target.innermost is not None:
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
                self.see_to_woken()
                continue
            watched = self.watched_at(ready[i].fd)
            if watched.generation != ready[i].generation:
                is_stale = True
            elif watched.suspended is None:
                self.forget(watched, ready[i].fd)  # nobody reads: it would end every sleep
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
        """Somebody may have closed a descriptor under a wait, which epoll keeps to itself."""
        cdef WatchedFd watched
        cdef int complaint, fd
        # Not enumerate(), which Cython does not check for the None that the collector leaves.
        for fd in range(len(self.watched)):
            watched = self.watched[fd]
            if watched.suspended is None or watched.suspended.is_due:
                continue
            complaint = check_fd(fd)
            if complaint != 0:
                watched.suspended.revents = complaint
                self.due.append(watched.suspended)
        return 0
