"""The order of two interrupts: one is raised, and the other is its context.

Compiled: before any line of Python code a signal handler may raise, and the current interrupt
would be lost.
"""

__all__ = ["outranks", "time_limits"]

time_limits: list[type[BaseException]]

def outranks(exc: BaseException, other: BaseException) -> bool:
    """Return whether *exc* ends a greenlet, a task or the program, and *other* does not."""
