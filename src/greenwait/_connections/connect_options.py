"""The arguments of ``connect()``: wrong ones are told with what is to be written instead."""

from difflib import get_close_matches
from typing import Any

from greenwait._psycopg.psycopg2 import ProgrammingError, connection, cursor, make_dsn

__all__ = ["check_dsn", "check_factories", "checked_dsn"]

# What other drivers call them, and what it is here.
_ELSEWHERE = {
    "autocommit": "set conn.autocommit when it is connected",
    "command_timeout": "it is greenwait.timeout(), or install(timeout=...)",
    "conninfo": "it is dsn, or the first argument",
    "db": "it is dbname",
    "hosts": "it is host, with commas",
    "loop": "leave it out",
    "max_size": "that is greenwait.Pool's",
    "min_size": "that is greenwait.Pool's",
    "minsize": "that is greenwait.Pool's, min_size",
    "maxsize": "that is greenwait.Pool's, max_size",
    "passwd": "it is password",
    "prepare_threshold": "leave it out: psycopg2 prepares no statements",
    "row_factory": "it is cursor_factory, a class of cursors",
    "server_settings": "it is options='-c name=value'",
    "ssl": "it is sslmode",
    "statement_cache_size": "leave it out: psycopg2 prepares no statements",
    "timeout": "it is connect_timeout; queries have greenwait.timeout()",
    "username": "it is user",
}
_USUAL = (
    "application_name",
    "client_encoding",
    "connect_timeout",
    "connection_factory",
    "cursor_factory",
    "database",
    "dbname",
    "host",
    "hostaddr",
    "keepalives",
    "options",
    "passfile",
    "password",
    "port",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "target_session_attrs",
    "user",
)


def check_dsn(dsn: object) -> None:
    """Raise TypeError unless it is a connection string, or None."""
    if dsn is not None and not isinstance(dsn, str):
        raise TypeError(
            f"dsn must be a connection string, not {type(dsn).__name__!r}: one as 'dbname=shop'; "
            "its parts are passed by name, as dbname='shop'"
        )


def check_factories(connection_factory: Any, cursor_factory: Any) -> None:
    """Raise TypeError unless both make what they shall, or are None."""
    for name, factory, base in (
        ("connection_factory", connection_factory, connection),
        ("cursor_factory", cursor_factory, cursor),
    ):
        if factory is None:
            continue
        what = repr(type(factory).__name__)
        if isinstance(factory, type):
            what = factory.__qualname__
            if not issubclass(factory, base):
                raise TypeError(f"{name} must be a subclass of {base.__name__}, not {what}")
        if not callable(factory):
            raise TypeError(f"{name} must be a class of psycopg2's {base.__name__}s, not {what}")


def checked_dsn(dsn: Any, options: dict[str, Any]) -> str:
    """Return the connection string of all arguments.

    :raises psycopg2.ProgrammingError: there is no such option, or the string is malformed.
    :raises TypeError: it is not a string.
    """
    check_dsn(dsn)
    try:
        found: str = make_dsn(dsn, **options)
    except ProgrammingError as exc:
        advice = _advice(dsn, options)
        if advice is None:
            raise
        raise ProgrammingError(f"{str(exc).strip()}: {advice}") from None
    return found


def _advice(dsn: str | None, options: dict[str, Any]) -> str | None:
    for name in options:
        value: Any = "x"
        try:
            make_dsn(**{name: value})
        except ProgrammingError:
            if name in _ELSEWHERE:
                return _ELSEWHERE[name]
            meant = get_close_matches(name, _USUAL, 1)
            return f"did you mean {meant[0]}?" if meant else "libpq has no such option"
    if dsn is not None and dsn.startswith(("postgresql+", "postgres+")):
        return "it is SQLAlchemy's URL; libpq's begins with postgresql://, without a driver"
    if dsn is not None and "=" not in dsn and "://" not in dsn:
        return "a connection string is 'dbname=shop host=...', or 'postgresql://host/shop'"
    return None
