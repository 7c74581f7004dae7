"""The counters of what greenwait has done in this process, cheap enough to be always on."""

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
