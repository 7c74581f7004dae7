"""The waiter of a thread whose greenlets are switched by greenwait itself.

Where a greenlet would wait for the server it steps aside: its descriptor is armed, and the next
greenlet that is due runs. Nothing here has a greenlet of its own: the one that steps aside
finds the next one, and switches straight to it, or just returns if that is itself.

A waiter is at work in one thread. Everything that is in use across a switch lies in objects: a
greenlet's C stack is copied away meanwhile, and pointers into it are invalid.
"""

cimport cython
from cpython.pythread cimport PyThread_get_thread_ident
from libc.stdint cimport int64_t

from greenwait._greenlets.scheduler cimport SuspendedWait, new_scheduler, new_suspended_wait
from greenwait._psycopg.state cimport ConnectionState
from greenwait._ranks cimport higher
from greenwait._system.clock cimport NO_DEADLINE, monotonic_ns
from greenwait._system.switching cimport current_greenlet, switch_to
from greenwait._waiter cimport Waiter

from greenwait import _errors

cdef object query_timeout = _errors.QueryTimeout


@cython.auto_pickle(False)
@cython.final
cdef class InterruptTarget:
    """The interrupt state of a greenlet: that of a job, or the one that entered the hub."""


@cython.auto_pickle(False)
cdef class GreenletWaiter(Waiter):
    """The base class of a hub and of an event loop's waiter."""

    def __cinit__(self):
        self.scheduler = new_scheduler()

    cdef InterruptTarget target_of(self, object here):
        """Return the target of a greenlet; None if it has none."""
        raise NotImplementedError

    cdef object next_due(self, SuspendedWait suspended):
        """Return what is to go on; None to ask again unless *suspended* is due."""
        raise NotImplementedError

    cdef int begin(self, object due, object here) except -1:
        """Switch to a greenlet in which *due*, which is not a wait, begins."""
        raise NotImplementedError

    # The methods below are called in the waiter's thread only.

    cdef int go_on(self, SuspendedWait suspended, object here) except -1:
        """Switch to its greenlet, unless that is *here*."""
        suspended.is_due = True
        if suspended.greenlet is not here:
            switch_to(suspended.greenlet)
        return 0

    cdef int make_due(self, SuspendedWait suspended) except -1:
        self.scheduler.due.append(suspended)
        return 0

    cdef int wait_for(
        self, int fd, int events, int64_t deadline_ns, bint draining, ConnectionState state
    ) except -1:
        cdef SuspendedWait suspended = new_suspended_wait(fd, deadline_ns)
        cdef int rc
        suspended.draining = draining
        rc = self.scheduler.arm(suspended, events, state)
        if rc < 0:
            return rc
        try:
            self.suspend(suspended)
        finally:
            self.scheduler.disarm(suspended, state)
        return suspended.revents

    cdef int suspend(self, SuspendedWait suspended) except -1:
        """Let others run until it is due; raise what interrupts this greenlet."""
        here = current_greenlet()
        cdef InterruptTarget target = self.target_of(here)
        cdef SuspendedWait outer = None if target is None else target.innermost
        cdef bint is_limited = False
        suspended.greenlet = here
        try:
            if target is not None:
                self.raise_interruption(target, suspended)
                target.innermost = suspended
                if 0 < target.limit_ns < suspended.deadline_ns and not suspended.draining:
                    is_limited = True
                    suspended.deadline_ns = target.limit_ns
            if suspended.deadline_ns != NO_DEADLINE:
                self.scheduler.timers.add(suspended)
            while not suspended.is_due:
                due = self.next_due(suspended)
                if type(due) is SuspendedWait:
                    self.go_on(due, here)
                elif due is not None:
                    self.begin(due, here)
        finally:
            suspended.is_due = True  # if it was made due since
            self.scheduler.timers.remove(suspended)
            if target is not None:
                target.innermost = outer
        if target is not None:
            self.raise_interruption(target, suspended)
            if is_limited and 0 < target.limit_ns <= monotonic_ns():
                target.limit_ns = 0
                raise query_timeout("the deadline of the COPY whose file waits here has passed")
        return 0

    # -- Interrupts

    cdef int64_t limit_waits(self, int64_t limit_ns) except -1:
        cdef InterruptTarget target = self.target_of(current_greenlet())
        cdef int64_t before = 0
        if target is not None:
            before, target.limit_ns = target.limit_ns, limit_ns
        return before

    cdef int raise_interruption(self, InterruptTarget target, SuspendedWait suspended) except -1:
        if target.interruption is None or (target.wait_for_drain and suspended.draining):
            return 0
        target.raised, target.interruption = target.interruption, None
        raise target.raised

    cdef int interrupt(self, InterruptTarget target, object exc, bint wait_for_drain) except -1:
        """Make its current or next wait raise *exc*, or the higher of two that are pending."""
        earlier = target.interruption
        target.interruption = exc if earlier is None else higher(earlier, exc)
        target.wait_for_drain = wait_for_drain
        if target.innermost is not None and not (wait_for_drain and target.innermost.draining):
            self.make_due(target.innermost)
        return 0

    cdef bint postpone(self, object exc) except -1:
        here = current_greenlet()
        cdef InterruptTarget target = self.target_of(here)
        if target is None or here is self.entered_by or exc is not target.raised:
            return False
        target.raised = None
        earlier = target.interruption
        target.interruption = exc if earlier is None else higher(exc, earlier)
        target.wait_for_drain = True
        return True

    cdef object take_interruption(self, object reason):
        cdef InterruptTarget target = self.target_of(current_greenlet())
        if target is None:
            return None
        exc, target.interruption = target.interruption, None
        return exc

    # -- Wakeups

    cdef object new_wakeup(self):
        return self.scheduler.new_wakeup()

    cdef int wait_for_wakeup(self, object wakeup, int64_t deadline_ns) except -1:
        (<SuspendedWait>wakeup).deadline_ns = deadline_ns
        return self.suspend(wakeup)

    cdef int wake(self, object wakeup) except -1:
        if PyThread_get_thread_ident() == self.thread:
            return self.make_due(wakeup)
        return self.scheduler.wake(wakeup)
