"""What greenwait keeps for one of asyncio's event loops: the scheduler of its calls."""

from libc.stdint cimport int64_t

from greenwait._greenlets.execution cimport Execution
from greenwait._greenlets.scheduler cimport Scheduler, SuspendedWait

cdef class PendingCall(Execution):
    cdef EventLoop loop
    cdef object conn             # that it is a method of, or of a cursor of which it is
    cdef bint is_over
    cdef object suspension       # that a task has
    cdef object wake_up          # the task's, to be called when it is over
    cdef object wake_up_context
    cdef int run(self) except -1
    cdef int resume_task(self) except -1

cdef class Registration:
    cdef EventLoop loop
    cdef SuspendedWait suspended
    cdef int events
    cdef object failure  # what kept the event loop from watching it
    cdef int begin(self, object event_loop) except -1
    cdef int end(self, object event_loop) except -1

cdef class EventLoop(Scheduler):
    # None while no call is under way: an event loop that is not used any more is to be freed
    # at once, and this with it, though it has an attribute that is this.
    cdef object event_loop
    cdef object event_loop_reference  # weak
    cdef set calls              # under way
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

    cdef int begin_call(self, PendingCall call, object event_loop) except -1
    cdef bint is_active(self) noexcept
    cdef int move_here(self) except -1
    cdef int end_call(self, PendingCall call) except -1
    cdef int bind(self, object conn) except -1
    cdef bint is_closed(self) except -1
    cdef int tell_event_loop(self) except -1
    cdef int take_back(self) except -1
    cdef int forget_registration(self, Registration registration) except -1
    cdef int start_listening(self) except -1
    cdef int stop_listening(self) except -1
    cdef object pop_due(self)
    cdef int fileno(self) except -2
    cdef int set_alarm(self) except -1
    cdef int schedule(self) except -1
    cdef int switch_to_due(self, int64_t until_ns) except -1
    cdef int resume_tasks(self, int64_t until_ns) except -1
    cdef int step_back(self) except -1
    cdef int reschedule(self) except -1
    cdef int leave_thread(self) except -1
    cdef int fail_calls(self) except -1
    cdef int close_if_unused(self) except -1

cdef str INHERITED
cdef EventLoop loop_of(object event_loop)
cdef bint is_below_call(object here) except -1
cdef int check_no_other() except -1
