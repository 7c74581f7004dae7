"""A PgBouncer before a server of one's own, for the tests and the benchmarks. Needs Linux.

It is a program of the system's: Debian has it as ``pgbouncer``.
"""

import contextlib
import os
import resource
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import psycopg2
import psycopg2.extensions

from tests.lab.postgres import ExternalServer, Server

__all__ = ["HOW_TO_INSTALL", "POOL_MODES", "PoolMode", "PooledServer", "find_program", "pooled"]

HOW_TO_INSTALL = "apt-get install pgbouncer"
PoolMode = Literal["session", "transaction"]
POOL_MODES: tuple[PoolMode, ...] = get_args(PoolMode)

_DATABASE = "bouncer"
_START_TIMEOUT = 60.0

# options: a test may set some as it connects, which this pooler does not pass on.
_SETTINGS = """
[databases]
{database} = host={host} port={server_port} dbname={dbname} user={user}
[pgbouncer]
listen_port = {port}
unix_socket_dir = {host}
auth_type = any
pool_mode = {pool_mode}
max_client_conn = 20000
listen_backlog = 4096
default_pool_size = {pool_size}
ignore_startup_parameters = options
log_connections = 0
log_disconnections = 0
"""


def find_program() -> Path | None:
    """Return PgBouncer's program, None if there is none."""
    found = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    return None if found is None else Path(found)


@contextlib.contextmanager
def pooled(
    program: Path, server: Server, pool_mode: PoolMode, *, pool_size: int = 20
) -> Iterator[str]:
    """Run a PgBouncer before *server*, and give the connection string for it.

    It is on a unix socket in the server's directory. As root it runs as ``nobody``, since it
    refuses to run as root.
    """
    options = psycopg2.extensions.parse_dsn(server.dsn("unix"))
    port = int(options["port"]) + 1  # on a unix socket of our own directory
    settings = server.directory / "pgbouncer.ini"
    settings.write_text(
        _SETTINGS.format(
            database=_DATABASE,
            host=options["host"],
            server_port=options["port"],
            dbname=options["dbname"],
            user=options["user"],
            port=port,
            pool_mode=pool_mode,
            pool_size=pool_size,
        )
    )
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # PgBouncer's too
    as_user: dict[str, Any] = {"user": "nobody"} if os.geteuid() == 0 else {}
    process = subprocess.Popen([program, "--quiet", settings], **as_user)
    try:
        give_up = time.monotonic() + _START_TIMEOUT
        while not _listens(str(server.directory / f".s.PGSQL.{port}")):
            if process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"PgBouncer did not start: {settings.read_text()}")
            time.sleep(0.01)
        yield server.dsn("unix", port=port, dbname=_DATABASE)
    finally:
        process.kill()
        process.wait()


def _listens(path: str) -> bool:
    """Return whether it accepts: its socket is there before that."""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as sock:
        return sock.connect_ex(path) == 0


class PooledServer(ExternalServer):
    """A server of one's own that is reached through a PgBouncer only."""

    def __init__(self, pool_mode: PoolMode) -> None:
        super().__init__("")
        self._pool_mode: PoolMode = pool_mode
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> "PooledServer":
        program = find_program()
        if program is None:
            raise RuntimeError(f"there is no PgBouncer here: {HOW_TO_INSTALL}")
        with self._cleanup:
            server = self._cleanup.enter_context(Server())
            self._dsn = self._cleanup.enter_context(
                pooled(program, server, self._pool_mode, pool_size=400)
            )
            self._cleanup = self._cleanup.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._cleanup.close()
