"""A fair semaphore for threads, and for greenlets of any framework.

Threads, and greenlets of a hub or a framework, wait in one queue: first come, first served. A
greenlet that waits lets others of its thread run.

The GIL makes these methods atomic, since compiled code is not interrupted between two lines. Only
while a wakeup is made may other code run: that of an adapter, or of a finalizer.
"""

__all__ = ["check_deadline", "give_way", "pause"]

def check_deadline() -> None:
    """Raise QueryTimeout if an outer timeout() has expired, as the next wait would."""

def give_way() -> None:
    """Let others run, as a wait does, where there was nothing to wait for.

    Raises an interrupt, or QueryTimeout as ``check_deadline()`` does.
    """

def pause(seconds: float) -> None:
    """Wait for some seconds while others run.

    Raises an interrupt, or QueryTimeout as ``check_deadline()`` does.
    """
