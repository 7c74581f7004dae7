"""The hub: many jobs on one thread, each in a greenlet.

A job is a function that runs in a greenlet. The hub has no greenlet of its own: one that steps
aside and finds none due polls the descriptors, and sleeps if none is ready.
"""

cimport cython
from cpython.contextvars cimport PyContext_CopyCurrent
from cpython.exc cimport PyErr_CheckSignals
from cpython.pythread cimport PyThread_get_thread_ident
from libc.stdint cimport int64_t

from greenwait._deadline cimport after, checked_seconds, to_ns
from greenwait._greenlets.execution cimport Execution
from greenwait._greenlets.local cimport OF_HUB, Worker, make_worker, new_worker, worker_of
from greenwait._greenlets.scheduler cimport SuspendedWait, new_suspended_wait
from greenwait._synchronous cimport check_synchronous
from greenwait._greenlets.waiter cimport GreenletWaiter, InterruptTarget
from greenwait._ranks cimport higher
from greenwait._system.clock cimport NO_DEADLINE, monotonic_ns
from greenwait._system.periods cimport CLOSED_NS, SIGNALS_NS
from greenwait._system.sealed_type cimport seal_type
from greenwait._system.switching cimport current_greenlet, switch_to
from greenwait._system.threads cimport is_main_thread
from greenwait._waiter cimport (
    Waiter,
    enter_waiter,
    keep_waiter,
    leave_waiter,
    waiter_here,
    waiters_entered,
)

import sys
from collections.abc import Callable
from concurrent.futures import CancelledError
from types import GenericAlias
from typing import ParamSpec, TypeVar

from greenlet import GreenletExit

from greenwait._elsewhere import Elsewhere, refusing
from greenwait._install import check_registered

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

__all__ = [
    "Hub",
    "Job",
    "SharedHub",
    "each_in_shared_hub",
    "hub_here",
    "in_shared_hub",
    "join",
    "raise_first",
]

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

cdef object greenlet_exit = GreenletExit
cdef type NoneType = type(None)


cdef inline Job job_of(object here):
    """Return the job of a hub's worker; None between two of them, and for another greenlet."""
    cdef Worker worker = worker_of(here)
    return <Job>worker.execution if worker is not None and worker.kind == OF_HUB else None


cdef enum:
    WAITING_TO_RUN
    RUNNING
    DONE


@cython.auto_pickle(False)
@cython.final
cdef class Job(Execution):
    """Job()
--

    A call of a function in a greenlet of its own; ``Hub.spawn()`` makes them."""

    cdef Hub hub
    cdef int state
    cdef bint was_told        # to end, once
    cdef bint is_cancelled
    cdef bint failure_retrieved  # a failure need not be raised at the end of the block
    cdef list watchers        # the waits for its end

    __class_getitem__ = classmethod(GenericAlias)  # Job[int] is a type to annotate with

    def done(self) -> bool:
        """Return whether it has ended: returned, failed or been cancelled."""
        return self.state == DONE

    def result(self, timeout: float | None = None) -> _Result:
        """Return what the function has returned, or raise what it has raised.

        :param timeout: seconds to wait for that; None sets no limit.
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
            if self.hub.target_of(current_greenlet()) is self.target:
                raise RuntimeError("a job can't wait for its own result")
            wait_for_jobs(self.hub, [self], deadline_ns)
            if self.state != DONE:
                raise TimeoutError(f"the job is still at work after {timeout:g} s")
        self.hub.failed.pop(self, None)
        if self.is_cancelled:
            raise CancelledError("the job was cancelled")
        return self.outcome()

    def cancel(self) -> bool:
        """Make the job's wait raise ``greenlet.GreenletExit``; its query stops on the server.

        :returns: whether there was something to cancel: False once it is done.
        :raises RuntimeError: called in another thread than the hub's.

        A job that has not begun never begins. This does not wait for the end; ``result()``
        does. If the query is being stopped already, by a deadline for instance, the exception
        is raised after that. A second cancel does not wait for the server any more, and costs
        the connection.
        """
        self.hub.check_thread("cancel()")
        if self.state == DONE:
            return False
        if self.state == WAITING_TO_RUN:
            self.is_cancelled = True
            self.finish()
        else:
            self.hub.interrupt(self.target, greenlet_exit(), not self.was_told)
            self.was_told = True
        return True

    get = Elsewhere("Job.get", "it is result()")
    join = Elsewhere("Job.join", "it is result(), which waits, too")

    def __repr__(self):
        state = ("waiting to run", "running", "done")[self.state]
        return f"<greenwait.Job {state}{', cancelled' if self.is_cancelled else ''}>"

    cdef int run(self) except -1:
        """Call the function, and keep its outcome; only a bug raises here."""
        self.state = RUNNING
        self.execute()
        self.deliver_late()
        if isinstance(self.exception_raised, greenlet_exit):
            self.is_cancelled = True
        elif not isinstance(self.exception_raised, (Exception, NoneType)):
            self.failure_retrieved = True  # KeyboardInterrupt, SystemExit
            self.hub.interrupt(self.hub.target, self.exception_raised, False)
        self.finish()
        return 0

    cdef int finish(self) except -1:
        self.state = DONE
        self.function = self.args = self.kwargs = self.context = None
        self.hub.jobs.discard(self)
        if self.exception_raised is not None and not (self.is_cancelled or self.failure_retrieved):
            self.hub.failed[self] = True
        for watcher in self.watchers:
            self.hub.make_due(watcher)
        self.watchers = []
        return 0


seal_type(Job, "a Job is made by Hub.spawn()")


def join(Hub hub not None, jobs, failure=None):
    """Wait until *jobs* are done; cancel them if there is a failure, or when one comes.

    Returns the failure, or the higher one of two. A second one interrupts what a job does
    because of the first. After a failure, those of the jobs are not raised.
    """
    cdef Job job
    cdef InterruptTarget target
    if hub.is_inherited():
        return failure
    if failure is not None:
        suppress_failures(hub, jobs)
    if hub.target.interruption is None and all_done(jobs):
        return failure  # also at interpreter exit, when the greenlet module is gone
    hub.check_thread("waiting for its jobs")
    keep_waiter(hub)  # waits must step aside meanwhile, not stop the thread
    target = hub.target_of(current_greenlet())
    while True:
        if failure is not None:
            suppress_failures(hub, jobs)
            for job in jobs:
                if job.state != DONE:
                    job.cancel()
        try:
            if target is not None:
                hub.raise_interruption(target, new_suspended_wait(-1, NO_DEADLINE))
            wait_for_jobs(hub, jobs, NO_DEADLINE)
            return failure
        except BaseException as exc:
            if target is None or exc is not target.raised:  # pragma: no cover: no other is raised
                raise
            target.raised = None
            failure = exc if failure is None else higher(failure, exc)


cdef int suppress_failures(Hub hub, jobs) except -1:
    cdef Job job
    for job in jobs:
        job.failure_retrieved = True
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
    cdef SuspendedWait suspended
    cdef Job job
    for job in jobs:
        while job.state != DONE and monotonic_ns() < deadline_ns:
            suspended = new_suspended_wait(-1, deadline_ns)
            job.watchers.append(suspended)
            try:
                hub.suspend(suspended)
            finally:
                if job.state != DONE:
                    job.watchers.remove(suspended)
    return 0


@cython.auto_pickle(False)
@cython.final
cdef class Hub(GreenletWaiter):
    """Hub()
--

    A ``with`` block in which this thread runs many jobs at once, each in a greenlet.

    While a job waits for the server, through greenwait's callback, other jobs run, and so
    does the block's own code. Leaving the block waits for all jobs, and raises the exception
    of a job whose result was never requested. An exception in the block cancels them: their
    queries stop on the server, their connections stay usable.

    Ctrl-C is raised where the block waits, as is any other exception of a signal handler.

    :raises RuntimeError: on entering, a hub or another framework's event loop is at work already
        in this thread, the hub was entered before, or greenwait's callback is not registered.
    :raises OSError: on entering, no descriptor is left.

    A child that a job has forked must end in ``os._exit()``, as multiprocessing's do: the other
    jobs go on in the parent.
    """

    _instead = "leave the hub's with block first"

    cdef InterruptTarget target  # of the greenlet that entered it
    cdef bint is_main_thread
    cdef set jobs      # that are not done
    cdef dict failed   # jobs whose failure was not retrieved yet, in that order
    cdef list idle     # workers
    cdef bint is_shared
    cdef Py_ssize_t users  # of one that is shared

    def __cinit__(self, *args, **options):
        if args or options:
            raise TypeError(
                "Hub() takes no arguments: gather() has a limit, and map() a concurrency"
            )
        self.jobs = set()
        self.failed = {}
        self.idle = []

    __aenter__ = __aexit__ = refusing(
        "a hub is for code without an event loop: write 'with greenwait.Hub() as hub:' there; in "
        "asyncio use its tasks, with greenwait.aio.run() in them"
    )
    submit = Elsewhere("Hub.submit", "it is spawn()")

    def __enter__(self):
        PyErr_CheckSignals()  # see timeout.__enter__()
        if self.entered_by is not None:
            raise RuntimeError("a Hub is for one with block; make another for the next")
        check_can_enter()
        self.scheduler.open()
        self.thread = PyThread_get_thread_ident()
        self.is_main_thread = is_main_thread()
        self.target = InterruptTarget.__new__(InterruptTarget)
        self.entered_by = current_greenlet()
        enter_waiter(self)
        return self

    def __exit__(self, kind, exc, traceback):
        if self.is_inherited():
            return
        self.check_thread("leaving the block")
        if current_greenlet() is not self.entered_by:
            raise RuntimeError("the block must be left by the greenlet that has entered it")
        failure = exc
        while self.jobs or self.target.interruption is not None:
            failure = join(self, list(self.jobs), failure)
        self.close()
        if failure is None:
            if self.failed:
                raise_first([exception_of(job) for job in self.failed])
        elif failure is not exc:
            raise failure

    def spawn(
        self,
        function: Callable[_Parameters, _Result],
        /,
        *args: _Parameters.args,
        **kwargs: _Parameters.kwargs,
    ) -> Job[_Result]:
        """Run ``function(*args, **kwargs)`` as a job, and return that ``Job``.

        It begins when this greenlet waits next, in a copy of its context variables, so that
        an outer ``greenwait.timeout()`` applies to it too.

        :param function: the function to call.
        :param args: passed on to it.
        :param kwargs: passed on to it.
        :returns: the job, whose ``result()`` is what the function returns or raises.
        :raises TypeError: *function* is not a synchronous function.
        :raises RuntimeError: called in another thread, or outside of the block.
        """
        self.check_thread("spawn()")
        check_synchronous("spawn()", function)
        cdef Job job = Job.__new__(Job)
        job.hub = self
        job.function, job.args, job.kwargs = function, args, kwargs
        job.context = PyContext_CopyCurrent()
        job.target = InterruptTarget.__new__(InterruptTarget)
        job.watchers = []
        self.jobs.add(job)
        self.scheduler.due.append(job)
        return job

    def sleep(self, seconds: float, /) -> None:
        """Let other jobs run for that many seconds; 0 lets those run that are due.

        :param seconds: the time to sleep.
        :raises ValueError: *seconds* is negative or not finite.
        :raises TypeError: *seconds* is not a number.
        :raises RuntimeError: called in another thread, or outside of the block.
        """
        self.check_thread("sleep()")
        cdef int64_t duration_ns = to_ns(checked_seconds("seconds", seconds, ""))
        cdef int64_t deadline_ns = NO_DEADLINE if duration_ns == 0 else after(duration_ns)
        cdef SuspendedWait suspended = new_suspended_wait(-1, deadline_ns)
        if duration_ns == 0:
            self.make_due(suspended)
        self.suspend(suspended)

    cdef int check_thread(self, str what) except -1:
        if not self.scheduler.is_open:
            raise RuntimeError(f"{what}: the hub's with block is over, or has not begun")
        if PyThread_get_thread_ident() != self.thread:
            raise RuntimeError(f"{what}: a hub belongs to its thread; this is another one")
        if self.is_inherited():
            raise RuntimeError(f"{what}: its jobs belong to the parent process; make another hub")
        return 0

    # The methods below are called in the hub's thread only.

    cdef int close(self) except -1:
        leave_waiter()
        while self.idle:
            self.idle.pop().switch(None)  # it returns, to its parent, which is here
        return self.scheduler.close()

    cdef InterruptTarget target_of(self, object here):
        cdef Job job = job_of(here)
        if job is not None:
            return job.target
        return self.target if here is self.entered_by else None

    cdef int trace_row(self, int first, object number) except -1:
        here = current_greenlet()
        cdef Job job = job_of(here)
        if job is None:
            return 0 if here is self.entered_by else number("greenlet", here, None)
        if job.row < first:
            job.row = number("job", None, None)
        return job.row

    cdef object next_due(self, SuspendedWait suspended):
        """Return a wait that is over, or a job to begin, as soon as there is one.

        None once *suspended* is due, which a signal handler that waited in this greenlet has seen.
        Without it this greenlet does not wait: None if the one that entered can poll instead,
        because a signal handler must not wait in a greenlet that no one waits for.
        """
        while True:
            while self.left_of_batch > 0:
                self.left_of_batch -= 1
                due = self.scheduler.due.popleft()
                if type(due) is not SuspendedWait:
                    if (<Job?>due).state == WAITING_TO_RUN:
                        return due
                elif not (<SuspendedWait>due).is_due:
                    return due
            if suspended is None and self.target.innermost is not None:
                return None
            # Waits that became due meanwhile come after those that are ready now.
            self.poll()
            self.left_of_batch = self.scheduler.due.count
            if suspended is not None and suspended.is_due:
                return None

    cdef int poll(self) except -1:
        """Sleep until a wait is over, unless one is already; a failure interrupts the block."""
        cdef int64_t longest_ns = 0
        if self.scheduler.due.count == 0:
            longest_ns = SIGNALS_NS if self.is_main_thread else CLOSED_NS
        try:
            self.scheduler.poll(longest_ns)
            if self.scheduler.is_stale:
                self.scheduler.rebuild_set()
            if self.is_main_thread:
                PyErr_CheckSignals()
        except BaseException as exc:
            self.interrupt(self.target, exc, False)
        return 0

    cdef int begin(self, object due, object here) except -1:
        if self.idle:
            worker = self.idle.pop()
        elif here is self.entered_by or self.target.innermost is None:
            worker = new_worker(_work, self.entered_by, OF_HUB)
        else:
            # A greenlet begins at the recursion depth and the C stack depth of the greenlet that
            # starts it: so the one that waits outermost always starts it.
            self.scheduler.due.appendleft(due)
            self.left_of_batch += 1
            switch_to(self.entered_by)
            return 0
        worker.switch(due)
        return 0


@cython.auto_pickle(False)
@cython.final
cdef class SharedHub:
    """A ``with`` block with the thread's hub, or a new one that lasts until its last user leaves.

    gather() and map() use it; their blocks may overlap in any order. Compiled, so that no
    interrupt between two lines leaves it entered.
    """

    cdef Hub hub

    def __enter__(self):
        cdef Hub hub
        PyErr_CheckSignals()  # see timeout.__enter__()
        if self.hub is not None:
            raise RuntimeError("this block is entered already: use a SharedHub for each")
        hub = hub_here()
        if hub is None:
            hub = Hub()
            hub.__enter__()
            hub.is_shared = True
        if hub.is_shared:
            hub.users += 1
        self.hub = hub
        return hub

    def __exit__(self, kind, exc, traceback):
        cdef Hub hub = self.hub
        if hub is None:
            raise RuntimeError("this block is not entered, or was left: use a SharedHub for each")
        self.hub = None
        if hub.is_inherited() or not hub.is_shared:
            return
        hub.users -= 1
        if hub.users == 0:
            hub.__exit__(kind, exc, traceback)


def in_shared_hub(function, /):
    """Return ``function(hub)``, called within a SharedHub's block.

    For Python code, whose own ``with`` may be interrupted before its block begins (see
    ``timeout.__enter__()``).
    """
    with SharedHub() as hub:
        return function(hub)


def each_in_shared_hub(function, /):
    """Yield from ``function(hub)`` within a SharedHub's block."""
    with SharedHub() as hub:
        yield from function(hub)


def _work(Job job not None):
    """Run one job after another, as a worker."""
    cdef Hub hub = job.hub
    here = current_greenlet()
    cdef Worker worker = worker_of(here)
    while job is not None:
        if worker_of(here) is None:  # the job before has replaced its greenlet's __dict__
            worker = make_worker(here, OF_HUB)
        worker.execution = job
        job.run()
        worker.execution = None
        if hub.is_inherited():  # pragma: no cover: coverage.py does not trace this child
            raise_in_child(job)
        due = hub.next_due(None)
        if isinstance(due, Job):
            job = due
        else:
            job = None  # it may be gone before the next one comes
            hub.idle.append(here)
            next_greenlet = hub.entered_by
            if due is not None:
                (<SuspendedWait>due).is_due = True
                next_greenlet = (<SuspendedWait>due).greenlet
            job = switch_to(next_greenlet)  # until a job is handed over, or None


cdef int raise_in_child(Job job) except -1:
    """Raise *job*'s exception, or a RuntimeError, to leave the block in a child that it forked."""
    if job.exception_raised is None or isinstance(job.exception_raised, greenlet_exit):
        raise RuntimeError(
            "a job has returned in a child that it has forked, in which the others do not go on: "
            "have it end in os._exit()"
        )
    raise job.exception_raised


cdef int check_can_enter() except -1:
    cdef Waiter waiter = waiter_here() if waiters_entered > 0 else None
    if isinstance(waiter, Hub):
        raise RuntimeError(
            "a hub is at work in this thread: use its spawn(), or greenwait.gather() or map(), "
            "which join in"
        )
    if waiter is not None:
        raise RuntimeError(f"a hub would stop all else in this thread: {waiter._instead}")
    check_registered("a hub")
    return 0


cdef object exception_of(Job job):
    return job.exception_raised


def raise_first(failures):
    """Raise the first of several; the others become its cause, unless it has one already."""
    first, *others = failures
    if others and first.__cause__ is None:
        first.__cause__ = (
            others[0] if len(others) == 1 else BaseExceptionGroup("these failed too", others)
        )
    raise first
