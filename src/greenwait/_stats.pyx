"""The counters of what greenwait has done in this process, cheap enough to be always on."""

from libc.string cimport memset

import os

from greenwait._counts import Stats

__all__ = ["stats"]


def stats(*, reset: bool = False) -> Stats:
    """Return greenwait's counters of this process.

    :param reset: start again from zero, in the same step: nothing is counted twice or lost.
    :returns: a ``Stats`` named tuple. Waits under way are counted in ``waits``, and their
        sleeps up to the last time they woke.

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
