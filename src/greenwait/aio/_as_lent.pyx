"""Whether a pool's connection can go back as it is, so that nothing has to wait for that."""

from greenwait._connections.pool cimport Member, Pool
from greenwait._connections.pooled cimport settings_of

from psycopg2.extensions import TRANSACTION_STATUS_IDLE

from greenwait._connections.connection import Connection

__all__ = ["is_as_lent"]

cdef object plain_commit = Connection.commit
cdef int IDLE = TRANSACTION_STATUS_IDLE


def is_as_lent(Pool pool not None, conn):
    """Return whether *conn* is open, in no transaction, with its settings, and nobody is at work.

    False if a user's function is to see it first: the pool's ``reset``, or a ``commit()`` of a
    class or a connection of its own.
    """
    cdef Member member = pool.members.get(id(conn))
    lock = getattr(conn, "_lock", None)
    if member is None or lock is None or pool.reset is not None:
        return False
    if not lock.is_idle(conn) or conn.get_transaction_status() != IDLE:
        return False
    if getattr(conn.commit, "__wrapped__", None) is not plain_commit:
        return False
    return settings_of(conn) == member.settings
