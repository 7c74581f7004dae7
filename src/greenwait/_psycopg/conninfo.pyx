"""Connection strings, as libpq reads them with its service file and environment."""

from greenwait._psycopg.libpq cimport PGconn, PQconninfoOption, can_merge_options, libpq

import os

from greenwait._psycopg import psycopg2
from greenwait._psycopg.psycopg2 import make_dsn, parse_dsn

__all__ = ["connection_options"]

# libpq rejects this value after reading all settings and before using any.
cdef str NO_SSLMODE = "none of libpq's"

# The variables of the options that connect() reads (libpq manual, "Environment Variables").
_VARIABLES = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
}
if psycopg2.LIBPQ_VERSION >= 160000:
    _VARIABLES["load_balance_hosts"] = "PGLOADBALANCEHOSTS"


def connection_options(str dsn):
    """Return the options in effect for *dsn*: its own, the service file's, the environment's.

    libpq reads them itself, so that all its rules are kept. Where it fails to, nothing is returned,
    and connecting fails too. Where libpq can't be reached, the service file is not read.

    :raises psycopg2.ProgrammingError: *dsn* is not a connection string.
    :raises ValueError: *dsn* contains a NUL, which ends a C string: libpq would see another host.
    """
    cdef PGconn* pgconn
    cdef PQconninfoOption* options
    cdef PQconninfoOption* option
    cdef bytes encoded
    if "\0" in dsn:
        raise ValueError("embedded null character")  # as psycopg2.connect() says it
    own = parse_dsn(dsn)
    if not can_merge_options:
        return {
            name: os.environ[variable]
            for name, variable in _VARIABLES.items()
            if os.environ.get(variable)
        } | own
    encoded = make_dsn(**own | {"sslmode": NO_SSLMODE}).encode()
    pgconn = libpq.connectStart(encoded)
    if pgconn is NULL:
        raise MemoryError
    try:
        options = libpq.conninfo(pgconn)
    finally:
        libpq.finish(pgconn)
    if options is NULL:
        raise MemoryError
    found = {}
    try:
        option = options
        while option.keyword is not NULL:
            if option.val is not NULL and option.val[0] != 0:
                found[option.keyword.decode()] = option.val.decode("utf-8", "surrogateescape")
            option += 1
    finally:
        libpq.conninfoFree(options)
    return found
