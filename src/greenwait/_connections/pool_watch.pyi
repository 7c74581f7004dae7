"""What an exporter of metrics is told of a pool, which goes on as before."""

from typing import Any

from greenwait._connections.pool import Pool
from greenwait._connections.pool_times import PoolTimes

__all__ = ["has_ended", "settings", "unwatch", "watch"]

def settings(pool: Pool[Any]) -> tuple[str | None, dict[str, Any], int]:
    """Return the pool's DSN, or None; the options of its connections; and its least size."""

def has_ended(pool: Pool[Any]) -> bool:
    """Return whether the pool is closed, and none of its connections is in use."""

def watch(pool: Pool[Any]) -> PoolTimes:
    """Have the pool count its times from now on; return these.

    :raises ValueError: it does already.
    """

def unwatch(pool: Pool[Any]) -> None:
    """Have the pool count no times."""
