"""How long a pool's borrowers wait, use a connection, and make one: counted until it is taken.

A histogram of OpenTelemetry takes a lock, and is Python code. Within the pool, a finalizer or a
signal handler that gives a connection back could wait for a lock of its own thread, and an
interrupt could come between two steps. So the pool counts here, and who exports takes the counts.

They are kept in steps of 3 % and less: the memory is the same for a million times as for one.
"""

from typing import final

__all__ = ["PoolTimes"]

@final
class PoolTimes:
    """The times of one pool."""

    def take(
        self,
    ) -> tuple[list[tuple[float, int]], list[tuple[float, int]], list[tuple[float, int]]]:
        """Return the times since the last call: of waiting, of use, of making a connection.

        :returns: three lists of pairs, seconds and how often.
        """

    def forget(self) -> None:
        """Count anew: a forked child does, whose parent counts what was before."""
