"""The server of the run: ours, or the one that is named, maybe with a PgBouncer before it.

``GREENWAIT_TEST_POOLING=session`` (or ``transaction``) puts a PgBouncer between the tests and their
server. It is the client's server then: it makes the keys that cancel a query, and says by itself
how connections stand.
"""

import os

from tests.lab import pgbouncer, postgres

__all__ = ["POOL_MODE", "running"]

_WANTED = os.environ.get("GREENWAIT_TEST_POOLING")
POOL_MODE: pgbouncer.PoolMode | None = next(
    (mode for mode in pgbouncer.POOL_MODES if mode == _WANTED), None
)


def running() -> postgres.Server | postgres.ExternalServer:
    """Return the server to use, a context manager that runs it."""
    return postgres.running() if POOL_MODE is None else pgbouncer.PooledServer(POOL_MODE)
