"""A call of a function in a greenlet of its own, and its outcome."""

cimport cython
from cpython.contextvars cimport PyContext_Enter, PyContext_Exit

from greenwait._greenlets.local cimport Scoped, either


@cython.auto_pickle(False)
cdef class Execution(Scoped):
    """A call of a function in a greenlet of its own; see ``execution.pxd``."""

    cdef int execute(self) except -1:
        """Call the function, and keep what it returns or raises."""
        function, args, kwargs = self.function, self.args, self.kwargs
        self.function = self.args = self.kwargs = None
        PyContext_Enter(self.context)
        try:
            self.value = function(*args, **kwargs) if kwargs else function(*args)
        except BaseException as exc:  # by its instance: its class may be told only by that
            self.exception_raised = exc
        if self.scope is not None:
            self.exception_raised = either(self.exception_raised, self.end_scope())
        PyContext_Exit(self.context)
        return 0

    cdef int deliver_late(self) except -1:
        """Make the call raise the interrupt, if any, that came too late to strike a wait."""
        late, self.target.interruption = self.target.interruption, None
        self.exception_raised = either(self.exception_raised, late)
        return 0

    cdef object outcome(self):
        """Return what the function has returned, or raise what it has raised."""
        if self.exception_raised is not None:
            raise self.exception_raised
        return self.value
