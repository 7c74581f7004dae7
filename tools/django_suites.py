"""Compare how Django's own test-suites end on greenwait's backend and on Django's.

    python -m tools.django_suites [--django 4.2]

The suites are in Django's source distribution. The one that belongs to the installed Django, or
the newest of the version asked for, is fetched into build/django and unpacked in a temporary
folder. Its ``runtests.py`` is run on a PostgreSQL of our own, on Django's backend with psycopg2,
the baseline, then on greenwait's, without and with its pool. Each test that the baseline passes has
to pass, except those of ``EXCEPT``.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import psycopg2

from tests.lab.postgres import Server

LABELS = (
    *("backends", "transactions", "transaction_hooks", "basic", "async", "db_functions"),
    *("asgi", "test_client", "test_utils", "queries", "postgres_tests"),
)
BASELINE = "Django's"
OURS = ("greenwait's", "greenwait's with a pool")
# It expects OPTIONS["pool"] to be refused.
EXCEPT = {"backends.postgresql.tests.Tests.test_connect_pool_setting_ignored_for_psycopg2"}
# Django itself skips these where OPTIONS has a pool, but not yet in 4.2.
_HEALTH_CHECKS = "backends.base.test_base.ConnectionHealthChecksTests"
EXCEPT_WITH_POOL = {
    f"{_HEALTH_CHECKS}.test_health_checks_enabled",
    f"{_HEALTH_CHECKS}.test_set_autocommit_health_checks_enabled",
}
_CACHE = Path(__file__).resolve().parent.parent / "build" / "django"
_ROOT = Path(__file__).resolve().parent.parent
_DOWNLOAD_TIMEOUT = 300
_SUITE_TIMEOUT = 900  # it takes about a minute

# The settings, and the runner that they name. It is put beside the suites.
_SETTINGS = """
import json
import os
import sys
import unittest

from psycopg2.extensions import parse_dsn

backend = os.environ["SUITE_BACKEND"]
if backend == "Django's":
    sys.modules["psycopg"] = None  # it would be preferred
else:
    import greenwait

    greenwait.install()
given = parse_dsn(os.environ["SUITE_DSN"])
options = {"USER": given["user"], "HOST": given["host"], "PORT": given["port"]}
options["ENGINE"] = (
    "django.db.backends.postgresql" if backend == "Django's" else "greenwait.django"
)
if backend.endswith("pool"):
    options["OPTIONS"] = {"pool": {"max_size": 8, "timeout": 5}}
DATABASES = {"default": {**options, "NAME": "one"}, "other": {**options, "NAME": "two"}}
SECRET_KEY = "not one"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
TEST_RUNNER = "suite_settings.Runner"
outcomes = {}


class Result(unittest.TextTestResult):
    def addSuccess(self, test):
        super().addSuccess(test)
        outcomes.setdefault(test.id(), "passed")

    addExpectedFailure = lambda self, test, err: outcomes.setdefault(test.id(), "passed")

    def addError(self, test, err):
        super().addError(test, err)
        outcomes[test.id()] = "error: " + self._exc_info_to_string(err, test)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        outcomes[test.id()] = "failed: " + self._exc_info_to_string(err, test)

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            outcomes[test.id()] = "failed: " + self._exc_info_to_string(err, test)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        outcomes[test.id()] = "skipped: " + reason


def __getattr__(name):
    if name != "Runner":
        raise AttributeError(name)
    from django.test.runner import DiscoverRunner

    class Runner(DiscoverRunner):
        def get_resultclass(self):
            return Result

        def teardown_databases(self, *args, **kwargs):
            super().teardown_databases(*args, **kwargs)  # fails if a session is left
            with open(os.environ["SUITE_REPORT"], "w") as file:
                json.dump(outcomes, file)

    return Runner
"""


def fetch_source(version: str) -> Path:
    """Return Django's source distribution of *version*, from the cache or fetched with pip."""
    folder = _CACHE / version
    if not list(folder.glob("*.tar.gz")):
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download"]
        command += ["--quiet", "--no-deps", "--no-binary=django", f"--dest={folder}"]
        done = subprocess.run([*command, f"django=={version}"], timeout=_DOWNLOAD_TIMEOUT)
        if done.returncode != 0:
            sys.exit(f"Django's tests come with its source: put it into {folder}")
    (found,) = folder.glob("*.tar.gz")
    return found


def run(backend: str, source: Path, server: Server, labels: tuple[str, ...]) -> dict[str, str]:
    """Run the suites on a backend; return how each test ended."""
    report = source / "report.json"
    report.unlink(missing_ok=True)
    environment = os.environ | {
        "SUITE_BACKEND": backend,
        "SUITE_DSN": server.dsn(server.transports[0]),
        "SUITE_REPORT": str(report),
        "PYTHONPATH": os.pathsep.join(map(str, (source, source / "tests", _ROOT / "src"))),
    }
    command = [sys.executable, "runtests.py", "--settings=suite_settings", "--parallel=1"]
    done = subprocess.run(
        [*command, "--noinput", "--verbosity=1", *labels],
        cwd=source / "tests",
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_SUITE_TIMEOUT,
    )
    if done.returncode not in (0, 1) or not report.exists():
        print(done.stdout.decode(errors="replace")[-20_000:])
        sys.exit(f"{backend}: the suites' process ended with status {done.returncode}")
    outcomes: dict[str, str] = json.loads(report.read_text())
    return outcomes


def fit_to_server(source: Path, server: Server) -> None:
    """Leave out the one extension that a wheel's PostgreSQL lacks, and no test needs."""
    with contextlib.closing(psycopg2.connect(server.dsn(server.transports[0]))) as conn:
        cur = conn.cursor()
        cur.execute("select 1 from pg_available_extensions where name = 'uuid-ossp'")
        if cur.fetchone() is None:
            migration = source / "tests/postgres_tests/migrations/0001_setup_extensions.py"
            text = migration.read_text()
            migration.write_text(text.replace('        CreateExtension("uuid-ossp"),\n', ""))


def main() -> None:
    """Run the suites on each backend; exit with 1 if a test ends worse on ours."""
    parser = argparse.ArgumentParser(description="Django's own tests on greenwait's backend")
    parser.add_argument("--django", metavar="VERSION", help="not the installed one; 4.2, say")
    parser.add_argument("labels", nargs="*", default=LABELS, help="the suites, if not all")
    options = parser.parse_args()
    if options.django is None:
        import django

        version = django.__version__
    else:
        version = f"{options.django}.*"
    failures = 0
    with tempfile.TemporaryDirectory() as folder, Server() as server:
        shutil.unpack_archive(fetch_source(version), folder, filter="data")
        (source,) = Path(folder).iterdir()
        (source / "tests" / "suite_settings.py").write_text(_SETTINGS)
        fit_to_server(source, server)
        print(f"the test-suites of {source.name}", flush=True)
        expected: dict[str, str] = {}
        for backend in (BASELINE, *OURS):
            outcomes = run(backend, source, server, tuple(options.labels))
            expected = expected or outcomes
            worse = {
                test: outcomes.get(test, "not run")
                for test, outcome in expected.items()
                if outcome == "passed"
                and outcomes.get(test) != "passed"
                and test not in EXCEPT
                and not (backend.endswith("pool") and test in EXCEPT_WITH_POOL)
            }
            for test, how in worse.items():
                print(f"{backend}: {test}: {how}")
            counts = Counter(outcome.split(":")[0] for outcome in outcomes.values())
            print(f"on {backend} backend: {dict(counts)}, {len(worse)} worse", flush=True)
            failures += len(worse) + (not counts["passed"])
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
