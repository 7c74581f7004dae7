"""The pools of ``OPTIONS["pool"]``, one for each database."""

from contextlib import suppress
from typing import Any, NamedTuple

from django.core.exceptions import (  # pyright: ignore[reportMissingTypeStubs]  # Django has no types
    ImproperlyConfigured,
)

from greenwait._connections.lock import FairLock
from greenwait._connections.pool import Pool
from greenwait._connections.pool_options import POOL_OPTIONS, meant
from greenwait._errors import PoolTimeout

__all__ = ["close_pool", "find_pool", "pool_for"]

_PSYCOPG_POOL_ONLY = ("max_waiting", "name", "num_workers", "open", "reconnect_timeout")


class _Entry(NamedTuple):
    pool: Pool
    asked_for: Any
    params: dict[str, Any]


_pools: dict[str, _Entry] = {}
_making = FairLock()  # jobs that come first together would each make min_size connections


def pool_for(alias: str, settings: dict[str, Any], params: dict[str, Any]) -> Pool | None:
    """Return the pool that a database's settings ask for; None: they do not.

    :param settings: those of the database.
    :param params: the arguments of ``greenwait.connect()`` that come of them. If they have
        changed since, as for a test's database, there is a new pool.
    :raises django.core.exceptions.ImproperlyConfigured: the settings are wrong.
    """
    asked_for = settings["OPTIONS"].get("pool")
    if not asked_for or settings["NAME"] is None:  # that is for making and dropping databases
        return None
    key = (asked_for, params)

    def find() -> Pool | None:
        entry = _pools.get(alias)
        return entry.pool if entry is not None and entry[1:] == key else None

    def find_or_make() -> Pool:
        pool = find()
        if pool is None:
            close_pool(alias)
            pool = _new_pool(settings, params)
            _pools[alias] = _Entry(pool, *key)
        return pool

    return find() or _making.run(None, "a database's first connection", find_or_make)


def _new_pool(settings: dict[str, Any], params: dict[str, Any]) -> Pool:
    if settings.get("CONN_MAX_AGE", 0) != 0:
        raise ImproperlyConfigured(
            "OPTIONS['pool'] keeps connections, and CONN_MAX_AGE would, too: leave that at 0"
        )
    asked_for = settings["OPTIONS"]["pool"]
    if not (asked_for is True or isinstance(asked_for, dict)):
        raise ImproperlyConfigured(f"OPTIONS['pool'] is True or a dict, not {asked_for!r}")
    options: dict[str, Any] = {} if asked_for is True else {**asked_for}
    for name in options:
        if name not in POOL_OPTIONS:
            whose = "psycopg_pool's, and " if name in _PSYCOPG_POOL_ONLY else ""
            raise ImproperlyConfigured(
                f"OPTIONS['pool'] has {name!r}, which is {whose}not one of greenwait.Pool's "
                f"options: {', '.join(POOL_OPTIONS)}{meant(name)}"
            )
    if settings.get("CONN_HEALTH_CHECKS"):
        options.setdefault("check", _ask)
    try:
        return Pool(**options, **params)
    except (TypeError, ValueError) as exc:
        raise ImproperlyConfigured(f"OPTIONS['pool']: {exc}") from exc


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
