"""Where a newcomer works: an empty HOME, and an environment of Python with nothing in it."""

import os
import re
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import psycopg2.extensions

# How pip reaches its index here. All else that a newcomer has is PATH, HOME, LANG and the server.
_NETWORK = re.compile(r"PIP_\w+|(\w+_proxy)|SSL_CERT_\w+|REQUESTS_CA_BUNDLE", re.IGNORECASE)
_SERVER = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD"}


class Done(NamedTuple):
    """What a command came to; its status is None if it had to be killed."""

    status: int | None
    stdout: str
    stderr: str


def server_settings(dsn: str) -> dict[str, str]:
    """Return libpq's variables for the server at *dsn*."""
    found = psycopg2.extensions.parse_dsn(dsn)
    return {name: found[key] for key, name in _SERVER.items() if key in found}


class Home:
    """An empty HOME at *home*, and wheels of ours that pip finds; *cache* is pip's."""

    def __init__(self, home: Path, wheels: Path, cache: Path) -> None:
        self._home = home
        self._home.mkdir()
        network = {name: value for name, value in os.environ.items() if _NETWORK.fullmatch(name)}
        self._settings = network | {
            "HOME": str(self._home),
            "LANG": "C.UTF-8",
            "PIP_CACHE_DIR": str(cache),
            "PIP_FIND_LINKS": f"{network.get('PIP_FIND_LINKS', '')} {wheels}".strip(),
        }

    def run(
        self,
        command: str | Sequence[str | Path],
        folder: Path,
        environment: Path,
        timeout: float,
        **settings: str,
    ) -> Done:
        """Run *command*, of a shell if it is a str, in *environment*, which is first on PATH.

        :param timeout: seconds, after which it is killed, with all that it has started
        """
        path = f"{environment}/bin:/usr/local/bin:/usr/bin:/bin"
        process = subprocess.Popen(
            ["sh", "-c", command] if isinstance(command, str) else command,
            cwd=folder,
            env=self._settings | settings | {"PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        status: int | None
        try:
            stdout, stderr = process.communicate(timeout=timeout)
            status = process.returncode
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            stdout, stderr = process.communicate()
            status = None
        return Done(status, stdout, stderr)

    def left(self) -> list[str]:
        """Return the names of what was put there."""
        return sorted(path.name for path in self._home.iterdir())
