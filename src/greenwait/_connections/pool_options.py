"""The arguments of a pool: wrong ones are told before a connection is made."""

from difflib import get_close_matches
from typing import Any

from psycopg2 import ProgrammingError
from psycopg2.extensions import make_dsn

__all__ = ["POOL_OPTIONS", "check_arguments", "check_sizes"]

#: Those that are the pool's own.
POOL_OPTIONS = (
    "min_size",
    "max_size",
    "timeout",
    "max_idle",
    "max_lifetime",
    "check",
    "configure",
    "reset",
)
_OWN = (*POOL_OPTIONS, "connection_factory", "cursor_factory")
#: What other pools call them: psycopg2's, psycopg 3's, asyncpg's, aiopg's and SQLAlchemy's.
_ELSEWHERE = {
    "conninfo": "dsn",
    "init": "configure",
    "max_inactive_connection_lifetime": "max_idle",
    "max_overflow": "max_size",
    "maxconn": "max_size",
    "maxsize": "max_size",
    "minconn": "min_size",
    "minsize": "min_size",
    "on_connect": "configure",
    "pool_recycle": "max_lifetime",
    "pool_size": "max_size",
    "pool_timeout": "timeout",
}
_OF_CONNECT = ("connection_factory", "cursor_factory", "async", "async_")


def check_arguments(dsn: object, functions: dict[str, Any], options: dict[str, Any]) -> None:
    """Raise TypeError unless *functions* are callable and *options* are those of a connection."""
    if dsn is not None and not isinstance(dsn, str):
        raise TypeError(f"dsn must be a connection string, not {type(dsn).__name__!r}")
    for name, function in functions.items():
        if not (function is None or callable(function)):
            raise TypeError(f"{name} must be a function or None, not {type(function).__name__!r}")
    if options.get("async_") or options.get("async"):
        raise TypeError("a pool's connections are not async_: leave that out")
    for name in options:
        if name not in _OF_CONNECT and not _is_option(name):
            raise TypeError(_unknown(name))


def _is_option(name: str) -> bool:
    """Return whether it is an option of libpq's, or psycopg2's name of one."""
    value: Any = "x"
    try:
        make_dsn(**{name: value})
    except ProgrammingError:
        return False
    return True


def _unknown(name: str) -> str:
    meant = _ELSEWHERE.get(name)
    if meant is None:
        meant = next(iter(get_close_matches(name, _OWN, 1)), None)
    hint = f": did you mean {meant}?" if meant else ", and libpq has no such option"
    return f"a pool has no argument {name!r}{hint}"


def check_sizes(min_size: object, max_size: object) -> None:
    """Raise TypeError or ValueError unless a pool may have so many connections."""
    least = _checked_size("min_size", min_size, 0)
    if least > _checked_size("max_size", max_size, 1):
        raise ValueError(f"min_size={min_size} is more than max_size={max_size}")


def _checked_size(name: str, value: object, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a number of connections, not {type(value).__name__!r}")
    if value < least:
        raise ValueError(f"{name}={value}: it must be {least} or more")
    return value
