"""The installed psycopg2, with its version checked.

Modules import psycopg2's names from here, so that a missing or an old psycopg2 is reported
once, with what to install.

Compiled modules copy the functions they call into C variables (``cdef object``): these outlive
the module's dict, so that a query from a ``__del__`` at interpreter exit still finds them.
"""

from typing import Any

__all__ = [
    "EXTENSION_FILE",
    "LIBPQ_VERSION",
    "OLDEST",
    "SQLSTATE_ERRORS",
    "STATUS_BEGIN",
    "STATUS_PREPARED",
    "STATUS_READY",
    "TRANSACTION_STATUS_IDLE",
    "VERSION",
    "DatabaseError",
    "Error",
    "InterfaceError",
    "InvalidCursorName",
    "OperationalError",
    "ProgrammingError",
    "QueryCanceled",
    "ReplicationConnection",
    "ReplicationCursor",
    "ReplicationMessage",
    "connection",
    "cursor",
    "encodings",
    "get_wait_callback",
    "make_dsn",
    "parse_dsn",
    "set_wait_callback",
    "version_info",
]

OLDEST = (2, 9)

_HOW_TO_INSTALL = (
    "install it with \"pip install 'greenwait[binary]'\" (psycopg2-binary, no compiler needed) "
    "or \"pip install 'greenwait[psycopg2]'\" (built from source, with the system's libpq)"
)


def version_info(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a psycopg2 version: of ``"2.9.13 (dt dec)"``, (2, 9, 13)."""
    release = version.split()[0]
    return tuple(int(part) for part in release.split(".") if part.isdigit())


def _import_version() -> str:
    try:
        import psycopg2
    except ModuleNotFoundError as exc:
        if exc.name != "psycopg2":
            raise
        raise ImportError(f"greenwait needs psycopg2: {_HOW_TO_INSTALL}", name="psycopg2") from exc
    version = str(vars(psycopg2)["__version__"])  # missing in its stubs
    if version_info(version) < OLDEST:
        raise ImportError(
            f"greenwait needs psycopg2 >= 2.9, and this is {version.split()[0]}: {_HOW_TO_INSTALL}",
            name="psycopg2",
        )
    return version


#: psycopg2's version, with its build's features: ``"2.9.13 (dt dec pq3 ext lo64)"``.
VERSION = _import_version()

from psycopg2 import (  # noqa: E402, only after the check of its version
    DatabaseError,
    Error,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    _psycopg,
)
from psycopg2.errors import InvalidCursorName, QueryCanceled  # noqa: E402
from psycopg2.extensions import (  # noqa: E402
    STATUS_BEGIN,
    STATUS_PREPARED,
    STATUS_READY,
    TRANSACTION_STATUS_IDLE,
    connection,
    cursor,
    encodings,
    get_wait_callback,
    libpq_version,
    make_dsn,
    parse_dsn,
    set_wait_callback,
)

#: psycopg2 exports them from psycopg2.extras, which imports much else.
ReplicationConnection: Any = _psycopg.ReplicationConnection
ReplicationCursor: Any = _psycopg.ReplicationCursor
ReplicationMessage: Any = _psycopg.ReplicationMessage
#: The libpq that psycopg2 has loaded, as PQlibVersion() puts it: 170006 for 17.6.
LIBPQ_VERSION = libpq_version()
#: The exception class of each SQLSTATE, in the dict that psycopg2 itself uses.
SQLSTATE_ERRORS: dict[str, type[Error]] = _psycopg.sqlstate_errors
#: The file of psycopg2's compiled module, which is linked with that libpq.
EXTENSION_FILE: str | None = getattr(_psycopg, "__file__", None)
