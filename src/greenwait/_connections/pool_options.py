"""The arguments of a pool: wrong ones are told before a connection is made."""

from difflib import get_close_matches
from typing import Any

from psycopg2 import ProgrammingError
from psycopg2.extensions import make_dsn

from greenwait._connections.connect_options import check_dsn, check_factories
from greenwait._synchronous import check_synchronous

__all__ = ["POOL_OPTIONS", "check_arguments", "check_sizes", "meant"]

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
    "connection_class": "connection_factory",
    "init": "configure",
    "max_inactive_connection_lifetime": "max_idle",
    "max_overflow": "max_size",
    "maxconn": "max_size",
    "maxsize": "max_size",
    "max_connections": "max_size",
    "min_conn": "min_size",
    "minconn": "min_size",
    "minsize": "min_size",
    "on_connect": "configure",
    "pool_recycle": "max_lifetime",
    "pool_pre_ping": "check",
    "pool_size": "max_size",
    "pool_timeout": "timeout",
    "setup": "configure",
    "size": "max_size",
}
#: What they have, and this pool has not, or need not be told.
_NOT_HERE = {
    "command_timeout": "use greenwait.timeout(), or install(timeout=...)",
    "kwargs": "pass its elements by name",
    "loop": "leave it out",
    "max_queries": "leave it out; max_lifetime limits how long a connection is kept",
    "max_waiting": "leave it out; timeout limits how long each waits",
    "name": "leave it out; application_name is the connections'",
    "num_workers": "leave it out: a borrower makes its connection itself",
    "open": "leave it out: a pool is open as soon as it is made",
    "reconnect_failed": "leave it out; getconn() raises why it could not connect",
    "reconnect_timeout": "leave it out; timeout limits that, too",
    "statement_cache_size": "leave it out: psycopg2 prepares no statements",
}
_OF_CONNECT = ("connection_factory", "cursor_factory", "async", "async_")


def check_arguments(
    dsn: object, others: tuple[Any, ...], functions: dict[str, Any], options: dict[str, Any]
) -> None:
    """Raise TypeError unless *functions* are callable and *options* are those of a connection.

    :param others: further positional arguments, of which there may be none.
    """
    if others:
        raise TypeError(
            "a pool takes only its dsn by position, and its sizes by name: "
            "Pool(dsn, min_size=1, max_size=10)"
        )
    check_dsn(dsn)
    for name, function in functions.items():
        if function is None:
            continue
        if not callable(function):
            raise TypeError(f"{name} must be a function or None, not {type(function).__name__!r}")
        check_synchronous(name, function)
    if options.get("async_") or options.get("async"):
        raise TypeError("a pool's connections are not async_: leave that out")
    check_factories(options.get("connection_factory"), options.get("cursor_factory"))
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
    return f"a pool has no argument {name!r}{meant(name) or ', and libpq has no such option'}"


def meant(name: str) -> str:
    """Return what to write instead of an unknown option, to be appended to a message."""
    if name in _NOT_HERE:
        return f": {_NOT_HERE[name]}"
    found = _ELSEWHERE.get(name) or next(iter(get_close_matches(name, _OWN, 1)), None)
    return f": did you mean {found}?" if found else ""


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
