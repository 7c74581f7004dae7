"""Who waits? A greenlet, while others of its thread go on: the hub.

A job is a function that runs in a greenlet. Where it would wait for the server it steps
aside: the descriptor is armed, and the next greenlet that is due goes on. There is no
greenlet for the loop: whoever steps aside and finds nobody due looks for what is ready,
sleeps if nothing is, and switches straight to whoever it is for, or just returns if that
is itself.

All of a hub happens in one thread. Everything a greenlet may be switched away from lies in
objects: its C stack is copied away meanwhile, and pointers into it lead nowhere.
"""

cimport cython
from cpython.contextvars cimport PyContext_CopyCurrent
from cpython.exc cimport PyErr_CheckSignals
from cpython.pythread cimport PyThread_get_thread_ident
from libc.errno cimport EINTR
from libc.stdint cimport int64_t, uint32_t

from greenwait._deadline cimport after, checked_seconds, to_ns
from greenwait._delivery cimport pending_count, take_undelivered
from greenwait._known cimport Known
from greenwait._monotonic cimport NO_DEADLINE, monotonic_ns
from greenwait._readiness cimport READINESS_READ
from greenwait._readiness_set cimport (
    readiness_set_arm,
    readiness_set_close,
    readiness_set_disarm,
    readiness_set_open,
    readiness_set_t,
    readiness_set_wait,
    readiness_t,
)
from greenwait._sleep cimport is_main_thread
from greenwait._stats cimport counters
from greenwait._waiter cimport (
    Bell,
    Waiter,
    enter_waiter,
    leave_waiter,
    waiter_here,
    waiters_entered,
)

import heapq
import os
import sys
from collections import deque
from concurrent.futures import CancelledError

from greenlet import GreenletExit, getcurrent, greenlet

from greenwait._callback import WaitCallback, wait
from greenwait._psycopg2 import get_wait_callback

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

__all__ = ["Hub", "Job", "hub_here", "join", "raise_first"]

# Module-level C variables outlive the module's dict: a generator of map()'s that is closed
# at interpreter exit still finds them.
cdef object current_greenlet = getcurrent
cdef object greenlet_exit = GreenletExit
cdef object switch_to = greenlet.switch  # a look-up of the method costs as much as the call
cdef object push = heapq.heappush
cdef object pop = heapq.heappop
cdef object heapify = heapq.heapify
cdef type NoneType = type(None)

cdef enum:
    BATCH = 128

# Signals that come just before the sleep, and descriptors that were closed under a wait,
# are noticed this late.
cdef int64_t LOOK_UP_NS = 50_000_000
cdef int64_t LOOK_FOR_CLOSED_NS = 1_000_000_000


# -- Who is switched to

class _Worker(greenlet):
    """The greenlet of one job after another: a new one costs more than many a query."""

    __slots__ = ("seat",)


cdef object Worker = _Worker


@cython.auto_pickle(False)
@cython.final
@cython.internal
cdef class Seat:
    """What a greenlet has that can be interrupted: each job, and whoever entered the hub."""

    cdef Parked innermost     # where it waits, if it does
    cdef object interruption  # to be raised there, or where it waits next
    cdef object raised        # it was
    cdef bint is_patient      # ... but not where it waits for the end of an interrupted query


@cython.auto_pickle(False)
@cython.final
@cython.internal
cdef class Parked:
    """One wait of one greenlet."""

    cdef object greenlet
    cdef bint is_due
    cdef bint is_stopping     # it waits for the end of an interrupted query
    cdef int fd               # < 0: none
    cdef uint32_t turn        # tells its readiness from that of another wait
    cdef int revents
    cdef int64_t deadline_ns


cdef Parked a_parked(int fd, int64_t deadline_ns):
    cdef Parked parked = Parked.__new__(Parked)
    parked.fd = fd
    parked.deadline_ns = deadline_ns
    return parked


# -- Jobs

cdef enum:
    WAITING_TO_RUN
    RUNNING
    DONE


@cython.auto_pickle(False)
@cython.final
cdef class Job:
    """A call of a function in a greenlet of its own; ``Hub.spawn()`` makes them."""

    cdef Hub hub
    cdef object call          # (function, args, kwargs); None once it runs
    cdef object context
    cdef Seat seat
    cdef int state
    cdef object value
    cdef object exception_raised
    cdef bint was_told        # to end, once
    cdef bint is_cancelled
    cdef bint is_asked_for    # a failure need not be raised at the end of the block
    cdef list watchers        # who waits for the end

    def __init__(self):
        raise TypeError("a Job is made by Hub.spawn()")

    def done(self):
        """Return whether it has ended, in whichever way."""
        return self.state == DONE

    def result(self, timeout=None):
        """Return what the function has returned, or raise what it has raised.

        :param timeout: seconds to wait for that; None waits as long as it takes.
        :raises TimeoutError: it is still at work.
        :raises concurrent.futures.CancelledError: it was cancelled.
        :raises RuntimeError: called in another thread than the hub's, or by the job itself.

        Other jobs go on meanwhile. A signal handler's exception ends the wait where the
        hub was entered.
        """
        cdef int64_t deadline_ns = NO_DEADLINE
        if timeout is not None:
            deadline_ns = after(to_ns(checked_seconds("timeout", timeout, ", or None")))
        self.hub.check_thread("result()")
        if self.state != DONE:
            if seat_of(self.hub, current_greenlet()) is self.seat:
                raise RuntimeError("a job can't wait for its own result")
            wait_for_jobs(self.hub, [self], deadline_ns)
            if self.state != DONE:
                raise TimeoutError(f"the job is still at work after {timeout:g} s")
        self.hub.failed.pop(self, None)
        if self.is_cancelled:
            raise CancelledError("the job was cancelled")
        if self.exception_raised is not None:
            raise self.exception_raised
        return self.value

    def cancel(self):
        """Have the job's wait raise ``greenlet.GreenletExit``; its query stops on the server.

        :returns: whether there was something to cancel: False once it is done.
        :raises RuntimeError: called in another thread than the hub's.

        One that has not begun never does. It does not wait for the end: ``result()`` does.
        A query that is being stopped already, by a deadline for instance, is left to that,
        and the exception raised by the wait after it. A second cancel does not wait for the
        server any more, and costs the connection.
        """
        self.hub.check_thread("cancel()")
        if self.state == DONE:
            return False
        if self.state == WAITING_TO_RUN:
            self.is_cancelled = True
            self.finish()
        else:
            self.hub.interrupt(self.seat, greenlet_exit(), not self.was_told)
            self.was_told = True
        return True

    def __repr__(self):
        state = ("waiting to run", "running", "done")[self.state]
        return f"<greenwait.Job {state}{', cancelled' if self.is_cancelled else ''}>"

    cdef int run(self) except -1:
        """Call the function; nothing comes out of it but a bug."""
        function, args, kwargs = self.call
        self.call = None
        self.state = RUNNING
        try:
            self.value = self.context.run(function, *args, **kwargs)
        except BaseException as exc:  # by its instance: its class may be told only by that
            self.exception_raised = exc
        # An interrupt beside an error: it may be that no Python code of the job's came after.
        undelivered = take_undelivered()
        if undelivered is not None:
            self.exception_raised = undelivered
        if isinstance(self.exception_raised, greenlet_exit):
            self.is_cancelled = True
        elif not isinstance(self.exception_raised, (Exception, NoneType)):
            self.is_asked_for = True  # KeyboardInterrupt, SystemExit
            self.hub.interrupt(self.hub.seat, self.exception_raised, False)
        self.finish()
        return 0

    cdef int finish(self) except -1:
        self.state = DONE
        self.call = self.context = None
        self.hub.jobs.discard(self)
        if self.exception_raised is not None and not (self.is_cancelled or self.is_asked_for):
            self.hub.failed[self] = True
        for watcher in self.watchers:
            self.hub.make_due(watcher)
        self.watchers = []
        return 0


cdef Seat seat_of(Hub hub, object here):
    """Return the seat of a greenlet; None if it has none."""
    if type(here) is Worker:
        return here.seat
    return hub.seat if here is hub.entered_by else None


def join(Hub hub, jobs, failure=None):
    """Wait until *jobs* are done; cancel them if there is a failure, or when one comes.

    Returns the last failure. A second one ends what a job does because of the first. What
    the jobs have come to matters to nobody then.
    """
    cdef Job job
    cdef Seat seat
    if failure is not None:
        nobody_will_ask(hub, jobs)
    if hub.seat.interruption is None and all_done(jobs):
        return failure  # also at interpreter exit, when greenlet is no more
    seat = seat_of(hub, current_greenlet())
    while True:
        if failure is not None:
            nobody_will_ask(hub, jobs)
            for job in jobs:
                if job.state != DONE:
                    job.cancel()
        try:
            if seat is not None:
                hub.raise_interruption(seat, a_parked(-1, NO_DEADLINE))
            wait_for_jobs(hub, jobs, NO_DEADLINE)
            return failure
        except BaseException as exc:
            if seat is None or exc is not seat.raised:
                raise
            seat.raised = None
            failure = exc


cdef int nobody_will_ask(Hub hub, jobs) except -1:
    cdef Job job
    for job in jobs:
        job.is_asked_for = True
        hub.failed.pop(job, None)
    return 0


cdef bint all_done(jobs) except *:
    cdef Job job
    for job in jobs:
        if job.state != DONE:
            return False
    return True


def hub_here():
    """Return the hub that is at work in this thread, or None."""
    waiter = waiter_here() if waiters_entered > 0 else None
    return waiter if isinstance(waiter, Hub) else None


cdef int wait_for_jobs(Hub hub, jobs, int64_t deadline_ns) except -1:
    """Step aside until all of them are done, or the deadline has passed."""
    cdef Parked parked
    cdef Job job
    for job in jobs:
        while job.state != DONE and monotonic_ns() < deadline_ns:
            parked = a_parked(-1, deadline_ns)
            job.watchers.append(parked)
            try:
                hub.park(parked)
            finally:
                if job.state != DONE:
                    job.watchers.remove(parked)
    return 0


# -- The hub

@cython.auto_pickle(False)
@cython.final
cdef class Hub(Waiter):
    """Hub()
--

    A ``with`` block in which this thread runs many jobs at once, each in a greenlet.

    Wherever a job waits for the server, through greenwait's callback, another one goes
    on; so does the block's own code. Leaving the block waits for all jobs, and raises
    what one of them has raised if nobody has asked for its result. An exception in the
    block cancels them: their queries stop on the server, their connections stay usable.

    Ctrl-C is raised where the block waits, as is any other exception of a signal handler.

    :raises RuntimeError: entered where a hub is at work already, or again.
    """

    cdef readiness_set_t ready_set
    cdef bint is_open
    cdef unsigned long thread
    cdef bint is_main_thread
    cdef object entered_by      # the greenlet
    cdef Seat seat              # its own
    cdef set jobs               # that are not done
    cdef dict failed            # jobs whose failure nobody has heard of yet, in that order
    cdef list idle              # workers
    cdef object due             # jobs to begin and waits that are over, in that order
    cdef Py_ssize_t left_of_batch
    cdef list armed             # waits, or None, by descriptor
    cdef list timers            # a heap
    cdef uint32_t turns
    cdef Py_ssize_t timers_left  # when they were cleared last
    cdef int64_t last_look_ns   # for descriptors that were closed
    cdef Bell bell              # for other threads; None as long as nobody waits for these
    cdef object called          # waits that they have ended

    def __cinit__(self):
        self.jobs = set()
        self.failed = {}
        self.idle = []
        self.due = deque()
        self.called = deque()
        self.armed = []
        self.timers = []

    def __dealloc__(self):
        if self.is_open:
            readiness_set_close(&self.ready_set)

    def __enter__(self):
        if self.entered_by is not None:
            raise RuntimeError("a Hub is for one with block; make another for the next")
        check_can_enter()
        cdef int rc = readiness_set_open(&self.ready_set)
        if rc < 0:
            raise OSError(-rc, f"no descriptor for a hub: {os.strerror(-rc)}")
        self.is_open = True
        self.thread = PyThread_get_thread_ident()
        self.is_main_thread = is_main_thread()
        self.entered_by = current_greenlet()
        self.seat = Seat.__new__(Seat)
        self.last_look_ns = monotonic_ns()
        enter_waiter(self)
        return self

    def __exit__(self, kind, exc, traceback):
        self.check_thread("leaving the block")
        if current_greenlet() is not self.entered_by:
            raise RuntimeError("the block is to be left by the greenlet that has entered it")
        failure = exc
        while self.jobs or self.seat.interruption is not None:
            failure = join(self, list(self.jobs), failure)
        self.close()
        if failure is None:
            if self.failed:
                raise_first([exception_of(job) for job in self.failed])
        elif failure is not exc:
            raise failure

    def spawn(self, function, /, *args, **kwargs):
        """Have ``function(*args, **kwargs)`` run as a job, and return that ``Job``.

        It begins when this greenlet waits next, in a copy of its context variables, so that
        an outer ``greenwait.timeout()`` holds for it too.

        :raises RuntimeError: called in another thread, or outside of the block.
        """
        self.check_thread("spawn()")
        if not callable(function):
            raise TypeError(f"spawn() takes a function, not {type(function).__name__!r}")
        cdef Job job = Job.__new__(Job)
        job.hub = self
        job.call = (function, args, kwargs)
        job.context = PyContext_CopyCurrent()
        job.seat = Seat.__new__(Seat)
        job.watchers = []
        self.jobs.add(job)
        self.due.append(job)
        return job

    def sleep(self, seconds, /):
        """Let other jobs go on for so many seconds; 0 lets those that are due.

        :raises RuntimeError: called in another thread, or outside of the block.
        """
        self.check_thread("sleep()")
        cdef int64_t duration_ns = to_ns(checked_seconds("seconds", seconds, ""))
        cdef Parked parked = a_parked(-1, NO_DEADLINE if duration_ns == 0 else after(duration_ns))
        if duration_ns == 0:
            self.make_due(parked)
        self.park(parked)

    # What is below is called in the hub's thread only.

    cdef int check_thread(self, str what) except -1:
        if not self.is_open:
            raise RuntimeError(f"{what}: the hub's with block is over, or has not begun")
        if PyThread_get_thread_ident() != self.thread:
            raise RuntimeError(f"{what}: a hub is its thread's alone; this is another one")
        return 0

    cdef int close(self) except -1:
        """Let go of everything; there are no jobs any more."""
        leave_waiter()
        while self.idle:
            self.idle.pop().switch(None)  # it returns, to its parent, which is here
        readiness_set_close(&self.ready_set)
        self.bell = None
        self.is_open = False
        return 0

    cdef int wait_for(
        self, int fd, int events, int64_t deadline_ns, bint is_stopping, Known connection
    ) except -1:
        cdef Parked parked = a_parked(fd, deadline_ns)
        parked.is_stopping = is_stopping
        cdef int rc
        if self.armed_at(fd) is not None:  # another greenlet waits on it: look now and then
            parked.fd = -1
            parked.deadline_ns = min(deadline_ns, after(10_000_000))
            parked.revents = events
            self.park(parked)
            return parked.revents
        self.turns += 1
        if self.turns == 0:
            self.turns = 1  # 0 is the bell's
        parked.turn = self.turns
        rc = readiness_set_arm(&self.ready_set, fd, events, parked.turn)
        if rc < 0:
            return rc
        self.armed[fd] = parked
        try:
            self.park(parked)
        except BaseException:
            self.disarm(parked)
            raise
        if parked.revents == 0:
            self.disarm(parked)
        return parked.revents

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
        cdef int rc = readiness_set_arm(&self.ready_set, self.bell.fileno(), READINESS_READ, 0)
        if rc < 0:
            raise OSError(-rc, os.strerror(-rc))
        return 0

    cdef int answer_bell(self) except -1:
        """See whom other threads have called."""
        self.bell.silence()  # first: what is called from now on rings again
        self.listen()
        while self.called:
            self.make_due(self.called.popleft())
        return 0

    cdef Parked armed_at(self, int fd):
        """Return the wait for this descriptor, or None; make a place for one."""
        if fd >= len(self.armed):
            self.armed += [None] * (fd + 64 - len(self.armed))
        return self.armed[fd]

    cdef int disarm(self, Parked parked) except -1:
        if parked.fd >= 0 and self.armed_at(parked.fd) is parked:
            self.armed[parked.fd] = None
            readiness_set_disarm(&self.ready_set, parked.fd)
        return 0

    cdef int park(self, Parked parked) except -1:
        """Let others go on until it is due; raise what interrupts this greenlet."""
        here = current_greenlet()
        cdef Seat seat = seat_of(self, here)
        cdef Parked outer = None
        parked.greenlet = here
        if pending_count > 0:
            undelivered = take_undelivered()
            if undelivered is not None:
                raise undelivered
        if seat is not None:
            self.raise_interruption(seat, parked)
            outer, seat.innermost = seat.innermost, parked
        if parked.deadline_ns != NO_DEADLINE:
            self.set_timer(parked)
        try:
            while not parked.is_due:
                due = self.next_due(parked)
                if due is not None:
                    self.go_on(due, here)
        finally:
            parked.is_due = True  # for its timer
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

    cdef int go_on(self, object due, object here) except -1:
        """Switch to whoever *due* is for, unless that is *here*."""
        cdef Parked parked
        if isinstance(due, Job):
            if self.idle:
                worker = self.idle.pop()
            elif here is self.entered_by or self.seat.innermost is None:
                worker = Worker(_work, self.entered_by)
            else:
                # A greenlet begins at the depth of recursion, and of the C stack, of whoever
                # starts it: so that is always the one that waits outermost.
                self.due.appendleft(due)
                self.left_of_batch += 1
                switch_to(self.entered_by)
                return 0
            worker.switch(due)
            return 0
        parked = due
        parked.is_due = True
        if parked.greenlet is not here:
            switch_to(parked.greenlet)
        return 0

    cdef int interrupt(self, Seat seat, object exc, bint is_patient) except -1:
        """Have its wait, now or next, raise *exc*."""
        seat.interruption = exc
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

    cdef object next_due(self, Parked own):
        """Return a job to begin, or a wait that is over, as soon as there is one.

        None when *own* is: a signal handler that waited in this greenlet has seen to that.
        """
        while True:
            while self.left_of_batch > 0:
                self.left_of_batch -= 1
                due = self.due.popleft()
                if isinstance(due, Job):
                    if (<Job>due).state == WAITING_TO_RUN:
                        return due
                elif not (<Parked>due).is_due:
                    return due
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
        cdef Parked parked
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
            parked = self.armed_at(ready[i].fd)
            if parked is not None and parked.turn == ready[i].turn:
                self.armed[ready[i].fd] = None
                parked.revents = ready[i].revents
                self.due.append(parked)
        while self.timers and self.timers[0][0] <= now_ns:
            parked = pop(self.timers)[2]
            if not parked.is_due:
                self.due.append(parked)
        if now_ns - self.last_look_ns >= LOOK_FOR_CLOSED_NS:
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
        cdef int64_t until_ns = now_ns + (LOOK_UP_NS if self.is_main_thread else LOOK_FOR_CLOSED_NS)
        if self.timers:
            until_ns = min(until_ns, <int64_t>self.timers[0][0])
        return <int>max(0, (until_ns - now_ns + 999_999) // 1_000_000)

    cdef int look_for_closed(self) except -1:
        """Somebody may have closed a descriptor under a wait, which epoll keeps to itself."""
        cdef Parked parked
        for fd, parked in enumerate(self.armed):
            if parked is None:
                continue
            try:
                os.fstat(fd)
            except OSError as exc:
                self.armed[fd] = None
                parked.revents = -exc.errno
                self.due.append(parked)
        return 0


def _work(Job job):
    """The life of a worker: a job, and the next one."""
    cdef Hub hub = job.hub
    here = current_greenlet()
    while job is not None:
        here.seat = job.seat
        job.run()
        here.seat = None
        due = hub.next_due(None)
        if isinstance(due, Job):
            job = due
        else:
            job = None  # it may be gone before the next one comes
            hub.idle.append(here)
            (<Parked>due).is_due = True
            job = switch_to((<Parked>due).greenlet)  # until somebody hands over a job, or None


cdef int check_can_enter() except -1:
    cdef Waiter waiter = waiter_here() if waiters_entered > 0 else None
    if isinstance(waiter, Hub):
        raise RuntimeError(
            "a hub is at work in this thread: use its spawn(), or greenwait.gather() or map(), "
            "which join in"
        )
    if waiter is not None:
        raise RuntimeError(f"a hub would stop the others of this thread: {waiter.instead}")
    registered = get_wait_callback()
    if registered is not wait and not isinstance(registered, WaitCallback):
        raise RuntimeError(
            f"a hub needs greenwait's wait callback, and {registered!r} is registered: call "
            "greenwait.install() first"
        )
    return 0


cdef object exception_of(Job job):
    return job.exception_raised


def raise_first(failures):
    """Raise the first of several; the others are its cause, if it has none of its own."""
    first, *others = failures
    if others and first.__cause__ is None:
        first.__cause__ = (
            others[0] if len(others) == 1 else BaseExceptionGroup("these failed too", others)
        )
    raise first
