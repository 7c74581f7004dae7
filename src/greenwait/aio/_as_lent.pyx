"""The end of a pool's block whose connection can go back as it is: nothing has to wait for that."""

from greenwait._connections.lock cimport FairLock
from greenwait._connections.pool cimport Borrowed
from greenwait._connections.pooled cimport has_settings

from psycopg2.extensions import TRANSACTION_STATUS_IDLE

from greenwait._connections.connection import Connection

__all__ = ["leave_as_lent"]

cdef object plain_commit = Connection.commit
cdef int IDLE = TRANSACTION_STATUS_IDLE


def leave_as_lent(Borrowed block not None):
    """Leave the block at once if its connection is as it was lent; return whether it is left.

    It is if it is open, in no transaction, with its settings, and nobody is at work on it. It is
    not if a user's function is to see it first: the pool's ``reset``, or a ``commit()`` of a class
    or a connection of its own.
    """
    if block.member is None or block.pool.reset is not None:
        return False
    conn = block.member.conn
    lock = getattr(conn, "_lock", None)
    if type(lock) is not FairLock or not (<FairLock>lock).is_idle(conn):
        return False
    if conn.get_transaction_status() != IDLE or not has_plain_commit(conn):
        return False
    if not has_settings(conn, block.member.settings):
        return False
    block.leave_clean()
    return True


cdef bint has_plain_commit(object conn) except -1:
    """Is its ``commit()`` AsyncConnection's, which is Connection's to be awaited?"""
    commit = getattr(type(conn), "commit", None)
    return getattr(commit, "__wrapped__", None) is plain_commit and "commit" not in conn.__dict__
