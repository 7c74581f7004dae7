"""Counters of what greenwait has done, cheap enough to be always on."""

import os
from typing import NamedTuple

from libc.string cimport memset

__all__ = ["Stats", "stats"]


class Stats(NamedTuple):
    """What ``stats()`` returns: counts since the process began, or since they were reset.

    :param waits: calls of the wait callback.
    :param sleeps: times that a thread slept for the server.
    :param seconds_asleep: how long, all threads together.
    :param spin_hits: spins that ended with the answer.
    :param spin_misses: those that did not.
    :param seconds_spinning: how long all of them took.
    :param results_plain: queries answered through ``conn.poll()`` alone.
    :param results_libpq: those whose answer libpq received without the GIL.
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


def stats(*, reset=False):
    """Return greenwait's counters of this process.

    :param reset: start again from zero, in the same step: nothing is counted twice or lost.
    :returns: a ``Stats`` named tuple. Waits under way are counted in ``waits``, and with
        what they have slept as far as they have looked up.

    May be called anywhere and at any time: it takes no lock. A forked child starts
    from zero.
    """
    cdef Counters now = counters
    if reset:
        _reset()
    return Stats(
        waits=now.waits,
        sleeps=now.sleeps,
        seconds_asleep=now.asleep_ns / 1e9,
        spin_hits=now.spin_hits,
        spin_misses=now.spin_misses,
        seconds_spinning=now.spinning_ns / 1e9,
        results_plain=now.results_plain,
        results_libpq=now.results_libpq,
        cancels=now.cancels,
        timeouts=now.timeouts,
    )


def _reset():
    memset(&counters, 0, sizeof(counters))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset)
