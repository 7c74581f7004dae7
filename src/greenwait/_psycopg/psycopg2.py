"""The psycopg2 that is installed, checked for its version.

Every module takes what it needs of psycopg2 from here, so that a missing or an old
one is reported once, in words that say what to install.

Compiled modules copy what they call into C variables of theirs (``cdef object``): these outlive a
module's dict, so that a query from a ``__del__`` at interpreter exit still finds them.
"""

__all__ = [
    "EXTENSION_FILE",
    "LIBPQ_VERSION",
    "OLDEST",
    "SQLSTATE_ERRORS",
    "STATUS_BEGIN",
    "STATUS_READY",
    "VERSION",
    "DatabaseError",
    "Error",
    "InterfaceError",
    "OperationalError",
    "ProgrammingError",
    "QueryCanceled",
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
    version = str(vars(psycopg2)["__version__"])  # which its stubs do not know
    if version_info(version) < OLDEST:
        raise ImportError(
            f"greenwait needs psycopg2 >= 2.9, and this is {version.split()[0]}: {_HOW_TO_INSTALL}",
            name="psycopg2",
        )
    return version


#: What psycopg2 calls itself, with its build's features: ``"2.9.13 (dt dec pq3 ext lo64)"``.
VERSION = _import_version()

from psycopg2 import (  # noqa: E402, only once it is one of ours
    DatabaseError,
    Error,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    _psycopg,
)
from psycopg2.errors import QueryCanceled  # noqa: E402
from psycopg2.extensions import (  # noqa: E402
    STATUS_BEGIN,
    STATUS_READY,
    connection,
    cursor,
    encodings,
    get_wait_callback,
    libpq_version,
    make_dsn,
    parse_dsn,
    set_wait_callback,
)

#: The libpq that psycopg2 has loaded, as PQlibVersion() puts it: 170006 for 17.6.
LIBPQ_VERSION = libpq_version()
#: The class of each SQLSTATE's exception, where psycopg2 itself looks them up.
SQLSTATE_ERRORS: dict[str, type[Error]] = _psycopg.sqlstate_errors
#: psycopg2's compiled module, which is linked with that libpq.
EXTENSION_FILE: str | None = getattr(_psycopg, "__file__", None)
