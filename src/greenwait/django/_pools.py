"""The pools of ``OPTIONS["pool"]``, one for each database."""

from contextlib import suppress
from typing import Any, NamedTuple

from django.core.exceptions import ImproperlyConfigured

from greenwait._connections.lock import FairLock
from greenwait._connections.pool import Pool
from greenwait._errors import PoolTimeout

__all__ = ["close_pool", "find_pool", "pool_for", "pool_options"]

_OPTIONS = ("min_size", "max_size", "timeout", "max_idle", "max_lifetime", "check")
_PSYCOPG_POOL_ONLY = ("max_waiting", "name", "num_workers", "open", "reconnect_timeout")


class _Entry(NamedTuple):
    pool: Pool
    options: dict[str, Any]
    params: dict[str, Any]


_pools: dict[str, _Entry] = {}
_making = FairLock()  # jobs that come first together would each make min_size connections


def pool_options(settings: dict[str, Any]) -> dict[str, Any] | None:
    """Return the options for the pool that a database's settings ask for; None: no pool.

    :raises django.core.exceptions.ImproperlyConfigured: they are not such options.
    """
    asked_for = settings["OPTIONS"].get("pool")
    if not asked_for or settings["NAME"] is None:  # that is for making and dropping databases
        return None
    if settings.get("CONN_MAX_AGE", 0) != 0:
        raise ImproperlyConfigured(
            "OPTIONS['pool'] keeps connections, and CONN_MAX_AGE would, too: leave that at 0"
        )
    if asked_for is True:
        options: dict[str, Any] = {}
    elif isinstance(asked_for, dict):
        options = dict(asked_for)
    else:
        raise ImproperlyConfigured(f"OPTIONS['pool'] is True or a dict, not {asked_for!r}")
    for name in options:
        if name not in _OPTIONS:
            known = ", ".join(_OPTIONS)
            whose = "psycopg_pool's, and " if name in _PSYCOPG_POOL_ONLY else ""
            raise ImproperlyConfigured(
                f"OPTIONS['pool'] has {name!r}, which is {whose}not one of greenwait.Pool's "
                f"options: {known}"
            )
    if settings.get("CONN_HEALTH_CHECKS"):
        options.setdefault("check", _ask)
    return options


def pool_for(alias: str, options: dict[str, Any], params: dict[str, Any]) -> Pool:
    """Return the pool of a database, made with these connection parameters."""

    def find_or_make() -> Pool:
        entry = _pools.get(alias)
        if entry is not None:
            if entry.options == options and entry.params == params:
                return entry.pool
            close_pool(alias)  # it is of another database: a test's, for instance
        try:
            pool = Pool(**options, **params)
        except (TypeError, ValueError) as exc:
            raise ImproperlyConfigured(f"OPTIONS['pool']: {exc}") from exc
        _pools[alias] = _Entry(pool, options, params)
        return pool

    entry = _pools.get(alias)
    if entry is not None and entry.options == options and entry.params == params:
        return entry.pool
    return _making.run(None, "a database's first connection", find_or_make)


def find_pool(alias: str) -> Pool | None:
    """Return the pool of a database, if it has one by now."""
    entry = _pools.get(alias)
    return None if entry is None else entry.pool


def close_pool(alias: str) -> None:
    """Close the pool of a database: its idle connections now, and each other one at its return."""
    entry = _pools.pop(alias, None)
    if entry is not None:
        with suppress(PoolTimeout):
            entry.pool.close(timeout=0)


def _ask(conn: Any) -> None:
    """Ask the server whether a connection works."""
    conn.autocommit = True
    with conn.cursor() as cur:
        cur.execute("select 1")
