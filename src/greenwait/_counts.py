"""The named tuple that ``stats()`` returns."""

from typing import NamedTuple

__all__ = ["Stats"]


class Stats(NamedTuple):
    """The counts that ``stats()`` returns, since the process began or they were reset.

    :param waits: calls of the wait callback.
    :param sleeps: times that a thread slept for the server.
    :param seconds_asleep: the time they took, all threads together.
    :param spin_hits: spins that ended with the answer.
    :param spin_misses: spins that did not.
    :param seconds_spinning: the time that all spins took.
    :param results_plain: queries answered through ``conn.poll()`` alone.
    :param results_libpq: queries whose answer libpq received without the GIL.
    :param cancels: cancel requests sent.
    :param timeouts: waits ended by a deadline.
    """

    waits: int
    sleeps: int
    seconds_asleep: float
    spin_hits: int
    spin_misses: int
    seconds_spinning: float
    results_plain: int
    results_libpq: int
    cancels: int
    timeouts: int
