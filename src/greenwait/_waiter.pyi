"""The interface of a waiter, which waits in a thread's place: a hub, or a framework's adapter.

A greenwait hub is entered in a thread; from then on every wait there, in any greenlet, steps
aside for another greenlet. A framework has one adapter for all threads, which is asked whether
it is active in this one.
"""

__all__ = ["READ", "WRITE", "Adapter", "register"]

READ: int
WRITE: int

class Adapter:
    """A framework's waiter, written in Python: a subclass has ``is_active()`` and ``wait()``."""

    _instead: str
    def is_active(self) -> bool:
        """Return whether the framework runs this thread, and this greenlet may step aside."""
    def is_hub_itself(self) -> bool:
        """Return whether the framework's own greenlet runs, so that a wait stops all others."""
    def wait(self, fd: int, events: int, seconds: float | None) -> int:
        """Step aside for at most *seconds* if not None; return the events that came, or 0."""

def register(adapter: Adapter) -> None:
    """Make all threads ask *adapter* from now on; a second call has no effect."""
