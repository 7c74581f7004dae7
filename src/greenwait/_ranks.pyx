"""The order of two interrupts: one is raised, and the other is its context.

Compiled: before any line of Python code a signal handler may raise, and the current interrupt
would be lost.
"""

__all__ = ["outranks", "time_limits"]

#: The classes of time limits: Exception, and those of frameworks that do not derive from it.
time_limits = [Exception]

cdef list limits = time_limits


cpdef bint outranks(object exc, object other) except -1:
    """Return whether *exc* ends a greenlet, a task or the program, and *other* does not."""
    kinds = tuple(limits)
    return isinstance(other, kinds) and not isinstance(exc, kinds)


cdef object higher(object first, object second):
    """Return the one of two interrupts that is to be raised; the other becomes its context."""
    if outranks(second, first):
        first, second = second, first
    chain(first, second)
    return first


cdef int chain(object exc, object context) except -1:
    """Make *context* the context of *exc*, followed by the previous context."""
    if context is exc or is_among(context, contexts_of(exc)):
        return 0
    before, exc.__context__ = exc.__context__, None
    for link in [context, *contexts_of(context)]:
        if link.__context__ is exc:
            link.__context__ = None
    exc.__context__ = context
    return append(exc, before)


cdef int append(object exc, object context) except -1:
    """Append *context* to the chain of contexts of *exc*; None has no effect."""
    cdef list links = [exc, *contexts_of(exc)]
    if context is None:
        return 0
    for each in [context, *contexts_of(context)]:
        if is_among(each, links):
            return 0
    links[-1].__context__ = context
    return 0


cdef bint is_among(object exc, list others) noexcept:
    for each in others:
        if each is exc:  # not `in`, which also calls __eq__(), possibly Python code
            return True
    return False


cdef list contexts_of(object exc):
    cdef list found = []
    link = exc.__context__
    while link is not None and not is_among(link, found):  # a cycle made by other code
        found.append(link)
        link = link.__context__
    return found
