"""What an exporter of metrics is told of a pool, which goes on as before."""

from greenwait._connections.pool cimport Pool
from greenwait._connections.pool_times cimport PoolTimes
from greenwait._system.clock cimport monotonic_ns

__all__ = ["has_ended", "settings", "unwatch", "watch"]


def settings(Pool pool not None):
    """Return the pool's DSN, or None; the options of its connections; and its least size."""
    return pool.dsn, pool.options, pool.min_size


def has_ended(Pool pool not None):
    """Return whether the pool is closed, and none of its connections is in use."""
    return pool.is_closed and pool.taken == 0


def watch(Pool pool not None):
    """Have the pool count its times from now on; return these.

    :raises ValueError: it does already.
    """
    cdef PoolTimes times
    if pool.times is not None:
        raise ValueError("this pool is instrumented already: close() what instrument() returned")
    times = PoolTimes()
    times.since_ns = monotonic_ns()
    pool.times = times
    pool.is_watched = True
    return times


def unwatch(Pool pool not None):
    """Have the pool count no times."""
    pool.times = None
    pool.is_watched = pool.news is not None
