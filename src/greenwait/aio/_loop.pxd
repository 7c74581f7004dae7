"""The waiter of an asyncio event loop, in which calls are suspended."""

from libc.stdint cimport int64_t

from greenwait._greenlets.execution cimport Execution
from greenwait._greenlets.scheduler cimport SuspendedWait
from greenwait._greenlets.waiter cimport GreenletWaiter

cdef class PendingCall(Execution):
    cdef EventLoop loop
    cdef object event_loop
    cdef public bint _asyncio_future_blocking
    cdef object conn             # the connection whose method it is, or whose cursor's
    cdef bint is_over
    cdef bint is_under_way
    cdef Py_ssize_t place        # in the event loop's list while it is under way
    cdef bint is_beginning       # it has not waited yet
    cdef bint is_late            # it runs in the event loop's next turn
    cdef object wake_up          # the task's function, to be called when it is over
    cdef object wake_up_context
    cdef int run(self) except -1
    cdef int suspend_task(self, object waiting) except -1
    cdef bint postpone_in_task(self, object exc) except -1
    cdef int resume_task(self) except -1

cdef class Registration:
    cdef EventLoop loop
    cdef SuspendedWait suspended
    cdef int events
    cdef object failure  # the exception that kept the event loop from watching it
    cdef int begin(self, object event_loop) except -1
    cdef int end(self, object event_loop) except -1

cdef class EventLoop(GreenletWaiter):
    # None while no call is under way: an event loop that is not used any more must be freed
    # at once, and this with it, though this is an attribute of the event loop.
    cdef object event_loop
    cdef object event_loop_reference  # weak
    cdef object reference       # weak, of this; connections have it
    cdef list calls             # under way, in any order
    cdef list idle              # workers
    cdef object over            # calls that are over, and whose tasks have not been resumed
    cdef object push_over       # its methods: a look-up costs as much as the call
    cdef object pop_over
    cdef bint is_serving        # the greenlets that are due are being run
    cdef int64_t until_ns       # ... until then at the longest
    cdef int64_t begun_ns       # how long tasks have begun calls since the last serve()
    cdef bint is_resuming       # the tasks of calls that are over are being resumed
    cdef bint is_scheduled      # the event loop is to call serve() soon
    cdef bint is_listening      # the event loop watches our descriptor
    cdef list unregistered      # registrations that the event loop has not got yet
    cdef dict registered        # registrations that it has, by descriptor
    cdef object ticker          # asyncio's handle
    cdef str ended              # the reason why no call can wait here, or None
    cdef set loans
    cdef object timer           # asyncio's handle
    cdef int64_t timer_ns
    cdef object __weakref__

    cdef int begin_call(self, PendingCall call, object here, bint can_be_late) except -1
    cdef bint is_active(self) noexcept
    cdef int move_here(self) except -1
    cdef int end_call(self, PendingCall call) except -1
    cdef int add_call(self, PendingCall call) except -1
    cdef int remove_call(self, PendingCall call) except -1
    cdef int bind(self, object conn) except -1
    cdef bint is_closed(self) except -1
    cdef int tell_event_loop(self) except -1
    cdef int take_back(self) except -1
    cdef int forget_registration(self, Registration registration) except -1
    cdef int start_listening(self) except -1
    cdef int stop_listening(self) except -1
    cdef object pop_due(self)
    cdef int set_alarm(self) except -1
    cdef int schedule(self) except -1
    cdef int take_turn(self) except -1
    cdef int switch_to_due(self, int64_t until_ns) except -1
    cdef int resume_tasks(self, int64_t until_ns) except -1
    cdef int step_back(self) except -1
    cdef int reschedule(self) except -1
    cdef int leave_thread(self) except -1
    cdef int fail_calls(self) except -1
    cdef int close_if_unused(self) except -1

cdef str INHERITED
# How often it was switched to workers from outside, in all threads, and not back yet.
cdef int workers_entered
cdef str spawned_key  # in the dict of a greenlet of SQLAlchemy's
cdef EventLoop loop_of(object event_loop)
cdef EventLoop known_loop_of(object event_loop)
cdef PendingCall call_of_worker(object here)
cdef bint is_below_call(object here) except -1
cdef int check_no_other() except -1
