"""A fair lock for greenlets and threads; each shared connection has one.

psycopg2 has a mutex for each connection. A wait for it stops the thread, and with it the
greenlet that is to release the mutex. So this lock is taken before.
"""

from collections.abc import Callable
from typing import Any, TypeVar, final

__all__ = [
    "FairLock",
    "block_alone",
    "block_end",
    "cursor_block_end",
    "cursor_with_lock",
    "unless_idle",
    "with_lock",
]

_Result = TypeVar("_Result")
_Method = TypeVar("_Method", bound=Callable[..., Any])

@final
class FairLock:
    """The lock of one connection."""
    @property
    def is_taken(self) -> bool:
        """Whether the lock is held, or about to be."""
    @property
    def is_left_open(self) -> bool:
        """Whether the end of a block was interrupted, so that the next owner rolls it back."""
    def is_idle(self, conn: Any) -> bool:
        """Return whether nobody is at work on the connection, and no transaction is open."""
    def run(
        self,
        conn: Any,
        what: str,
        function: Callable[..., _Result],
        /,
        *args: Any,
        **kwargs: Any,
    ) -> _Result:
        """Call the function while holding the lock, and return its result.

        :param conn: the connection.
        :param what: the method of the connection, or of a cursor, that is called.
        :raises psycopg2.InterfaceError: the connection was given back to its pool.
        :raises psycopg2.ProgrammingError: psycopg2 is at work on the connection in this very
            greenlet; or another greenlet holds the lock, and this one can't wait, because it is
            an event loop's own, or at interpreter exit.

        A method may call another one, and so may an adapter or a typecaster: psycopg2 calls them
        without its mutex. A signal handler's exception, or a deadline, ends the wait. Python code
        has no pair of methods to take the lock and to release it: an interrupt between the two
        would keep it for ever.
        """

def block_alone(base_method: Callable[..., Any]) -> Any:
    """Return a connection's ``__enter__()``, whose error explains why no block can be entered.

    Compiled, as ``block_end()`` is: an interrupt between two lines would leave it entered.
    """

def block_end(base_method: Callable[..., Any]) -> Any:
    """Return a connection's ``__exit__()``, which holds the lock."""

def with_lock(base_method: _Method, name: str) -> _Method:
    """Return a connection's method that holds the lock while *base_method* runs."""

def cursor_block_end(self: Any, /, kind: Any, exc: Any, traceback: Any) -> None:
    """Close the cursor. psycopg2's does the same, but looks for close() by a new str each time."""

def unless_idle(base_method: _Method) -> _Method:
    """Return a connection's method that calls *base_method* unless no transaction is open."""

def cursor_with_lock(
    base_method: Callable[..., Any], name: str, *, nameless: Callable[..., Any] | None = None
) -> Any:
    """Return a cursor's method that holds the lock while *base_method* runs.

    :param nameless: what a cursor without a name calls instead, and without the lock, if given.
    """
