"""The data of a COPY, which a cursor's method transfers while its statement is waited for.

psycopg2's own methods do that after the wait, in a blocking way, and so refuse to in green mode.
Here the wait callback does it: to ``poll()`` the statement is done when the COPY begins; then the
data is transferred, and ``poll()`` called again. Its last result takes the place of the one with
which the COPY began (``pq_get_result_async`` in psycopg2), and psycopg2 sees a statement that has
succeeded or failed. So the errors, ``rowcount``, notices and all else are psycopg2's own.

While the file's methods run psycopg2 holds the connection's mutex.
"""

from typing import Any

from psycopg2.extensions import cursor

__all__ = ["can_copy", "check_can_copy", "copy_by_callback", "is_copied_by_callback"]

def is_copied_by_callback() -> bool:
    """Return whether greenwait's callback is registered, which can transfer the data."""

def can_copy() -> bool:
    """Return whether COPY works: by libpq's functions, or psycopg2 does it."""

def check_can_copy(cur: cursor, method: str) -> None:
    """Raise what psycopg2's *method* raises at first; or if libpq's functions can't be called."""

def copy_by_callback(cur: cursor, statement: Any, file: Any, size: int) -> None:
    """Execute a statement, and transfer the data of its COPY.

    Compiled: no signal handler strikes between the lines.
    """
