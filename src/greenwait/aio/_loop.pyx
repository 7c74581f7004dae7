"""The waiter of an asyncio event loop, in which calls are suspended.

``run()`` calls a function in a greenlet. Where that would wait for the server it switches
back to the greenlet of the event loop, as if it had returned, and the task that awaits it is
suspended. The event loop watches one descriptor: that of our own set, in which those of the
connections stay from one wait to the next. An event loop that watched each of them would keep
it after the connection is closed, and mistake the next descriptor of that number for it.

When a call is over its task goes on from there, without another iteration of the event loop.

A greenlet belongs to its thread and its process. While the event loop runs in another thread,
or in a forked child, no greenlet is switched to; when the event loop is closed, or the thread
ends, the calls that wait there fail.
"""

cimport cython
from cpython.contextvars cimport PyContext_Enter, PyContext_Exit
from cpython.object cimport PyObject, PyObject_GenericGetAttr, PyObject_GenericSetAttr
from cpython.pystate cimport PyThreadState_GetDict
from cpython.pythread cimport PyThread_get_thread_ident
from libc.stdint cimport int64_t

from greenwait._greenlets.local cimport (
    OF_LOOP,
    Worker,
    make_worker,
    need_worker,
    new_worker,
    worker_of,
)
from greenwait._greenlets.scheduler cimport SuspendedWait, new_suspended_wait
from greenwait._greenlets.waiter cimport GreenletWaiter, InterruptTarget
from greenwait._psycopg.state cimport ConnectionState
from greenwait._system.clock cimport NO_DEADLINE, monotonic_ns
from greenwait._system.finalizing cimport Py_IsFinalizing
from greenwait._system.periods cimport CLOSED_MS
from greenwait._system.readiness cimport READINESS_READ, READINESS_WRITE
from greenwait._system.readiness_set cimport readiness_set_fileno
from greenwait._system.sealed_type cimport seal_type
from greenwait._system.switching cimport current_greenlet, switch_to
from greenwait._waiter cimport (
    Adapter,
    Waiter,
    register_first,
    waiter_here,
    waiters_entered,
)

import asyncio
import socket
import weakref
from collections import deque
from functools import update_wrapper
from types import MethodType, SimpleNamespace

from greenwait._install import check_registered

__all__ = ["Loan", "end_connection", "is_inherited"]

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
        room[0] = 0; /* after the call, so that the array exists during it */
        (void)room[0];
        return result;
    }

    /* Call from further down the C stack, unless the stack is small: recursions need the room.
     *
     * A greenlet's part of the stack begins where it was first switched to, and other greenlets'
     * parts that lie below that address are copied away at each switch. A greenlet that begins
     * well below those that will switch to it spares them the copies. */
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

cdef object running_loop = asyncio.get_running_loop
cdef object current_task = asyncio.current_task
cdef int workers_entered = 0
cdef str IS_FUTURE = "_asyncio_future_blocking"
cdef str GET_LOOP = "get_loop"
cdef object cancelled_error = asyncio.CancelledError

# How long our greenlets may run before the event loop does, however many are due, and how long
# tasks may begin calls; what comes later waits for the next turn.
cdef int64_t LONGEST_TURN_NS = 3_000_000
cdef double TICK_SECONDS = CLOSED_MS / 1000.0
# The period of the checks whether the event loop is back in the thread of its calls.
cdef double AWAY_SECONDS = 0.05

cdef str LOOP_CLOSED = (
    "the event loop in which this waited was closed. The connection is closed too; the server may "
    "still be at work on the query, so look before you repeat it"
)
cdef str THREAD_ENDED = (
    "the thread in which this waited has ended, and it could go on only there. The connection is "
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

# Tasks are resumed with it: they look for methods of what is not a future of asyncio's own class.
# They only ask for its result, which is None, and so it may be that of any event loop.
cdef object done_future = asyncio.Future(loop=SimpleNamespace(get_debug=bool))
done_future.set_result(None)

# In place of a connection's event loop that was closed while a task was at work on the connection.
cdef object lost = object()


@cython.auto_pickle(False)
cdef class PendingCall(Execution):
    """A call that a task awaits: ours, see ``_call.pyx``, or SQLAlchemy's, see ``_spawned.pyx``.

    asyncio treats it as a future.
    """

    def __getattribute__(self, name):
        # What tasks ask for at each wait. The weak reference of the event loop is a function that
        # returns it.
        if name is IS_FUTURE:
            return self._asyncio_future_blocking
        if name is GET_LOOP:
            return self.loop.event_loop_reference
        return PyObject_GenericGetAttr(self, name)

    def __setattr__(self, name, value):
        if name is IS_FUTURE:
            self._asyncio_future_blocking = value
        else:
            PyObject_GenericSetAttr(self, name, value)

    def get_loop(self):
        """Return the event loop, which asyncio compares with the task's."""
        return self.event_loop

    cdef int run(self) except -1:
        raise NotImplementedError

    cdef int suspend_task(self, object waiting) except -1:
        """Switch from a greenlet that is not a worker to its task, which then awaits this."""
        raise NotImplementedError

    cdef bint postpone_in_task(self, object exc) except -1:
        """Have its task raise *exc* where it awaits next; return whether that is possible."""
        raise NotImplementedError

    cdef int resume_task(self) except -1:
        """Resume the task that awaits it, if one does."""
        wake_up, context = self.wake_up, self.wake_up_context
        self.wake_up = self.wake_up_context = None
        if wake_up is not None:
            PyContext_Enter(context)
            try:
                wake_up(done_future)
            finally:
                PyContext_Exit(context)
        return 0


cdef str spawned_key = "greenwait's call"


cdef inline bint is_worker(object here) noexcept:
    """Is it the greenlet of calls, one after another, and not one of SQLAlchemy's?"""
    cdef Worker worker = worker_of(here)
    return worker is not None and worker.kind == OF_LOOP


cdef inline PendingCall call_in(object here):
    """Return the call that a worker runs; None between two of them, where a __del__ may run."""
    return <PendingCall>need_worker(here).execution


cdef PendingCall call_of(object here):
    """Return the call of a greenlet that waits in an event loop; None if it is not one."""
    return call_in(here) if is_worker(here) else here.__dict__.get(spawned_key)


@cython.auto_pickle(False)
@cython.final
cdef class EventLoop(GreenletWaiter):
    """The waiter of an asyncio event loop."""

    _instead = "use asyncio.gather() or a TaskGroup, and greenwait.aio.run() in its tasks"

    def __cinit__(self):
        self.calls = []
        self.idle = []
        self.loans = set()
        self.unregistered, self.registered = [], {}
        self.over = deque()
        self.push_over, self.pop_over = self.over.append, self.over.popleft
        self.reference = weakref.ref(self)
        self.scheduler.open()
        self.thread = PyThread_get_thread_ident()
        end_with_thread(self)

    def __dealloc__(self):
        global busy_loop
        if busy_loop is <PyObject*>self:
            busy_loop = NULL

    cdef InterruptTarget target_of(self, object here):
        cdef PendingCall call = call_of(here)
        return None if call is None else call.target

    cdef int trace_row(self, int first, object number) except -1:
        cdef PendingCall call = call_of(current_greenlet())
        if call is None:
            return 0
        if call.row < first:
            task = current_task(call.event_loop)  # it is in its first wait
            call.row = number("task", task, None if task is None else name_of_task(task))
        return call.row

    cdef int begin_call(self, PendingCall call, object here, bint can_be_late) except -1:
        """Run its function, in a greenlet, until it waits or returns; *here* is the greenlet.

        *can_be_late*: if tasks have begun calls for long, it may run in the next turn.
        """
        cdef int64_t began_ns = 0
        if not self.is_active():
            self.move_here()
        if not self.is_resuming:  # which has a limit of its own
            began_ns = monotonic_ns()
            call.is_late = can_be_late and self.begun_ns > LONGEST_TURN_NS
        # Set only during its work: greenlet frees the main greenlet of a thread that ends, even if
        # it is referenced (ThreadState's destructor takes the last reference for a leaked one).
        global busy_loop, workers_entered
        outer, self.entered_by = self.entered_by, here
        self.event_loop = call.event_loop
        busy_loop = <PyObject*>self
        cdef Worker begun
        self.add_call(call)
        call.is_beginning = True
        workers_entered += 1
        try:
            if self.idle:
                worker = self.idle.pop()
            else:
                worker = new_worker(_work, here, OF_LOOP)
                deep_call(worker.switch)  # not with the call, which the greenlet would keep
            begun = worker_of(worker)
            if begun is None:  # the call before has replaced its greenlet's __dict__
                begun = make_worker(worker, OF_LOOP)
            begun.execution = call
            switch_to(worker)
        finally:
            workers_entered -= 1
            call.is_beginning = False
            self.entered_by = outer
            if began_ns > 0:
                self.begun_ns += monotonic_ns() - began_ns
        if not call.is_over:
            try:
                self.tell_event_loop()
            except BaseException as exc:  # a signal handler's; it was begun, so it ends the call
                self.interrupt(call.target, exc, False)
        if not self.is_resuming:  # or serve() does it after that
            self.reschedule()
        return 0

    cdef bint is_active(self) noexcept:
        """Is this the thread in which its greenlets can go on?"""
        return PyThread_get_thread_ident() == self.thread

    cdef int move_here(self) except -1:
        """Move to this thread, since the event loop runs here now."""
        if self.calls:
            raise RuntimeError(
                "this event loop has run in another thread, and greenwait.aio calls that were "
                "begun there are not over"
            )
        self.idle = []  # a greenlet belongs to its thread
        self.thread = PyThread_get_thread_ident()
        end_with_thread(self)
        return 0

    cdef int end_call(self, PendingCall call) except -1:
        if not call.is_beginning:  # or its task need not be resumed
            self.push_over(call)
        return self.remove_call(call)

    cdef int add_call(self, PendingCall call) except -1:
        if not call.is_under_way:
            call.is_under_way, call.place = True, len(self.calls)
            self.calls.append(call)
        return 0

    cdef int remove_call(self, PendingCall call) except -1:
        cdef PendingCall last
        if call.is_under_way:
            call.is_under_way = False
            last = self.calls.pop()
            if last is not call:
                self.calls[call.place], last.place = last, call.place
        return 0

    cdef int bind(self, object conn) except -1:
        """Bind *conn* to the event loop that uses it first, for as long as that lives."""
        cdef EventLoop other
        bound_to = conn._event_loop
        if bound_to is self.reference:
            return 0
        if bound_to is lost:
            raise RuntimeError(CONNECTION_LOST)
        if bound_to is not None:
            other = bound_to()
            if other is not None and not other.is_closed():
                raise RuntimeError(
                    "this connection is used in another event loop: await "
                    "greenwait.aio.connect() in each, or use a pool for each"
                )
        conn._event_loop = self.reference
        return 0

    cdef int wake(self, object wakeup) except -1:
        # It runs if one of its greenlets does: this is one's, or that of another thread.
        if (self.entered_by is None or self.ended is not None) and self.is_closed():
            raise RuntimeError("the event loop of this wait is closed")
        return GreenletWaiter.wake(self, wakeup)

    cdef bint is_closed(self) except -1:
        event_loop = self.event_loop_reference()
        return event_loop is None or event_loop.is_closed()

    cdef bint postpone(self, object exc) except -1:
        here = current_greenlet()
        if is_worker(here):
            return GreenletWaiter.postpone(self, exc)
        return call_of(here).postpone_in_task(exc)

    # -- Waiting

    cdef int wait_for(
        self, int fd, int events, int64_t deadline_ns, bint draining, ConnectionState state
    ) except -1:
        if readiness_set_fileno(&self.scheduler.ready_set) >= 0:
            return GreenletWaiter.wait_for(self, fd, events, deadline_ns, draining, state)
        # Without epoll the set has no descriptor: the event loop watches the connection's for now.
        cdef SuspendedWait suspended = new_suspended_wait(fd, deadline_ns)
        cdef Registration registration = Registration.__new__(Registration)
        suspended.draining = draining
        registration.loop, registration.suspended, registration.events = self, suspended, events
        try:
            if self.scheduler.claim(suspended, events) is not None:
                self.unregistered.append(registration)
            self.suspend(suspended)
        finally:
            self.scheduler.disarm(suspended, None)
            self.forget_registration(registration)
        if registration.failure is not None:
            raise registration.failure
        return suspended.revents

    cdef int tell_event_loop(self) except -1:
        """Make the event loop watch the descriptors and the first timer of the waits begun so far.

        In the event loop's own greenlet, as all changes of what it watches: during a callback,
        libuv has the results of its poll on the C stack (uv__io_poll), and writes to them when it
        starts or stops watching a descriptor. In a call's greenlet those addresses belong to
        another part of the stack.
        """
        cdef Registration registration
        if self.ticker is None:
            self.ticker = self.event_loop.call_later(TICK_SECONDS, self.tick)
        self.start_listening()
        self.set_alarm()
        while self.unregistered:
            registration = self.unregistered[0]
            if not registration.suspended.is_due:
                self.registered[registration.suspended.fd] = registration
                try:
                    registration.begin(self.event_loop)
                except Exception as exc:
                    registration.failure = exc
                    self.make_due(registration.suspended)
            del self.unregistered[0]  # last: a signal handler may strike before
        return 0

    cdef int take_back(self) except -1:
        """Make the event loop stop watching the descriptors of the waits that are due."""
        cdef Registration registration
        for due in self.scheduler.due:
            registration = self.registered.get((<SuspendedWait>due).fd)
            if registration is not None and registration.suspended is due:
                registration.end(running_loop())
                del self.registered[registration.suspended.fd]
        return 0

    cdef int forget_registration(self, Registration registration) except -1:
        """End a registration whose wait is over; ``take_back()`` has usually done so."""
        if registration in self.unregistered:
            self.unregistered.remove(registration)
        if self.registered.get(registration.suspended.fd) is registration:
            del self.registered[registration.suspended.fd]
            if not self.is_closed():
                registration.end(self.event_loop)
        return 0

    cdef int start_listening(self) except -1:
        if not self.is_listening and self.scheduler.fileno() >= 0:
            self.event_loop.add_reader(self.scheduler.fileno(), self.serve_in_no_context)
            self.is_listening = True
        return 0

    cdef int stop_listening(self) except -1:
        if self.is_listening:
            self.event_loop.remove_reader(self.scheduler.fileno())
            self.is_listening = False
        return 0

    cdef object next_due(self, SuspendedWait suspended):
        """Return a wait that is over; without one, switch to the event loop, and return None."""
        if self.ended is not None:
            raise RuntimeError(self.ended)
        if not is_worker(suspended.greenlet):
            call_of(suspended.greenlet).suspend_task(suspended.greenlet)
            return None
        due = self.pop_due()
        if due is None:
            switch_to(self.entered_by)
        return due

    cdef object pop_due(self):
        if self.is_inherited():
            return None  # these are the parent's
        while self.is_serving and self.left_of_batch > 0 and monotonic_ns() < self.until_ns:
            self.left_of_batch -= 1
            due = self.scheduler.due.popleft()
            if (<SuspendedWait>due).is_due:
                continue
            if is_worker((<SuspendedWait>due).greenlet):
                return due
            (<SuspendedWait>due).is_due = True
            self.push_over(call_of((<SuspendedWait>due).greenlet))
        return None

    cdef int make_due(self, SuspendedWait suspended) except -1:
        self.scheduler.due.append(suspended)
        if not self.is_serving:
            self.schedule()
        return 0

    cdef int set_alarm(self) except -1:
        """Make the event loop call us when the first timer expires."""
        cdef int64_t deadline_ns = self.scheduler.timers.first_ns()
        if deadline_ns == NO_DEADLINE:
            return 0
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
        """Take the turn that was scheduled."""
        self.is_scheduled = False
        self.take_turn()

    cdef int take_turn(self) except -1:
        """Run the greenlets whose waits are over, then the tasks whose calls are."""
        cdef int64_t until_ns = monotonic_ns() + LONGEST_TURN_NS
        self.begun_ns = 0
        if self.is_inherited():
            return 0
        try:
            if not self.is_active():
                self.step_back()
            else:
                self.switch_to_due(until_ns)
                if self.calls:
                    self.tell_event_loop()
            self.resume_tasks(until_ns)
        finally:  # a signal handler may strike in a method of the event loop
            self.reschedule()
        return 0

    # These two restore the state before them for an event loop that runs within one of its own
    # callbacks, which nest_asyncio makes possible.

    cdef int switch_to_due(self, int64_t until_ns) except -1:
        """Switch to a greenlet that is due, which switches to the next one."""
        global workers_entered
        cdef bint was_serving = self.is_serving
        cdef int64_t outer_until_ns = self.until_ns
        outer = self.entered_by
        here = self.entered_by = current_greenlet()
        self.is_serving = True
        self.until_ns = NO_DEADLINE  # for the first, however long it takes to find it
        try:
            self.scheduler.poll(0)
            if self.scheduler.is_stale:  # pragma: no cover: for asyncio in a forked child
                self.stop_listening()
                self.scheduler.rebuild_set()
                self.start_listening()
            if self.registered:
                self.take_back()
            self.left_of_batch = len(self.scheduler.due)
            due = self.pop_due()
            self.until_ns = until_ns
            if due is not None:
                workers_entered += 1
                try:
                    self.go_on(due, here)
                finally:
                    workers_entered -= 1
        finally:
            self.is_serving, self.until_ns = was_serving, outer_until_ns
            self.entered_by, self.left_of_batch = outer, 0
        return 0

    cdef int resume_tasks(self, int64_t until_ns) except -1:
        """Resume the tasks whose calls are over by now.

        A task may begin its next call at once; if that ends too, it is left for the next time.
        """
        cdef bint was_resuming = self.is_resuming
        cdef Py_ssize_t left = len(self.over)
        cdef PendingCall call
        self.is_resuming = True
        try:
            while left > 0 and self.over:  # an event loop that runs in a task takes them, too
                left -= 1
                call = self.pop_over()
                call.resume_task()
                if monotonic_ns() > until_ns:
                    break
        finally:
            self.is_resuming = was_resuming
        return 0

    def serve_in_no_context(self):
        """Take a turn outside of the context, when the descriptor is ready.

        asyncio has one handle for the descriptor, with one context, which can't be entered twice:
        an event loop that runs within a task that is resumed here, nest_asyncio's, enters it again.
        """
        cdef PyObject* entered = entered_context()
        if entered is NULL:
            self.take_turn()
            return
        context = <object>entered
        PyContext_Exit(context)
        try:
            self.take_turn()
        finally:
            PyContext_Enter(context)

    cdef int step_back(self) except -1:
        """Watch nothing while the event loop runs in another thread than its calls; check later."""
        if self.event_loop is not None:
            self.stop_listening()
            if self.registered:
                self.take_back()
            if self.ticker is not None:
                self.ticker.cancel()
            self.ticker = self.event_loop.call_later(AWAY_SECONDS, self.tick)
        return 0

    def expire(self):
        """Serve the waits whose time is up."""
        self.timer = None
        self.take_turn()

    def tick(self):
        """Check for descriptors that were closed during a wait, and for the right thread."""
        self.ticker = None
        if self.is_inherited():
            return
        event_loop = running_loop()
        if not self.calls:
            if self.is_listening:
                event_loop.remove_reader(self.scheduler.fileno())
                self.is_listening = False
        elif self.is_active():
            self.ticker = event_loop.call_later(TICK_SECONDS, self.tick)
            self.take_turn()
        else:
            self.step_back()

    cdef int reschedule(self) except -1:
        """Schedule ``serve()`` if it is needed; if no call is under way, release the event loop."""
        if self.over or ((self.scheduler.due or self.unregistered) and self.is_active()):
            return self.schedule()
        if not self.calls:
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None
            self.event_loop = None
        return 0

    # -- The end

    def end(self):
        """Make all calls fail, since the event loop is closed, and release everything."""
        cdef PendingCall call
        if self.is_inherited():
            return
        calls = list(self.calls)
        for call in calls:
            if call.conn is not None:
                call.conn._event_loop = lost
        self.ended = LOOP_CLOSED
        if self.is_active() and not Py_IsFinalizing():
            self.fail_calls()
        for call in [*calls, *self.over]:  # their tasks are the event loop's
            call.wake_up = call.wake_up_context = None
        self.over.clear()
        self.event_loop = self.timer = self.ticker = None
        loans, self.loans = self.loans, set()
        for loan in loans:
            (<Loan>loan).give_up(*(<Loan>loan).args)
        self.close_if_unused()

    cdef int leave_thread(self) except -1:
        """Leave this thread, which ends: calls that wait in it can't go on, and fail."""
        if not self.is_active() or self.is_inherited():
            return 0
        was_ended = self.ended
        if self.calls:
            self.ended = self.ended or THREAD_ENDED
            self.fail_calls()
            self.ended = was_ended
        self.idle = []
        self.thread = 0  # the number may be reused soon
        if was_ended is not None:
            self.close_if_unused()
        elif self.over:  # in whichever thread the event loop runs
            self.event_loop.call_soon_threadsafe(self.serve)
        return 0

    cdef int fail_calls(self) except -1:
        """Make each call raise the reason; if it waits again, it raises that again at once."""
        global workers_entered
        cdef PendingCall call
        outer = self.entered_by
        here = self.entered_by = current_greenlet()
        workers_entered += 1
        calls = list(self.calls)
        conns = [call.conn for call in calls if call.conn is not None]
        for call in calls:
            if call.target is not None and call.target.innermost is not None:
                call.target.interruption = RuntimeError(self.ended)
                call.target.wait_for_drain = False
                if is_worker(call.target.innermost.greenlet):
                    self.go_on(call.target.innermost, here)
                elif call.target.innermost.greenlet.parent is here:
                    try:
                        self.go_on(call.target.innermost, here)
                    except (Exception, cancelled_error):
                        pass  # it is for a task, which is lost with the event loop
        self.entered_by = outer
        workers_entered -= 1
        for conn in conns:
            if not conn._lock.is_taken:
                conn.close()  # if psycopg2 has not: the query may have ended just then
        self.scheduler.due.clear()
        self.scheduler.timers.clear()
        return 0

    cdef int close_if_unused(self) except -1:
        if not self.calls and self.scheduler.is_open:
            self.idle = []
            self.scheduler.watched = []
            self.is_listening = False
            self.scheduler.close()
        return 0


@cython.auto_pickle(False)
@cython.final
@cython.internal
cdef class Guests:
    """The event loops that run in a thread; freed as the thread ends, while greenlets still run."""

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


cdef int end_with_thread(EventLoop loop) except -1:
    """Make *loop* leave this thread when the thread ends."""
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
    """Wrap the event loop's ``close()``, which has no hook, so that our calls end with it.

    An event loop that is never closed calls it when it is freed. A weak reference would be dead
    by then.
    """
    own_close = vars(event_loop).get("close")  # another wrapper of it

    def close(event_loop):
        try:
            if own_close is None:
                type(event_loop).close(event_loop)
            else:
                own_close()
        finally:
            if event_loop.is_closed():
                # Otherwise the event loop would be in a reference cycle.
                if getattr(vars(event_loop).get("close"), "__func__", None) is close:
                    del event_loop.close
                    if own_close is not None:
                        event_loop.close = own_close
                event_loop._greenwait.end()

    event_loop.close = MethodType(update_wrapper(close, type(event_loop).close), event_loop)


@cython.auto_pickle(False)
@cython.final
cdef class Registration:  # pragma: no cover: where there is no epoll(7)
    """A descriptor that the event loop watches for one wait, and the callback for it."""

    def __call__(self):
        if not self.loop.is_inherited():
            self.suspended.revents = self.events
            self.loop.scheduler.due.append(self.suspended)
            self.loop.schedule()  # one turn for all of them

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
    """Run one call after another, as a worker."""
    cdef EventLoop loop
    cdef PendingCall call
    cdef Worker mine
    cdef PyObject* here  # without a reference: it would keep itself
    worker = current_greenlet()
    here = <PyObject*>worker
    next_greenlet = worker.parent
    worker = None
    while True:
        switch_to(next_greenlet)
        mine = need_worker(<object>here)
        call = <PendingCall>mine.execution
        loop = call.loop
        call.run()
        mine.execution = None
        loop.end_call(call)
        due = loop.pop_due()
        next_greenlet = loop.entered_by if due is None else (<SuspendedWait>due).greenlet
        if next_greenlet is None:  # it has ended by itself: nobody has the greenlet any more
            return
        loop.idle.append(<object>here)
        if due is not None:
            (<SuspendedWait>due).is_due = True
        # An idle worker keeps nothing: neither its loop, which has it, nor itself.
        loop = call = due = None


# -- Which loop?

# The one that has begun a call last, while it exists; without a reference, which would keep it.
cdef PyObject* busy_loop = NULL


cdef str name_of_task(object task):
    """Return the name that a task was given, and that of its function."""
    function = getattr(task.get_coro(), "__qualname__", "")
    return f"{task.get_name()}, {function}" if function else task.get_name()


cdef PendingCall call_of_worker(object here):
    """Return the call whose greenlet it is, or None; in a child that was forked there, None."""
    cdef PendingCall call = call_in(here) if is_worker(here) else None
    return None if call is None or call.loop is None or call.loop.is_inherited() else call


cdef bint is_below_call(object here) except -1:
    """Is it the greenlet of a call? It no longer is in a child that was forked there."""
    return call_of_worker(here) is not None


cdef EventLoop loop_of(object event_loop):
    """Return the scheduler of an event loop that runs in this thread, made on first use."""
    if busy_loop is not NULL and (<EventLoop>busy_loop).event_loop is event_loop:
        return <EventLoop>busy_loop
    loop = getattr(event_loop, "_greenwait", None)
    if loop is None:
        check_registered("greenwait.aio")
        check_no_other()
        loop = known_loop_of(event_loop)
    return loop


cdef EventLoop known_loop_of(object event_loop):
    """Return the scheduler of an event loop whose calls may wait here."""
    cdef EventLoop loop = getattr(event_loop, "_greenwait", None)
    if loop is None:
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
    return loop is not None and loop.is_inherited()


def end_connection(conn):
    """Shut down a connection whose task was lost in another thread, with the mutex held.

    It can't be closed, but the server can be told that the client is gone. Returns whether it is
    such a connection.
    """
    if conn._event_loop is not lost or not conn._lock.is_taken or conn.closed:
        return False
    borrowed = socket.socket(fileno=conn.fileno())  # not os.dup(): on Windows it takes files only
    try:
        borrowed.shutdown(socket.SHUT_RDWR)
    finally:
        borrowed.detach()
    return True


@cython.auto_pickle(False)
@cython.final
cdef class Loan:
    """A pool's loan to a task of the event loop that runs here.

    *give_up* is called with *args* if the event loop is closed before the loan is over.
    """

    cdef EventLoop loop
    cdef object give_up
    cdef tuple args

    def __init__(self, give_up, *args):
        self.loop = loop_of(running_loop())
        self.give_up, self.args = give_up, args
        self.loop.loans.add(self)

    def end(self):
        """End the loan; return whether it was still open, and is this process's."""
        cdef EventLoop loop = self.loop
        cdef bint was_open = loop is not None and self in loop.loans
        self.loop = self.give_up = self.args = None
        if not was_open:
            return False
        loop.loans.discard(self)
        return not loop.is_inherited()


cdef int check_no_other() except -1:
    """Raise if a greenwait hub, or gevent's, around the event loop has all the thread's waits."""
    waiter = waiter_here() if waiters_entered > 0 else None
    if waiter is not None:
        raise RuntimeError(
            "greenwait.aio waits in asyncio's event loop, and in this thread another one "
            f"waits: {waiter._instead}"
        )
    return 0


@cython.auto_pickle(False)
@cython.final
@cython.internal
cdef class AioAdapter(Adapter):
    """The adapter of asyncio, for all threads that run an event loop."""

    cdef Waiter find_waiter(self):
        cdef PendingCall call = call_of_worker(current_greenlet())
        return None if call is None else call.loop


cdef AioAdapter adapter = AioAdapter()
