"""Waits of asyncio's tasks, while their event loop goes on.

``run()`` calls a function in a greenlet. Where that would wait for the server it switches
back to the greenlet of the event loop, as if it had returned, and the task that awaits it is
suspended. The event loop is told of one descriptor: that of our own set, in which those of
the connections stay from one wait to the next. A loop that were told of each of them would
keep it when the connection is closed, and mistake the next one of that number for it.

When a call is over its task goes on from there, without another turn of the loop.

A greenlet is its thread's and its process's. While the event loop runs in another thread, or in
a forked child, nobody is switched to; when the event loop is closed, or the thread ends, the
calls that wait there fail.
"""

cimport cython
from cpython.contextvars cimport PyContext_CopyCurrent, PyContext_Enter, PyContext_Exit
from cpython.object cimport PyObject
from cpython.pystate cimport PyThreadState_GetDict
from cpython.pythread cimport PyThread_get_thread_ident
from libc.stdint cimport int64_t

from greenwait._greenlets.scheduler cimport (
    InterruptTarget,
    Scheduler,
    SuspendedWait,
    WatchedFd,
    new_suspended_wait,
)
from greenwait._psycopg.state cimport ConnectionState
from greenwait._system.clock cimport NO_DEADLINE, monotonic_ns
from greenwait._system.finalizing cimport Py_IsFinalizing
from greenwait._system.periods cimport CLOSED_MS
from greenwait._system.readiness cimport READINESS_READ, READINESS_WRITE
from greenwait._system.readiness_set cimport readiness_set_fileno
from greenwait._system.sealed_type cimport seal_type
from greenwait._system.threads cimport forks
from greenwait._waiter cimport (
    Adapter,
    Waiter,
    hubs_entered,
    register_first,
    waiter_here,
    waiters_entered,
)

import asyncio
import socket
import weakref
from collections import deque
from functools import update_wrapper
from types import MethodType
from warnings import warn

from greenlet import getcurrent, greenlet

from greenwait._install import check_registered

__all__ = [
    "Call",
    "Loan",
    "await_",
    "awaited",
    "end_connection",
    "in_call",
    "is_inherited",
]

cdef extern from *:
    """
    #include "thread_stack.h"

    #define DEEP_CALL_TAKES (24 * 1024)
    #define DEEP_CALL_LEAVES (256 * 1024)

    #ifdef _MSC_VER
    #  define DEEP_CALL_OUT_OF_LINE __declspec(noinline)
    #else
    #  define DEEP_CALL_OUT_OF_LINE __attribute__((noinline))
    #endif

    static DEEP_CALL_OUT_OF_LINE PyObject *
    deep_call_below(PyObject *function)
    {
        volatile char room[DEEP_CALL_TAKES];
        PyObject *result = PyObject_CallNoArgs(function);
        room[0] = 0; /* after the call, so that it is there during it */
        (void)room[0];
        return result;
    }

    /* Call from further down the C stack, unless it is small: recursions need that.
     *
     * A greenlet's part of it begins where it was first switched to, and whatever of other
     * greenlets' lies below that place is copied away at each switch. One that begins well
     * below those who will switch to it spares them that. */
    static PyObject *
    deep_call(PyObject *function)
    {
        if (thread_stack_left() < DEEP_CALL_LEAVES)
            return PyObject_CallNoArgs(function);
        return deep_call_below(function);
    }
    """
    object deep_call(object function)

cdef extern from *:
    """
    /* The context that is entered, or NULL: a member of the struct in every CPython so far. */
    static PyObject *
    entered_context(void)
    {
        return PyThreadState_Get()->context;
    }
    """
    PyObject* entered_context()

cdef object current_greenlet = getcurrent
cdef object switch_to = greenlet.switch  # a look-up of the method costs as much as the call
cdef object running_loop = asyncio.get_running_loop
cdef object cancelled_error = asyncio.CancelledError
cdef object invalid_state_error = asyncio.InvalidStateError

# The event loop has its turn after so long, however many of ours are due.
cdef int64_t LONGEST_TURN_NS = 3_000_000
cdef double TICK_SECONDS = CLOSED_MS / 1000.0
# The period of the looks whether the event loop is back in the thread of its calls.
cdef double AWAY_SECONDS = 0.05

cdef str LOOP_CLOSED = (
    "the event loop in which this waited was closed. The connection is closed too; the server may "
    "still be at work on the query, so look before you repeat it"
)
cdef str THREAD_ENDED = (
    "the thread in which this waited has ended, and only there it could go on. The connection is "
    "closed; the server may still be at work on the query, so look before you repeat it"
)
cdef str CONNECTION_LOST = (
    "the event loop in which a task was at work on this connection is closed, and the connection "
    "with it: connect again"
)
cdef str INHERITED = (
    "this event loop is the parent process's: leave the forked child by os._exit(), or run an "
    "event loop and connections of its own there"
)

# In the place of a connection's event loop: that was closed while a task was at work on it.
cdef object lost = object()


class _Worker(greenlet):
    """The greenlet of one call after another: a new one costs more than many a query."""

    __slots__ = ("call",)


cdef object Worker = _Worker


@cython.auto_pickle(False)
@cython.final
cdef class EventLoop(Scheduler):
    """What the calls of one of asyncio's event loops have in common."""

    instead = "use asyncio.gather() or a TaskGroup, and greenwait.aio.run() in its tasks"

    # None while no call is under way: an event loop that is not used any more is to be freed
    # at once, and this with it, though it has an attribute that is this.
    cdef object event_loop
    cdef object event_loop_reference  # weak
    cdef set calls              # under way
    cdef int forks              # how many there had been when it was made
    cdef list idle              # workers
    cdef object over            # calls that are, and whose tasks do not know
    cdef bint is_serving        # the greenlets that are due have their turn
    cdef int64_t until_ns       # ... until then at the longest
    cdef bint is_resuming       # the tasks of those calls that are over have
    cdef bint is_scheduled      # ... or will have it as soon as the event loop gets there
    cdef bint is_listening      # the event loop has our descriptor
    cdef list unregistered      # those of its connections that the event loop is to be told of
    cdef dict registered        # those it was told of, by descriptor
    cdef object ticker          # asyncio's handle
    cdef str ended              # why nobody can wait here any more, or not now
    cdef set loans
    cdef object timer           # asyncio's handle
    cdef int64_t timer_ns
    cdef object __weakref__

    def __cinit__(self):
        self.calls = set()
        self.idle = []
        self.loans = set()
        self.unregistered, self.registered = [], {}
        self.over = deque()
        self.forks = forks
        self.open()
        # Only while it is at work: greenlet frees the main one of a thread that ends, whoever has
        # it (ThreadState's destructor, which takes a last reference for one that was leaked).
        self.entered_by = None
        self.is_main_thread = False  # signals are asyncio's
        see_to_end_of_thread(self)

    cdef InterruptTarget target_of(self, object here):
        return (<Call?>here.call).target if type(here) is Worker else None

    cdef int begin_call(self, Call call, object event_loop) except -1:
        """Call its function, in a greenlet, until it waits or returns."""
        if not self.is_active():
            self.move_here()
        outer = self.entered_by
        here = self.entered_by = current_greenlet()
        self.event_loop = event_loop
        self.calls.add(call)
        try:
            if self.idle:
                worker = self.idle.pop()
            else:
                worker = Worker(_work, here)
                deep_call(worker.switch)  # not with the call, which the greenlet would keep
            worker.switch(call)
        finally:
            self.entered_by = outer
        if call.is_over:
            self.over.pop()  # its task need not be told
        else:
            try:
                self.tell_event_loop()
            except BaseException as exc:  # a signal handler's; it was begun, so it ends the call
                self.interrupt(call.target, exc, False)
        if not self.is_resuming:  # or it will be seen to then
            self.reschedule()
        return 0

    cdef bint is_active(self) noexcept:
        """Is this the thread in which its greenlets can go on?"""
        return PyThread_get_thread_ident() == self.thread

    cdef int move_here(self) except -1:
        """The event loop runs in another thread than before."""
        if self.calls:
            raise RuntimeError(
                "this event loop has run in another thread, and calls of greenwait.aio's that were "
                "begun there are not through"
            )
        self.idle = []  # a greenlet is its thread's
        self.thread = PyThread_get_thread_ident()
        see_to_end_of_thread(self)
        return 0

    cdef int end_call(self, Call call) except -1:
        self.over.append(call)
        self.calls.discard(call)
        return 0

    cdef int bind(self, object conn) except -1:
        """A connection belongs to the event loop that used it first, as long as that lives."""
        cdef EventLoop other
        if conn._event_loop is lost:
            raise RuntimeError(CONNECTION_LOST)
        if conn._event_loop is not None:
            other = conn._event_loop()
            if other is self:
                return 0
            if other is not None and not other.is_closed():
                raise RuntimeError(
                    "this connection is used in another event loop: await "
                    "greenwait.aio.connect() in each, or have a pool for each"
                )
        conn._event_loop = weakref.ref(self)
        return 0

    cdef int wake(self, object wakeup) except -1:
        if self.is_closed():
            raise RuntimeError("who waits there waits in an event loop that is closed")
        return Scheduler.wake(self, wakeup)

    cdef bint is_closed(self) except -1:
        event_loop = self.event_loop_reference()
        return event_loop is None or event_loop.is_closed()

    # -- Waiting

    cdef int wait_for(
        self, int fd, int events, int64_t deadline_ns, bint draining, ConnectionState state
    ) except -1:
        if readiness_set_fileno(&self.ready_set) >= 0:
            return Scheduler.wait_for(self, fd, events, deadline_ns, draining, state)
        if self.ended is not None:
            raise RuntimeError(self.ended)
        # No epoll, no set: the event loop is told of the descriptor itself, for this wait.
        cdef SuspendedWait suspended = new_suspended_wait(fd, deadline_ns)
        cdef WatchedFd watched = self.watched_at(fd)
        cdef Registration registration
        suspended.draining = draining
        if watched.suspended is not None:
            return self.wait_beside(suspended, events)
        registration = Registration.__new__(Registration)
        registration.loop, registration.suspended, registration.events = self, suspended, events
        self.unregistered.append(registration)
        watched.suspended = suspended  # look_for_closed() sees it there
        try:
            self.suspend(suspended)
        finally:
            watched.suspended = None
            self.forget_registration(registration)
        if registration.failure is not None:
            raise registration.failure
        return suspended.revents

    cdef int tell_event_loop(self) except -1:
        """Have it watch what greenlets have begun to wait for.

        In its own greenlet, as all that it is told of descriptors: while libuv calls back, it has
        what its poll has returned on the C stack (uv__io_poll), and writes there when it begins or
        stops to watch one. In a call's greenlet another part of the stack is at that place.
        """
        cdef Registration registration
        self.start_listening()
        while self.unregistered:
            registration = self.unregistered[0]
            if not registration.suspended.is_due:
                self.registered[registration.suspended.fd] = registration
                try:
                    registration.begin(self.event_loop)
                except Exception as exc:
                    registration.failure = exc
                    self.make_due(registration.suspended)
            del self.unregistered[0]  # now: a signal handler may have struck before
        return 0

    cdef int take_back(self) except -1:
        """Have the event loop stop watching the descriptors of the waits that are due."""
        cdef Registration registration
        for due in self.due:
            registration = self.registered.get((<SuspendedWait>due).fd)
            if registration is not None and registration.suspended is due:
                registration.end(running_loop())
                del self.registered[registration.suspended.fd]
        return 0

    cdef int forget_registration(self, Registration registration) except -1:
        """End one whose wait is over; ``take_back()`` has mostly done so."""
        if registration in self.unregistered:
            self.unregistered.remove(registration)
        if self.registered.get(registration.suspended.fd) is registration:
            del self.registered[registration.suspended.fd]
            if not self.is_closed():
                registration.end(self.event_loop)
        return 0

    cdef int suspend(self, SuspendedWait suspended) except -1:
        if self.ended is not None:
            raise RuntimeError(self.ended)
        if self.ticker is None:
            self.ticker = self.event_loop.call_later(TICK_SECONDS, self.tick)
        return Scheduler.suspend(self, suspended)

    cdef int start_listening(self) except -1:
        if not self.is_listening and self.fileno() >= 0:
            self.event_loop.add_reader(self.fileno(), self.serve_in_no_context)
            self.is_listening = True
        return 0

    cdef int stop_listening(self) except -1:
        if self.is_listening:
            self.event_loop.remove_reader(self.fileno())
            self.is_listening = False
        return 0

    cdef object next_due(self, SuspendedWait suspended):
        """Return a wait that is over; None when *suspended* is, or it was another one's turn."""
        due = self.pop_due()
        if due is None:
            switch_to(self.entered_by)
        return due

    cdef object pop_due(self):
        if self.forks != forks:
            return None  # these are the parent's
        while self.is_serving and self.left_of_batch > 0 and monotonic_ns() < self.until_ns:
            self.left_of_batch -= 1
            due = self.due.popleft()
            if not (<SuspendedWait>due).is_due:
                return due
        return None

    cdef int make_due(self, SuspendedWait suspended) except -1:
        self.due.append(suspended)
        if not self.is_serving:
            self.schedule()
        return 0

    cdef int rebuild_set(self) except -1:  # pragma: no cover: for asyncio in a forked child
        self.stop_listening()
        Scheduler.rebuild_set(self)
        return self.start_listening()

    cdef int fileno(self) except -2:
        """Return the descriptor that the event loop watches: the set's, or wakeup_fd's, or -1."""
        cdef int fd = readiness_set_fileno(&self.ready_set)
        return fd if fd >= 0 or self.wakeup_fd is None else self.wakeup_fd.fileno()

    cdef int set_timer(self, SuspendedWait suspended) except -1:
        Scheduler.set_timer(self, suspended)
        return self.set_alarm()

    cdef int set_alarm(self) except -1:
        """Have the event loop call us when the first timer expires."""
        while self.timers and (<SuspendedWait>self.timers[0][2]).is_due:
            self.pop_timer()
        if not self.timers:
            return 0
        cdef int64_t deadline_ns = self.timers[0][0]
        if self.timer is not None:
            if self.timer_ns <= deadline_ns:
                return 0
            self.timer.cancel()
        cdef double seconds = max(0, deadline_ns - monotonic_ns()) / 1e9
        self.timer_ns = deadline_ns
        self.timer = self.event_loop.call_later(seconds, self.expire)
        return 0

    # -- What the event loop calls

    cdef int schedule(self) except -1:
        if not self.is_scheduled and self.ended is None:
            self.event_loop.call_soon(self.serve)
            self.is_scheduled = True
        return 0

    def serve(self):
        """Let those greenlets have their turn whose waits are over, then the tasks of theirs."""
        cdef int64_t until_ns = monotonic_ns() + LONGEST_TURN_NS
        self.is_scheduled = False
        if self.forks != forks:
            return
        try:
            if not self.is_active():
                self.step_back()
            else:
                self.switch_to_due(until_ns)
                if self.calls:
                    self.tell_event_loop()
            self.resume_tasks(until_ns)
        finally:  # a signal handler may strike in what the event loop is told
            self.reschedule()

    # What these two put back is somebody's where an event loop runs within one of its callbacks,
    # which nest_asyncio makes possible.

    cdef int switch_to_due(self, int64_t until_ns) except -1:
        """Switch to a greenlet that is due, and that one to the next."""
        cdef bint was_serving = self.is_serving
        cdef int64_t outer_until_ns = self.until_ns
        outer = self.entered_by
        here = self.entered_by = current_greenlet()
        self.is_serving = True
        self.until_ns = NO_DEADLINE  # for the first, however long it takes to find it
        try:
            self.poll(False)
            if self.registered:
                self.take_back()
            self.left_of_batch = len(self.due)
            due = self.pop_due()
            self.until_ns = until_ns
            if due is not None:
                self.go_on(due, here)
        finally:
            self.is_serving, self.until_ns = was_serving, outer_until_ns
            self.entered_by, self.left_of_batch = outer, 0
        return 0

    cdef int resume_tasks(self, int64_t until_ns) except -1:
        """Have the tasks go on whose calls are over by now.

        One may begin the next call at once; that is not this one's turn any more.
        """
        cdef bint was_resuming = self.is_resuming
        cdef Py_ssize_t left = len(self.over)
        cdef Call call
        self.is_resuming = True
        try:
            while left > 0 and self.over:  # an event loop that runs in a task takes them, too
                left -= 1
                call = self.over.popleft()
                call.resume_task()
                if monotonic_ns() > until_ns:
                    break
        finally:
            self.is_resuming = was_resuming
        return 0

    def serve_in_no_context(self):
        """Do so for the descriptor's sake.

        asyncio has one handle for it, and with that one context, which can't be entered twice: an
        event loop that runs within a task that is resumed here, nest_asyncio's, does enter it.
        """
        cdef PyObject* entered = entered_context()
        if entered is NULL:
            return self.serve()
        context = <object>entered
        PyContext_Exit(context)
        try:
            self.serve()
        finally:
            PyContext_Enter(context)

    cdef int step_back(self) except -1:
        """The event loop runs in another thread than its calls: look later whether it is back."""
        if self.event_loop is not None:
            self.stop_listening()
            if self.registered:
                self.take_back()
            if self.ticker is not None:
                self.ticker.cancel()
            self.ticker = self.event_loop.call_later(AWAY_SECONDS, self.tick)
        return 0

    def expire(self):
        """See to the waits whose time is up."""
        self.timer = None
        try:
            self.serve()
        finally:
            if self.event_loop is not None and self.is_active() and self.forks == forks:
                self.set_alarm()

    def tick(self):
        """See to descriptors that were closed under a wait, and whether this is the thread."""
        self.ticker = None
        if self.forks != forks:
            return
        event_loop = running_loop()
        if not self.calls:
            if self.is_listening:
                event_loop.remove_reader(self.fileno())
                self.is_listening = False
        elif self.is_active():
            self.ticker = event_loop.call_later(TICK_SECONDS, self.tick)
            self.start_listening()
            self.serve()
            if self.event_loop is not None:
                self.set_alarm()
        else:
            self.step_back()

    cdef int reschedule(self) except -1:
        """Have those served who are due by now; if no call is under way, let go of the loop."""
        if self.over or ((self.due or self.unregistered) and self.is_active()):
            return self.schedule()
        if not self.calls:
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None
            self.timers = []
            self.event_loop = None
        return 0

    # -- The end

    def end(self):
        """Have all calls fail, since the event loop is closed, and let go of everything."""
        cdef Call call
        if self.forks != forks:
            return
        calls = list(self.calls)
        for call in calls:
            if call.conn is not None:
                call.conn._event_loop = lost
        self.ended = LOOP_CLOSED
        if self.is_active() and not Py_IsFinalizing():
            self.fail_calls()
        for call in [*calls, *self.over]:  # their tasks are the event loop's
            call.wake_up = call.wake_up_context = call.suspension = None
        self.over.clear()
        self.event_loop = self.timer = self.ticker = None
        loans, self.loans = self.loans, set()
        for loan in loans:
            (<Loan>loan).give_up()
        self.close_if_unused()

    cdef int leave_thread(self) except -1:
        """This thread ends: whoever waits in it can't go on any more."""
        if not self.is_active() or self.forks != forks:
            return 0
        was_ended = self.ended
        if self.calls:
            self.ended = self.ended or THREAD_ENDED
            self.fail_calls()
            self.ended = was_ended
        self.idle = []
        self.thread = 0  # the number may be another one's soon
        if was_ended is not None:
            self.close_if_unused()
        elif self.over:  # in whichever thread the event loop runs
            self.event_loop.call_soon_threadsafe(self.serve)
        return 0

    cdef int fail_calls(self) except -1:
        """Have each raise why; what it waits for then raises the same at once."""
        cdef Call call
        outer = self.entered_by
        here = self.entered_by = current_greenlet()
        calls = list(self.calls)
        conns = [call.conn for call in calls if call.conn is not None]
        for call in calls:
            if call.target is not None and call.target.innermost is not None:
                call.target.interruption = RuntimeError(self.ended)
                call.target.wait_for_drain = False
                self.go_on(call.target.innermost, here)
        self.entered_by = outer
        for conn in conns:
            if not conn._lock.is_taken:
                conn.close()  # if psycopg2 has not: the query may have ended just then
        self.due.clear()
        self.timers = []
        return 0

    cdef int close_if_unused(self) except -1:
        if not self.calls and self.is_open:
            self.idle = []
            self.watched = []
            self.is_listening = False
            Scheduler.close(self)
        return 0


@cython.auto_pickle(False)
@cython.final
@cython.internal
cdef class Guests:
    """The event loops that run in a thread; it is freed as that ends, while greenlets go on."""

    cdef unsigned long thread
    cdef list loops  # weak

    def __del__(self):
        cdef EventLoop loop
        if Py_IsFinalizing() or PyThread_get_thread_ident() != self.thread:  # or in a forked child
            return
        for reference in self.loops:
            loop = reference()
            if loop is not None:
                loop.leave_thread()


cdef str guests_key = "greenwait's event loops"


cdef int see_to_end_of_thread(EventLoop loop) except -1:
    """Have it leave this thread as that ends."""
    cdef dict thread_dict = <dict><PyObject*>PyThreadState_GetDict()
    cdef Guests guests = thread_dict.get(guests_key)
    if guests is None:
        guests = thread_dict[guests_key] = Guests()
        guests.thread = PyThread_get_thread_ident()
        guests.loops = []
    guests.loops = [reference for reference in guests.loops if reference() is not None]
    guests.loops.append(weakref.ref(loop))
    return 0


def end_when_closed(event_loop):
    """Have our calls end when the event loop is closed, which tells nobody of that.

    One that is never closed does so as it is freed. A weak reference would be dead by then.
    """
    own_close = vars(event_loop).get("close")  # somebody else's

    def close(event_loop):
        try:
            if own_close is None:
                type(event_loop).close(event_loop)
            else:
                own_close()
        finally:
            if event_loop.is_closed():
                # Else it would be in a cycle.
                if getattr(vars(event_loop).get("close"), "__func__", None) is close:
                    del event_loop.close
                    if own_close is not None:
                        event_loop.close = own_close
                event_loop._greenwait.end()

    event_loop.close = MethodType(update_wrapper(close, type(event_loop).close), event_loop)


@cython.auto_pickle(False)
@cython.final
@cython.internal
cdef class Registration:
    """A connection's descriptor that the event loop watches for one wait; it calls this."""

    cdef EventLoop loop
    cdef SuspendedWait suspended
    cdef int events
    cdef object failure  # what kept the event loop from watching it

    def __call__(self):
        if self.loop.forks == forks:
            self.suspended.revents = self.events
            self.loop.due.append(self.suspended)
            self.loop.serve_in_no_context()

    cdef int begin(self, object event_loop) except -1:
        if self.events & READINESS_READ:
            event_loop.add_reader(self.suspended.fd, self)
        if self.events & READINESS_WRITE:
            event_loop.add_writer(self.suspended.fd, self)
        return 0

    cdef int end(self, object event_loop) except -1:
        if self.events & READINESS_READ:
            event_loop.remove_reader(self.suspended.fd)
        if self.events & READINESS_WRITE:
            event_loop.remove_writer(self.suspended.fd)
        return 0


seal_type(EventLoop, "it is made where an event loop's first call is begun")
seal_type(Registration, "an EventLoop makes it")


def _work():
    """The life of a worker: a call, and the next one."""
    cdef EventLoop loop
    cdef Call call
    next_greenlet = current_greenlet().parent
    while True:
        call = switch_to(next_greenlet)
        loop = call.loop
        current_greenlet().call = call
        call.run()
        current_greenlet().call = None
        loop.end_call(call)
        due = loop.pop_due()
        next_greenlet = loop.entered_by if due is None else (<SuspendedWait>due).greenlet
        if next_greenlet is None:  # it has ended by itself: nobody has the greenlet any more
            return
        loop.idle.append(current_greenlet())
        if due is not None:
            (<SuspendedWait>due).is_due = True
        # An idle worker keeps nothing: neither its loop, which has it, nor itself.
        loop = call = due = None


# -- A call, and who awaits it

@cython.auto_pickle(False)
@cython.final
cdef class Call:
    """Call(function, args, kwargs)
--

    A coroutine: a call of a function in a greenlet, begun when it is awaited.
    """

    cdef EventLoop loop
    cdef object function
    cdef tuple args
    cdef dict kwargs
    cdef str name                # of a method; None: nobody is to be told that it is not awaited
    cdef object conn             # that it is a method of, or of a cursor of which it is
    cdef bint is_local           # it waits for nobody
    cdef object context
    cdef InterruptTarget target
    cdef bint is_begun
    cdef bint is_awaited
    cdef bint is_closed          # it is not to be awaited, or not again
    cdef bint is_over
    cdef object value
    cdef object exception_raised
    cdef Suspension suspension   # that a task has
    cdef object wake_up          # the task's, to be called when it is over
    cdef object wake_up_context

    def __cinit__(self, function, tuple args not None, dict kwargs not None):
        self.function, self.args, self.kwargs = function, args, kwargs

    def __del__(self):
        if not self.is_begun and self.name is not None:
            warn(f"coroutine '{self.name}' was never awaited", RuntimeWarning, 1)

    # As a coroutine of Python's it is awaited, made a task of, or closed.

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self.send(None)

    def send(self, value):
        """Begin it, and return what its task is to wait for, or raise StopIteration."""
        found = advance(self)
        if type(found) is Suspension:
            return found
        raise StopIteration(found)

    def throw(self, kind, value=None, traceback=None):
        """Raise what it is to raise where it waits, which it does no more."""
        self.is_begun = self.is_closed = True
        if value is None:
            value = kind if isinstance(kind, BaseException) else kind()
        raise value

    def close(self):
        """Never begin it; do not wait for it."""
        self.is_begun = self.is_closed = True

    def begin(self):
        """Begin it now; for one that need not be awaited."""
        if self.is_begun:
            raise RuntimeError("this call was begun before, or closed: call the function again")
        self.start()
        return self

    cdef int start(self) except -1:
        try:
            self.start_in(running_loop())
        except BaseException:
            self.is_closed = True
            raise
        return 0

    cdef int start_in(self, object event_loop) except -1:
        if is_below_call(current_greenlet()):
            raise RuntimeError(
                "awaited below greenwait.aio.run(), where code is synchronous: call the function, "
                "or use greenwait.aio.await_()"
            )
        if hubs_entered > 0:
            check_no_other()
        self.is_begun = True
        self.loop = loop_of(event_loop)
        if self.loop.forks != forks:
            raise RuntimeError(INHERITED)
        if self.conn is not None:
            self.loop.bind(self.conn)
        self.target = InterruptTarget.__new__(InterruptTarget)
        self.context = PyContext_CopyCurrent()
        return self.loop.begin_call(self, event_loop)

    cdef int run(self) except -1:
        """Call the function; nothing comes out of it."""
        function, args, kwargs = self.function, self.args, self.kwargs
        self.function = self.args = self.kwargs = None
        PyContext_Enter(self.context)
        try:
            self.value = call_function(function, args, kwargs)
        except BaseException as exc:  # by its instance: its class may be told only by that
            self.exception_raised = exc
        PyContext_Exit(self.context)
        if isinstance(self.exception_raised, StopIteration):  # it would be a result, PEP 479
            told = RuntimeError("the function raised StopIteration")
            told.__cause__ = self.exception_raised
            self.exception_raised = told
        interruption = self.target.interruption
        if interruption is not None and not isinstance(self.exception_raised, cancelled_error):
            # It came too late to interrupt anything, and is delivered nevertheless.
            interruption.__context__ = self.exception_raised
            self.exception_raised = interruption
        self.is_over = True
        self.context = self.target = self.conn = None
        return 0

    def fail(self, exc):
        """Be over for its task, in a forked child: there nobody goes on with the function."""
        self.exception_raised, self.is_over = exc, True
        self.loop.event_loop.call_soon(self.resume)

    def resume(self):
        """Have its task go on; the event loop calls this in a forked child."""
        self.resume_task()

    cdef int resume_task(self) except -1:
        """Have the task that awaits it go on, if one does."""
        wake_up, context, suspension = self.wake_up, self.wake_up_context, self.suspension
        self.wake_up = self.wake_up_context = self.suspension = None
        if wake_up is not None:
            context.run(wake_up, suspension)
        return 0

    cdef object outcome(self):
        """Return what it has returned, or raise what it has raised."""
        if self.exception_raised is not None:
            raise self.exception_raised
        return self.value


cdef inline object call_function(object function, tuple args, dict kwargs):
    return function(*args, **kwargs) if kwargs else function(*args)


cdef object advance(Call call):
    """Return what its task is to wait for, a Suspension, or else its result."""
    if call.is_closed:
        raise RuntimeError(
            "cannot await a call that was closed, or has raised what was thrown into it: call the "
            "function again"
        )
    if not call.is_awaited:
        call.is_awaited = True
        if call.is_local:
            call.is_begun = True
            return call_function(call.function, call.args, call.kwargs)
        if not call.is_begun:
            call.start()
        if not call.is_over:
            call.suspension = Suspension.__new__(Suspension)
            call.suspension.call = call
            call.suspension.event_loop = call.loop.event_loop
            call.suspension._asyncio_future_blocking = True
            return call.suspension
    elif not call.is_over or call.loop is None:
        raise RuntimeError("it was awaited before: call the function again")
    call.loop = None
    return call.outcome()


@cython.auto_pickle(False)
@cython.final
@cython.internal
cdef class Suspension:
    """What a task waits for: asyncio takes it for a future, as which it behaves."""

    cdef Call call
    cdef object event_loop
    cdef public bint _asyncio_future_blocking

    def get_loop(self):
        """Return the event loop, which asyncio compares with the task's."""
        return self.event_loop

    def add_done_callback(self, function, *, context=None):
        """Have *function* called when it is over: it resumes the task."""
        if context is None:
            context = PyContext_CopyCurrent()
        if self.call.is_over:
            self.event_loop.call_soon(function, self, context=context)
            return
        self.call.wake_up = function
        self.call.wake_up_context = context

    def cancel(self, msg=None):
        """Cancel the query that the call waits for, and have it raise CancelledError."""
        if self.call.is_over:
            return False
        exc = cancelled_error() if msg is None else cancelled_error(msg)
        if self.call.loop.forks != forks:
            self.call.fail(exc)
        else:
            self.call.loop.interrupt(self.call.target, exc, True)
        return True

    def done(self):
        """Return whether it is over."""
        return self.call.is_over

    def cancelled(self):
        """Return whether CancelledError came out of it."""
        return isinstance(self.call.exception_raised, cancelled_error)

    def result(self):
        """Return what it has returned, or raise what it has raised."""
        self.check_over()
        return self.call.outcome()

    def exception(self):
        """Return what it has raised, or None."""
        self.check_over()
        return self.call.exception_raised

    cdef int check_over(self) except -1:
        if not self.call.is_over:
            raise invalid_state_error("the call is not over yet")
        return 0


cdef extern from *:
    """
    /* The slot for send(), which Cython does not fill: a StopIteration for each result, with
     * its traceback, would cost more than the rest. */
    static PyObject *(*advance_call)(PyObject *);
    static PyTypeObject *suspension_type;

    static PySendResult
    send_to_call(PyObject *call, PyObject *value, PyObject **result)
    {
        (void)value;
        *result = advance_call(call);
        if (*result == NULL)
            return PYGEN_ERROR;
        return Py_TYPE(*result) == suspension_type ? PYGEN_NEXT : PYGEN_RETURN;
    }

    static void
    fill_send_slot(PyTypeObject *call_type, PyTypeObject *type, void *advance)
    {
        advance_call = (PyObject *(*)(PyObject *))advance;
        suspension_type = type;
        call_type->tp_as_async->am_send = send_to_call;
    }
    """
    void fill_send_slot(type call_type, type suspension_type, void* advance)

fill_send_slot(Call, Suspension, <void*>advance)
seal_type(Suspension, "a call makes it when it is awaited")


def awaited(base_method, str name, *, bint of_cursor=False, bint only_named=False):
    """Return a method that is to be awaited, or below ``run()``, is *base_method*.

    :param name: what it is called when nobody awaits it.
    :param of_cursor: it is a cursor's method, not a connection's.
    :param only_named: it waits for the server only if that has a name.
    """

    def method(self, /, *args, **kwargs):
        if is_below_call(current_greenlet()):
            return base_method(self, *args, **kwargs)
        cdef Call call = Call.__new__(Call, base_method, (self, *args), kwargs)
        call.name = name
        if only_named and self.name is None:
            call.is_local = True
        else:
            call.conn = self.connection if of_cursor else self
        return call

    return update_wrapper(method, base_method)


# -- Below a call

def in_call():
    """Return whether this is below a call, where code is synchronous and may wait."""
    return is_below_call(current_greenlet())


cdef bint is_below_call(object here) except -1:
    """Is it the greenlet of a call? In a child that was forked there, it is so no more."""
    if type(here) is not Worker or here.call is None:  # between two calls a __del__ may run
        return False
    cdef EventLoop loop = (<Call?>here.call).loop
    return loop is not None and loop.forks == forks


@cython.auto_pickle(False)
@cython.final
@cython.internal
cdef class Awaited:
    """What a call waits for that waits for an awaitable."""

    cdef EventLoop loop
    cdef object awaitable
    cdef object future
    cdef SuspendedWait suspended

    def begin(self):
        """Have it run as a task; the event loop calls this."""
        if self.suspended.is_due:  # it was cancelled before
            return
        try:
            self.future = asyncio.ensure_future(self.awaitable)
        except Exception as exc:  # it is none
            self.future = running_loop().create_future()
            self.future.set_exception(exc)
        self.future.add_done_callback(self.end)

    def end(self, future):
        """Have the call go on; the event loop calls this."""
        if not self.suspended.is_due:
            self.loop.make_due(self.suspended)


seal_type(Awaited, "it is made by await_()")


def await_(awaitable):
    """Wait for an awaitable, in synchronous code below ``greenwait.aio.run()``.

    :param awaitable: a coroutine, for instance; it runs in a task of its own.
    :returns: what it returns.
    :raises BaseException: what it raises.
    :raises TypeError: it can't be awaited.
    :raises RuntimeError: called elsewhere.

    A cancellation of the call cancels the awaitable, and what that makes of it is raised
    or returned.
    """
    here = current_greenlet()
    cdef Call call = here.call if is_below_call(here) else None
    if call is None or call.loop.ended is not None:
        if hasattr(awaitable, "close"):
            awaitable.close()  # or it would complain that it was never awaited
        raise RuntimeError(
            "await_() is for synchronous code below greenwait.aio.run(); elsewhere, await it"
            if call is None else call.loop.ended
        )
    cdef Awaited awaited = Awaited.__new__(Awaited)
    awaited.loop, awaited.awaitable = call.loop, awaitable
    awaited.suspended = new_suspended_wait(-1, NO_DEADLINE)
    # Not here: the first steps of an eager task would run in this greenlet.
    call.loop.event_loop.call_soon(awaited.begin, context=PyContext_CopyCurrent())
    try:
        while awaited.future is None or not awaited.future.done():
            try:
                call.loop.suspend(awaited.suspended)
            except BaseException:
                if awaited.future is None:
                    if hasattr(awaitable, "close"):
                        awaitable.close()
                    raise
                if call.loop.ended is not None or not awaited.future.cancel():
                    raise  # it is done, at the same time
                awaited.suspended = new_suspended_wait(-1, NO_DEADLINE)
    finally:
        awaited.suspended.is_due = True  # end() may still be called
    return awaited.future.result()


# -- Which loop?

cdef EventLoop loop_of(object event_loop):
    """Return what greenwait keeps for an event loop that runs in this thread."""
    cdef EventLoop loop = getattr(event_loop, "_greenwait", None)
    if loop is None:
        check_registered("greenwait.aio")
        check_no_other()
        loop = event_loop._greenwait = EventLoop.__new__(EventLoop)
        loop.event_loop_reference = weakref.ref(event_loop)
        end_when_closed(event_loop)
        register_first(adapter)
    return loop


def is_inherited(conn=None):
    """Return whether the event loop that runs here, or *conn*'s, is a parent process's."""
    cdef EventLoop loop = None
    if conn is not None and conn._event_loop is not None and conn._event_loop is not lost:
        loop = conn._event_loop()
    if loop is None:
        try:
            loop = getattr(running_loop(), "_greenwait", None)
        except RuntimeError:  # none does
            return False
    return loop is not None and loop.forks != forks


def end_connection(conn):
    """End a connection whose task was lost in another thread, with its mutex; is that so?

    It can't be closed, but the server be told that nobody is there.
    """
    if conn._event_loop is not lost or not conn._lock.is_taken or conn.closed:
        return False
    borrowed = socket.socket(fileno=conn.fileno())  # no os.dup(): that is for files on Windows
    try:
        borrowed.shutdown(socket.SHUT_RDWR)
    finally:
        borrowed.detach()
    return True


@cython.auto_pickle(False)
@cython.final
cdef class Loan:
    """What a pool has lent to a task of the event loop that runs here: *give_up* is called when
    that is closed before the loan is over.
    """

    cdef EventLoop loop
    cdef object give_up

    def __init__(self, give_up):
        self.loop = loop_of(running_loop())
        self.give_up = give_up
        self.loop.loans.add(self)

    def end(self):
        """Return whether it was not over yet; now it is."""
        cdef bint was_open = self.loop is not None and self in self.loop.loans
        if was_open:
            self.loop.loans.discard(self)
        self.loop = self.give_up = None
        return was_open


cdef int check_no_other() except -1:
    """A hub of ours around the event loop, or gevent's, has all of this thread's waits."""
    waiter = waiter_here() if waiters_entered > 0 else None
    if waiter is not None:
        raise RuntimeError(
            "greenwait.aio waits in asyncio's event loop, and in this thread another one "
            f"waits: {waiter.instead}"
        )
    return 0


@cython.auto_pickle(False)
@cython.final
@cython.internal
cdef class AioAdapter(Adapter):
    """asyncio's waits, in all threads that run an event loop."""

    cdef Waiter find_waiter(self):
        here = current_greenlet()
        return (<Call>here.call).loop if is_below_call(here) else None


cdef AioAdapter adapter = AioAdapter()
