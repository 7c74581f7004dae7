"""Whether a pool's connection can go back as it is, so that nothing has to wait for that."""

from greenwait._connections.pool cimport Member, Pool

from psycopg2.extensions import TRANSACTION_STATUS_IDLE

from greenwait._connections.connection import Connection
from greenwait._psycopg.psycopg2 import STATUS_READY, connection

__all__ = ["is_as_lent"]

cdef object plain_commit = Connection.commit
cdef int IDLE = TRANSACTION_STATUS_IDLE
cdef int READY = STATUS_READY
# psycopg2's own, in the order of Member.settings; ours are slower to ask.
cdef tuple getters = tuple([
    getattr(connection, name).__get__
    for name in ("autocommit", "isolation_level", "readonly", "deferrable")
])


def is_as_lent(Pool pool not None, conn):
    """Return whether *conn* is open, in no transaction, with its settings, and nobody is at work.

    False if a user's function is to see it first: the pool's ``reset``, or a ``commit()`` of a
    class or a connection of its own.
    """
    cdef Member member = pool.members.get(id(conn))
    lock = getattr(conn, "_lock", None)
    if member is None or lock is None or pool.reset is not None:
        return False
    if conn.closed != 0 or conn.status != READY or conn.get_transaction_status() != IDLE:
        return False
    if lock.is_taken or lock.is_left_open:
        return False
    if getattr(conn.commit, "__wrapped__", None) is not plain_commit:
        return False
    for getter, setting in zip(getters, member.settings):
        if getter(conn) != setting:
            return False
    return True
