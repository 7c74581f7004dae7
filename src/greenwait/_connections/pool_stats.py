"""The named tuple that ``Pool.stats()`` returns."""

from typing import NamedTuple

__all__ = ["PoolStats"]


class PoolStats(NamedTuple):
    """The counts that ``Pool.stats()`` returns: five current ones, the others since it was made.

    :param size: connections in the pool: in use, idle, or being made.
    :param max_size: how many there may be.
    :param in_use: connections that are lent.
    :param idle: connections that are not lent.
    :param waiting: borrowers that wait for a connection.
    :param lent: how often a connection was lent.
    :param seconds_waited: the time that all borrowers have waited for that.
    :param timeouts: how often ``PoolTimeout`` was raised instead.
    :param made: connections made.
    :param failures: failed attempts to make one.
    :param discarded: connections closed.
    """

    size: int
    max_size: int
    in_use: int
    idle: int
    waiting: int
    lent: int
    seconds_waited: float
    timeouts: int
    made: int
    failures: int
    discarded: int
