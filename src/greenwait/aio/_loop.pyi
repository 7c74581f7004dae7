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

from collections.abc import Callable
from typing import Any, final

__all__ = ["Loan", "end_connection", "is_inherited"]

@final
class Loan:
    """A pool's loan to a task of the event loop that runs here.

    *give_up* is called with *args* if the event loop is closed before the loan is over.
    """
    def __init__(self, give_up: Callable[..., object], *args: Any) -> None: ...
    def end(self) -> bool:
        """End the loan; return whether it was still open, and is this process's."""

def end_connection(conn: Any) -> bool:
    """Shut down a connection whose task was lost in another thread, with the mutex held.

    It can't be closed, but the server can be told that the client is gone. Returns whether it is
    such a connection.
    """

def is_inherited(conn: Any = None) -> bool:
    """Return whether the event loop that runs here, or *conn*'s, is a parent process's."""
