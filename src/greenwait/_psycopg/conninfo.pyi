"""Connection strings, as libpq reads them with its service file and environment."""

__all__ = ["connection_options"]

def connection_options(dsn: str) -> dict[str, str]:
    """Return the options in effect for *dsn*: its own, the service file's, the environment's.

    libpq reads them itself, so that all its rules are kept. Where it fails to, nothing is returned,
    and connecting fails too. Where libpq can't be reached, the service file is not read.

    :raises psycopg2.ProgrammingError: *dsn* is not a connection string.
    :raises ValueError: *dsn* contains a NUL, which ends a C string: libpq would see another host.
    """
