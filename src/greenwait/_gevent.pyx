"""Who waits? A greenlet of gevent's, while its hub runs others.

A connection's watcher stays started from one wait to the next: to stop it and to start it
again costs a system call each time. Between waits it does not keep the loop alive, and one
that is called when nobody waits stops itself.
"""

cimport cython
from libc.stdint cimport int64_t

from greenwait._known cimport Known
from greenwait._monotonic cimport NO_DEADLINE, monotonic_ns
from greenwait._readiness cimport READINESS_READ, READINESS_WRITE
from greenwait._waiter cimport Adapter

from gevent._hub_local import get_hub_if_exists
from gevent.hub import Waiter
from greenlet import getcurrent

__all__ = ["GeventAdapter"]

# Module-level C variables outlive the module's dict: what waits at interpreter exit still
# finds them.
cdef object hub_here = get_hub_if_exists
cdef object current_greenlet = getcurrent
cdef object new_waiter = Waiter

cdef double FOR_EVER = 1e8  # seconds

cdef enum:  # libev's
    EV_READ = 1
    EV_WRITE = 2


@cython.auto_pickle(False)
@cython.final
@cython.internal
cdef class Watched:
    """A descriptor's watcher."""

    cdef object hub
    cdef int fd
    cdef int events
    cdef object watcher
    cdef bint is_started
    cdef object switch  # to the greenlet that waits; None if none does
    cdef bint is_ready
    cdef bint is_late

    def called(self):
        """Switch to it; gevent's hub calls this."""
        cdef object switch = self.switch
        if switch is None:
            self.is_started = False
            self.watcher.stop()
        else:
            self.is_ready = True
            switch()

    def woken(self):
        """Switch to it, the time being up, or nearly: the loop's clock may be ahead of ours."""
        if self.switch is not None:
            self.is_late = True
            self.switch()


@cython.auto_pickle(False)
@cython.final
cdef class GeventAdapter(Adapter):
    """gevent's waits, in all threads that run a hub of its."""

    instead = "use gevent.spawn() and gevent.joinall(), or gevent.pool.Pool"

    cdef bint is_at_home(self) except -1:
        # A thread without a hub sleeps by itself, and so does a callback of the hub's own.
        hub = hub_here()
        return hub is not None and current_greenlet() is not hub

    cdef int wait_for(
        self, int fd, int events, int64_t deadline_ns, bint is_stopping, Known connection
    ) except -1:
        cdef Watched watched = None
        cdef bint is_kept = connection is not None
        hub = hub_here()
        if is_kept and type(connection.kept) is Watched:
            watched = connection.kept
            if watched.switch is not None:  # another greenlet waits on it
                watched, is_kept = None, False
            elif watched.hub is not hub or watched.fd != fd or watched.events != events:
                watched = None
        if watched is None:
            watched = Watched.__new__(Watched)
            watched.hub, watched.fd, watched.events = hub, fd, events
            watched.watcher = hub.loop.io(
                fd,
                (EV_READ if events & READINESS_READ else 0)
                | (EV_WRITE if events & READINESS_WRITE else 0),
            )
            if is_kept:
                connection.kept = watched
        watcher = watched.watcher
        timer = None
        watched.switch = current_greenlet().switch
        watched.is_ready = watched.is_late = False
        try:
            if deadline_ns != NO_DEADLINE:
                timer = hub.loop.timer(max(0, deadline_ns - monotonic_ns()) / 1e9)
                timer.start(watched.woken)
            watcher.ref = True
            if not watched.is_started:
                watched.is_started = True
                watcher.start(watched.called)
            while not (watched.is_ready or watched.is_late):
                hub.switch()
        finally:
            watched.switch = None
            if timer is not None:
                timer.close()
            if is_kept:
                watcher.ref = False
            else:
                watcher.close()
        return events if watched.is_ready else 0

    # A place is gevent's own Waiter.

    cdef object a_place(self):
        return new_waiter(hub_here())

    cdef int wait_for_call(self, object place, int64_t deadline_ns) except -1:
        # A loop that nothing keeps alive ends, as it knows nothing of other threads' calls.
        cdef double seconds = FOR_EVER
        if deadline_ns != NO_DEADLINE:
            seconds = max(0, deadline_ns - monotonic_ns()) / 1e9
        timer = place.hub.loop.timer(seconds)
        timer.start(place.switch, None)
        try:
            place.get()
        finally:
            timer.close()
        return 0

    cdef int call(self, object place) except -1:
        place.hub.loop.run_callback_threadsafe(place.switch, None)
        return 0
