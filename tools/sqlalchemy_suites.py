"""Compare how SQLAlchemy's own test-suites end on greenwait's dialects and on SQLAlchemy's.

    python -m tools.sqlalchemy_suites [--version 2.0.0] [--suite engine] [--slice]

The suites are in SQLAlchemy's source distribution. The one that belongs to the installed
SQLAlchemy, or to the version asked for, is fetched into build/sqlalchemy and unpacked in a
temporary folder. They are run on a PostgreSQL of our own: on ``postgresql+psycopg2``, the baseline
of ``postgresql+greenwait``, and on ``postgresql+psycopg_async``, that of
``postgresql+greenwait_async``. Each test that the baseline passes has to pass on ours. What
SQLAlchemy does for, or expects of, the driver psycopg2 is asked of ours too.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from importlib.metadata import version as installed_version
from pathlib import Path

import psycopg2
from psycopg2.extensions import parse_dsn

from tests.lab.postgres import Server

SUITES = {
    "dialect": ("test/dialect/test_suite.py",),
    "postgresql": ("test/dialect/postgresql",),
    "orm": ("test/orm", "--backend-only"),
    "asyncio": ("test/ext/asyncio",),
    "engine": ("test/engine",),
}
SLICE = (*SUITES["dialect"], *SUITES["engine"])  # what CI has time for: that, and asyncio's
BASELINES = {"greenwait": "psycopg2", "greenwait_async": "psycopg_async"}
ASYNC_ONLY = "asyncio"
_ROOT = Path(__file__).resolve().parent.parent
_CACHE = _ROOT / "build" / "sqlalchemy"
_DOWNLOAD_TIMEOUT = 300
_SUITE_TIMEOUT = 1800
_TEST_TIMEOUT = 120
_SHOWN = 1500  # characters of what a test says

# A plugin of pytest's, in the suites' processes and in the one that collects what they report.
_PLUGIN = """
import copy
import json
import os
import re

import pytest

DRIVER = os.environ["SUITE_DRIVER"]
OURS = DRIVER.startswith("greenwait")
if OURS:
    import greenwait

    greenwait.install()
outcomes = {}


@pytest.hookimpl(wrapper=True)
def pytest_sessionstart(session):
    if not OURS:
        return (yield)
    import sqlalchemy.dialects.postgresql.provision  # how a database is made, for ours too

    result = yield  # only now can the modules of tests be imported
    from sqlalchemy.testing.exclusions import SpecPredicate
    from sqlalchemy.testing.suite import ServerSideCursorsTest

    # The suites know drivers by their names, and those of SQLAlchemy only.
    def matches(self, config, call=SpecPredicate.__call__):
        spec = copy.copy(self)
        if config is not None:
            spec.db = re.sub(r"[+]psycopg2$", "+" + config.db.driver, self.db)
        return call(spec, config)

    SpecPredicate.__call__ = matches
    ServerSideCursorsTest._is_server_side = lambda self, cursor: bool(cursor.name)

    return result


def pytest_runtest_logreport(report):
    # Of a class it says which driver and server it is for: Test_postgresql+psycopg2_17_10.
    test = re.sub(r"_postgresql[+]\\w+?(_\\d+)+(?=::|$)", "", report.nodeid)
    if report.failed:
        outcomes[test] = f"failed: in {report.when}: {report.longreprtext}"
    elif report.skipped:
        outcomes.setdefault(test, "skipped: " + str(report.longrepr))
    elif report.when == "call":
        outcomes.setdefault(test, "passed")


def pytest_sessionfinish(session):
    if not hasattr(session.config, "workerinput"):
        with open(os.environ["SUITE_REPORT"], "w") as file:
            json.dump(outcomes, file)
"""


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run([*command, "--quiet", "--no-deps"], timeout=_DOWNLOAD_TIMEOUT)
    if done.returncode != 0:
        sys.exit(f"{' '.join(arguments)}: pip ended with status {done.returncode}")


def fetch_source(version: str) -> Path:
    """Return SQLAlchemy's source distribution, from the cache or fetched with pip."""
    folder = _CACHE / version
    if not list(folder.glob("*.tar.gz")):
        _pip("download", "--no-binary=sqlalchemy", f"--dest={folder}", f"sqlalchemy=={version}")
    (found,) = folder.glob("*.tar.gz")
    return found


def install(version: str, place: Path) -> None:
    """Let the suites import SQLAlchemy of *version*, if another one is installed."""
    if version != installed_version("sqlalchemy"):
        folder = _CACHE / version / "installed"
        if not folder.exists():
            _pip("install", f"--target={folder}", f"sqlalchemy=={version}")
        place.symlink_to(folder)


def prepare(server: Server) -> None:
    """Make what the suites expect of a database: README.unittests.rst lists it."""
    dsn = server.dsn("tcp")
    with contextlib.closing(psycopg2.connect(dsn)) as conn, conn, conn.cursor() as cur:
        cur.execute("create schema test_schema")
        cur.execute("create schema test_schema_2")
        cur.execute("create extension hstore")
        cur.execute("create extension citext")
        cur.execute('create collation "en_US" from "C"')  # in place of a system's locale
        # The user's, since the databases of pytest's processes are copies without settings.
        cur.execute("alter role current_user set default_text_search_config = 'english'")


def run(driver: str, tests: tuple[str, ...], source: Path, server: Server) -> dict[str, str]:
    """Run tests with a driver; return how each ended."""
    given = parse_dsn(server.dsn("tcp"))
    # There are tests that need a password, though the server does not ask for it.
    url = f"postgresql+{driver}://{given['user']}:any@{given['host']}:{given['port']}"
    report = source / "report.json"
    report.unlink(missing_ok=True)
    folders = (source / "installed", source / "plugin", _ROOT / "src")
    environment = os.environ | {
        "SUITE_DRIVER": driver,
        "SUITE_REPORT": str(report),
        "PGSSLMODE": "disable",
        # Else the suites import SQLAlchemy from the source, where nothing is compiled.
        "PYTHONNOUSERSITE": "1",
        "PYTHONPATH": os.pathsep.join(map(str, folders)),
    }
    command = [sys.executable, "-m", "pytest", "-p", "suite_plugin", "-p", "no:anyio"]
    command += ["--numprocesses=2", "--dist=worksteal", "--maxfail=1000000", "-qq", "-r", "N"]
    command += [f"--timeout={_TEST_TIMEOUT}", "--timeout-method=thread"]
    done = subprocess.run(
        [*command, f"--dburi={url}/{given['dbname']}", *tests],
        cwd=source,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_SUITE_TIMEOUT,
    )
    if done.returncode not in (0, 1) or not report.exists():
        print(done.stdout.decode(errors="replace")[-20_000:])
        sys.exit(f"{driver}: pytest ended with status {done.returncode}")
    outcomes: dict[str, str] = json.loads(report.read_text())
    return outcomes


def compare(suite: str, tests: tuple[str, ...], source: Path, server: Server) -> int:
    """Run a suite with each driver; print how it ended, and return how many tests are worse."""
    ended: dict[str, dict[str, str]] = {}
    failures = 0
    for ours, baseline in BASELINES.items():
        if suite == ASYNC_ONLY and ours != "greenwait_async":
            continue
        for driver in (baseline, ours):
            start = time.monotonic()
            ended[driver] = run(driver, tests, source, server)
            counts = Counter(outcome.split(":")[0] for outcome in ended[driver].values())
            seconds = time.monotonic() - start
            print(f"{suite} on {driver}: {dict(counts)}, {seconds:.0f} s", flush=True)
            failures += not counts["passed"]
        # The async dialect too is to have what psycopg2 has, and no more: psycopg 3 knows more
        # types. What SQLAlchemy says cannot pass where connections are async is not expected.
        expected = next(iter(ended.values()))
        worse = {
            test: ended[ours].get(test, "not run")
            for test, outcome in expected.items()
            if outcome == "passed"
            and ended[ours].get(test) != "passed"
            and not ended[baseline].get(test, "").startswith("failed")
        }
        for test, how in worse.items():
            print(f"{ours}: {test}: {how[-_SHOWN:]}")
        print(f"{suite} on {ours}: {len(worse)} worse", flush=True)
        failures += len(worse)
    return failures


def main() -> None:
    """Run the suites with each driver; exit with 1 if a test ends worse on ours."""
    parser = argparse.ArgumentParser(description="SQLAlchemy's own tests on greenwait's dialects")
    parser.add_argument("--version", default=installed_version("sqlalchemy"), help="another one")
    parser.add_argument("--suite", action="append", choices=SUITES, help="this one, not all")
    parser.add_argument("--slice", action="store_true", help="what takes five minutes")
    options = parser.parse_args()
    suites = {name: SUITES[name] for name in options.suite or SUITES}
    if options.slice:
        suites = {"slice": SLICE, ASYNC_ONLY: SUITES[ASYNC_ONLY]}
    failures = 0
    with tempfile.TemporaryDirectory() as folder, Server() as server:
        shutil.unpack_archive(fetch_source(options.version), folder, filter="data")
        (source,) = Path(folder).iterdir()
        (source / "plugin").mkdir()
        (source / "plugin" / "suite_plugin.py").write_text(_PLUGIN)
        install(options.version, source / "installed")
        prepare(server)
        print(f"the test-suites of {source.name}", flush=True)
        for suite, tests in suites.items():
            failures += compare(suite, tests, source, server)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
