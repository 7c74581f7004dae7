"""The named tuple that ``Pool.stats()`` returns."""

from typing import NamedTuple

__all__ = ["PoolStats"]


class PoolStats(NamedTuple):
    """What ``Pool.stats()`` returns; the first five are as of now, the others since it was made.

    :param size: connections there are: in use, idle, or being made.
    :param max_size: how many there may be.
    :param in_use: those that are lent.
    :param idle: those that are not.
    :param waiting: who waits for a connection.
    :param lent: how often one was lent.
    :param seconds_waited: how long was waited for that, by all together.
    :param timeouts: how often ``PoolTimeout`` was raised instead.
    :param made: connections made.
    :param failures: failures to make one.
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
