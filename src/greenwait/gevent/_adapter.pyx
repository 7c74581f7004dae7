"""The adapter of gevent: waits of greenlets, while their hub runs others.

gevent's loop watches one descriptor: that of our own set, in which those of the connections
stay from one wait to the next. libpq may close a connection's at any time, and libev ends the
process when it finds that a descriptor it watches is closed. Where a set has no descriptor
the loop watches the connection's after all, for the time of a wait.
"""

cimport cython
from cpython.dict cimport PyDict_GetItemWithError, PyDict_SetItem
from cpython.object cimport PyObject
from cpython.pystate cimport PyThreadState_GetDict
from libc.stdint cimport int64_t

from greenwait._greenlets.scheduler cimport (
    Scheduler,
    SuspendedWait,
    new_scheduler,
    new_suspended_wait,
)
from greenwait._psycopg.state cimport ConnectionState
from greenwait._system.clock cimport NO_DEADLINE
from greenwait._system.finalizing cimport Py_IsFinalizing
from greenwait._system.periods cimport CLOSED_MS
from greenwait._system.readiness cimport READINESS_READ, READINESS_WRITE
from greenwait._system.readiness_set cimport readiness_set_fileno
from greenwait._system.sealed_type cimport seal_type
from greenwait._system.switching cimport current_greenlet, switch_to
from greenwait._waiter cimport Adapter, Waiter, seconds_until

import os
import sys
import weakref

import gevent
from gevent._hub_local import get_hub_if_exists
from gevent.hub import Waiter as GeventWaiter

from greenwait._greenlets.local import tell_ends
from greenwait._ranks import time_limits

__all__ = ["GeventAdapter"]

time_limits.append(gevent.Timeout)
# Not rawlink(), by which what is called runs in the hub: it would stop that where it waits.
tell_ends(gevent.Greenlet, gevent.Greenlet.link)

cdef object hub_here = get_hub_if_exists
cdef object new_gevent_waiter = GeventWaiter
cdef object exc_info = sys.exc_info
cdef str loop_key = "greenwait's gevent loop"  # a str has its hash ready

cdef object FOR_EVER = 1e8  # seconds, as these are
cdef object SHORTEST = 1e-3
cdef double TICK_SECONDS = CLOSED_MS / 1000.0

cdef enum:  # libev's
    EV_READ = 1
    EV_WRITE = 2


@cython.auto_pickle(False)
@cython.final
@cython.internal
cdef class GeventLoop(Waiter):
    """The waiter of a gevent hub; the thread keeps it."""

    cdef object hub
    cdef Scheduler scheduler
    cdef object watcher      # of the set's descriptor; None: it has none
    cdef dict watchers       # ... of the connections' then, while they are waited for
    cdef object ticker       # gevent's timer
    cdef bint is_ticking
    cdef Py_ssize_t waiting  # greenlets
    cdef object __weakref__

    def __cinit__(self, hub):
        self.hub = hub
        self.watchers = {}
        self.scheduler = new_scheduler()
        self.scheduler.open()

    def __del__(self):
        try:
            self.detach()
        except ValueError:
            pass  # the hub was destroyed, and its loop
        except Exception:  # gevent's cffi loops are gone at the very end
            if not Py_IsFinalizing():
                raise

    cdef int attach(self) except -1:
        """Make the hub's loop call us."""
        loop = self.hub.loop
        itself = weakref.ref(self)  # a loop never frees what it has started
        cdef int fd = readiness_set_fileno(&self.scheduler.ready_set)
        if fd >= 0:
            self.watcher = loop.io(fd, EV_READ, self.waiting > 0)
            self.watcher.start(_serve, itself)
        self.ticker = loop.timer(TICK_SECONDS, TICK_SECONDS, False)
        if self.is_ticking:
            self.ticker.start(_tick, itself)
        return 0

    cdef int detach(self) except -1:
        """Make the hub's loop forget us."""
        watcher, self.watcher = self.watcher, None
        ticker, self.ticker = self.ticker, None
        while self.watchers:  # pragma: no cover: where there is no epoll(7)
            self.watchers.popitem()[1].close()
        if watcher is not None:
            watcher.close()
        if ticker is not None:
            ticker.close()
        return 0

    cdef int wait_for(
        self, int fd, int events, int64_t deadline_ns, bint draining, ConnectionState state
    ) except -1:
        cdef SuspendedWait suspended = new_suspended_wait(fd, deadline_ns)
        cdef int rc
        if self.watcher is None:  # pragma: no cover: where there is no epoll(7)
            return self.watch_and_wait(suspended, events)
        rc = self.scheduler.arm(suspended, events, state)
        if rc < 0:  # pragma: no cover: epoll_ctl(2) fails
            return rc
        try:
            self.suspend(suspended)
        finally:
            self.scheduler.disarm(suspended, state)
        return suspended.revents

    cdef int watch_and_wait(  # pragma: no cover: where there is no epoll(7)
        self, SuspendedWait suspended, int events
    ) except -1:  # pragma: no cover
        """Wait for a descriptor that gevent's loop watches meanwhile."""
        cdef int bits = EV_READ if events & READINESS_READ else 0
        if events & READINESS_WRITE:
            bits |= EV_WRITE
        watcher = None
        try:
            if self.scheduler.claim(suspended, events) is not None:
                watcher = self.watchers[suspended.fd] = self.hub.loop.io(suspended.fd, bits)
                watcher.start(_come, weakref.ref(self), suspended, events)
            self.suspend(suspended)
        finally:
            self.scheduler.disarm(suspended, None)
            if watcher is not None and self.watchers.pop(suspended.fd, None) is not None:
                watcher.close()
        return suspended.revents

    cdef int suspend(self, SuspendedWait suspended) except -1:
        """Let others run until it is due; raise the exceptions that gevent throws."""
        timer = None
        suspended.greenlet = current_greenlet()
        if self.waiting == 0:
            self.begin_waiting()
        self.waiting += 1
        try:
            if suspended.deadline_ns != NO_DEADLINE:
                timer = new_timer(self.hub.loop, suspended.deadline_ns)
                timer.start(_come, weakref.ref(self), suspended, None)
            while not suspended.is_due:
                self.hub.switch()
        finally:
            suspended.is_due = True
            self.waiting -= 1
            if self.waiting == 0:
                self.end_waiting()
            if timer is not None:
                timer.close()
        return 0

    cdef int begin_waiting(self) except -1:
        """Keep gevent's loop alive."""
        if self.watcher is not None:
            self.watcher.ref = True
        if not self.is_ticking:
            self.is_ticking = True
            self.ticker.start(_tick, weakref.ref(self))
        return 0

    cdef int end_waiting(self) except -1:
        """Let gevent's loop end."""
        if self.watcher is not None:
            self.watcher.ref = False
        return 0

    cdef int serve(self) except -1:
        """Run the greenlets whose waits are over."""
        if self.is_left_to_parent():
            return 0
        self.scheduler.poll(0)
        if self.scheduler.is_stale:
            self.detach()
            self.scheduler.rebuild_set()
            self.attach()
        # Greenlets that become due meanwhile run later, when others have run.
        for _ in range(len(self.scheduler.due)):
            _switch(self.scheduler.due.popleft(), None)
        return 0

    cdef bint is_left_to_parent(self) except -1:
        """Is this a forked child? Then descriptors that are ready are left to the parent."""
        if not self.is_inherited():
            return False
        self.detach()
        return True

    cdef int tick(self) except -1:
        """Check for descriptors that were closed during a wait."""
        if self.waiting > 0:
            self.scheduler.last_look_ns = 0  # a tick may come a little early
            return self.serve()
        self.is_ticking = False
        self.ticker.stop()
        return 0


seal_type(GeventLoop, "it is made where a hub's first greenlet waits")


# gevent's loop calls these, in its hub.

def _serve(itself):
    cdef GeventLoop loop = itself()
    if loop is not None:
        loop.serve()


def _tick(itself):
    cdef GeventLoop loop = itself()
    if loop is not None:
        loop.tick()


def _come(itself, SuspendedWait suspended not None, revents):
    cdef GeventLoop loop = itself()
    if loop is not None and not loop.is_left_to_parent():
        _switch(suspended, revents)


cdef int _switch(SuspendedWait suspended, revents) except -1:
    if suspended.is_due:  # pragma: no cover: a race: the timer and the answer at once
        return 0
    if revents is not None:
        suspended.revents = revents
    suspended.is_due = True
    try:
        switch_to(suspended.greenlet)
    except BaseException:  # raised by a greenlet that is not a gevent.Greenlet
        current_greenlet().handle_error(suspended.greenlet, *exc_info())
    return 0


cdef object new_timer(object loop, int64_t deadline_ns):
    """Return a gevent timer; libuv counts milliseconds, and warns of less than one."""
    seconds = seconds_until(deadline_ns)
    return loop.timer(FOR_EVER if seconds is None else max(SHORTEST, seconds))


cdef GeventLoop loop_of(object hub):
    """Return this thread's loop for its hub. The thread keeps it: gevent never frees a hub."""
    cdef dict thread_dict = <dict><PyObject*>PyThreadState_GetDict()
    cdef PyObject* found = PyDict_GetItemWithError(thread_dict, loop_key)
    cdef GeventLoop loop = None if found is NULL else <GeventLoop>found
    if loop is not None and (loop.hub is not hub or loop.is_inherited()):
        if loop.hub is hub:
            loop.detach()  # it is the parent's; its greenlets wait for ever here
        loop = None
    if loop is None:
        loop = GeventLoop.__new__(GeventLoop, hub)
        loop.attach()
        PyDict_SetItem(thread_dict, loop_key, loop)
    return loop


@cython.auto_pickle(False)
@cython.final
cdef class GeventAdapter(Adapter):
    """The adapter of gevent, for all threads that run one of its hubs."""

    _instead = "use gevent.spawn() and gevent.joinall(), or gevent.pool.Pool"

    cpdef bint is_active(self) except -1:
        # A thread without a hub sleeps by itself, and so does a callback of the hub's own.
        hub = hub_here()
        return hub is not None and current_greenlet() is not hub

    cpdef bint is_hub_itself(self) except -1:
        hub = hub_here()
        return hub is not None and current_greenlet() is hub

    cdef int wait_for(
        self, int fd, int events, int64_t deadline_ns, bint draining, ConnectionState state
    ) except -1:
        cdef GeventLoop loop = loop_of(hub_here())
        return loop.wait_for(fd, events, deadline_ns, draining, state)

    # A wakeup is gevent's own Waiter.

    cdef object new_wakeup(self):
        return new_gevent_waiter(hub_here())

    cdef int wait_for_wakeup(self, object wakeup, int64_t deadline_ns) except -1:
        # A loop that nothing keeps alive ends: it does not know of calls from other threads.
        timer = new_timer(wakeup.hub.loop, deadline_ns)
        timer.start(wakeup.switch, None)
        try:
            wakeup.get()
        finally:
            timer.close()
        return 0

    cdef int wake(self, object wakeup) except -1:
        wakeup.hub.loop.run_callback_threadsafe(wakeup.switch, None)
        return 0


def _after_fork_in_child():
    """Separate the loop from the parent's, whose descriptor set it shares, as gevent's fork() does.

    After os.fork() each of the two would change what the other one waits for; and libuv ends a
    process that finds the set changed.
    """
    hub = hub_here()
    if hub is not None and hub.loop is not None:
        hub.loop.reinit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
