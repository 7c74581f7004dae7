"""Whether a pool's connection can go back as it is, so that nothing has to wait for that."""

from typing import Any

from greenwait._connections.pool import Pool

__all__ = ["is_as_lent"]

def is_as_lent(pool: Pool[Any], conn: Any) -> bool:
    """Return whether *conn* is open, in no transaction, with its settings, and nobody is at work.

    False if a user's function is to see it first: the pool's ``reset``, or a ``commit()`` of a
    class or a connection of its own.
    """
