"""Compare how psycopg2's own test-suite ends under greenwait and under ``wait_select``.

    python -m tools.conformance

The suite is in psycopg2's source distribution. The one that belongs to the installed psycopg2 is
fetched into build/conformance and unpacked in a temporary folder, then run by pytest in green mode
on a PostgreSQL of our own: first under psycopg2's own callback, the baseline, then under each of
ours. A callback conforms when nothing fails and every test ends as it did under the baseline: a
test can't be passed by being skipped.

What psycopg2 itself lacks in green mode, its suite skips there. Those tests are run with
greenwait's classes in the place of psycopg2's, and their baseline is blocking psycopg2; but not
those that take libpq's functions, where these are not called (``make plain``).
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import psycopg2

from greenwait._psycopg.libpq import FAST_PATHS
from tests.lab.postgres import DATABASE, USER, Server, find_binaries

BASELINE = "psycopg2.extras.wait_select"
BLOCKING = "blocking psycopg2"
WITH_CLASSES = "greenwait's classes and "  # before a callback's name
# Of what green mode lacks, by the functions of libpq that it takes. The one test of the other class
# in test_replication.py is about async_=1, which is psycopg2's own.
LACKING = {
    "tests/test_copy.py": "COPY",
    "tests/test_replication.py::ReplicationTest": "replication",
    "tests/test_lobject.py": None,
}
OURS = ("greenwait.wait", "greenwait.EpollWaitCallback")
_CACHE = Path(__file__).resolve().parent.parent / "build" / "conformance"
_DOWNLOAD_TIMEOUT = 300.0
_SUITE_TIMEOUT = 600.0  # it takes about 25 s
_TEST_TIMEOUT = 120
_ENDINGS = {"error": "error", "failure": "failed", "skipped": "skipped"}  # by JUnit's words

# It is put beside the suite's folder.
_CONFTEST = """
import ctypes
import os
import pkgutil

import psycopg2._psycopg
import psycopg2.extras
from psycopg2.extensions import get_wait_callback, set_wait_callback

callback = None
if os.environ["CONFORMANCE_CALLBACK"]:
    callback = pkgutil.resolve_name(os.environ["CONFORMANCE_CALLBACK"])
    psycopg2.extras.wait_select = callback  # where tests/testconfig.py takes it from

if os.environ["CONFORMANCE_CLASSES"]:  # and the suite does not know of the callback
    import greenwait

    def connect(dsn=None, connection_factory=greenwait.Connection, *args, **kwargs):
        return psycopg2_connect(dsn, connection_factory, *args, **kwargs)

    psycopg2_connect, psycopg2.connect = psycopg2.connect, connect
    psycopg2.extras.LogicalReplicationConnection = greenwait.LogicalReplicationConnection
    psycopg2.extras.PhysicalReplicationConnection = greenwait.PhysicalReplicationConnection
    set_wait_callback(callback)

from tests.testutils import ConnectingTestCase

# test_pgconn_ptr hands a PGconn to libpq: it has to be the libpq that psycopg2 has loaded,
# which is reached through psycopg2, and not the system's, which the suite would look for.
ConnectingTestCase._libpq = ctypes.PyDLL(psycopg2._psycopg.__file__, os.RTLD_NOW | os.RTLD_NOLOAD)


def pytest_sessionstart():
    assert get_wait_callback() is callback


def pytest_sessionfinish():
    assert get_wait_callback() is callback
"""


def fetch_source(version: str) -> Path:
    """Return psycopg2's source distribution of *version*, from the cache or fetched with pip."""
    cached = _CACHE / f"psycopg2-{version}.tar.gz"
    if not cached.exists():
        # pip asks the source's setup.py for metadata, and that needs a pg_config: where the
        # system has none, the one of the server that we start is good enough.
        path = os.pathsep.join([str(find_binaries()), os.environ.get("PATH", os.defpath)])
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download"]
        command += ["--no-deps", "--no-binary=psycopg2", f"--dest={_CACHE}", f"psycopg2=={version}"]
        environment = os.environ | {"PATH": path}
        done = subprocess.run([*command, "--quiet"], env=environment, timeout=_DOWNLOAD_TIMEOUT)
        if done.returncode != 0:
            sys.exit(f"psycopg2's tests come with its source: put {cached.name} into {_CACHE}")
    return cached


@dataclass
class Run:
    """What the suite came to under one callback."""

    callback: str
    outcomes: dict[str, str] = field(default_factory=dict)  # passed, skipped, failed or error
    details: dict[str, str] = field(default_factory=dict)  # a traceback; why it was skipped

    def read(self, report: Path) -> None:
        """Read how each test ended: one with subtests, as the last that did not pass."""
        for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314, pytest's
            test = f"{case.get('classname')}.{case.get('name')}"
            self.outcomes.setdefault(test, "passed")
            for child in case:
                if child.tag in _ENDINGS:
                    self.outcomes[test] = _ENDINGS[child.tag]
                    self.details[test] = f"{child.get('message')}\n{child.text}"

    def bad(self, baseline: "Run") -> dict[str, str]:
        """Return the tests that failed, or ended otherwise than under *baseline*, and how."""
        bad = {}
        for test in baseline.outcomes | self.outcomes:
            ours, theirs = (run.outcomes.get(test, "not run") for run in (self, baseline))
            if ours in ("failed", "error") or ours != theirs:
                bad[test] = f"{ours}, and under {baseline.callback} {theirs}"
                bad[test] += f"\n{self.details.get(test, '')}"
        return bad


def run(callback: str, source: Path, tests: tuple[str, ...] = ("tests",)) -> Run:
    """Run the suite under *callback*, in a process and on a server of its own."""
    result = Run(callback)
    with Server() as server, tempfile.TemporaryDirectory() as folder:
        with contextlib.closing(psycopg2.connect(server.dsn())) as conn, conn:
            conn.cursor().execute("create extension hstore")
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-p", "pytest_timeout", "-p", "no:cacheprovider"]
        command += [f"--timeout={_TEST_TIMEOUT}", "--timeout-method=thread", "-W", "default"]
        done = subprocess.run(
            [*command, "-v", f"--junit-xml={report}", *tests],
            cwd=source,
            env=_environment(server, callback),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_SUITE_TIMEOUT,
        )
        if done.returncode not in (0, 1):  # 1: some have failed
            print(done.stdout.decode(errors="replace")[-20_000:])
            sys.exit(f"{callback}: the suite's process ended with status {done.returncode}")
        result.read(report)
    return result


def _environment(server: Server, callback: str) -> dict[str, str]:
    """Return our environment with the suite's settings, and none that change what it does."""
    ours = ("PG", "PSYCOPG2_TEST", "PYTHONWARNINGS", "PYTEST")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    if callback != BLOCKING and not callback.startswith(WITH_CLASSES):
        kept["PSYCOPG2_TEST_GREEN"] = "1"
    return kept | {
        "CONFORMANCE_CALLBACK": (
            "" if callback == BLOCKING else callback.removeprefix(WITH_CLASSES)
        ),
        "CONFORMANCE_CLASSES": "1" if callback.startswith(WITH_CLASSES) else "",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PSYCOPG2_TESTDB": DATABASE,
        "PSYCOPG2_TESTDB_HOST": str(server.directory),
        "PSYCOPG2_TESTDB_PORT": str(server.port),
        "PSYCOPG2_TESTDB_USER": USER,
        "PSYCOPG2_TEST_REPL_DSN": "",  # the replication tests too, on the same database
    }


def has(functions: str) -> bool:
    """Return whether greenwait calls the functions of libpq that it needs for it."""
    return FAST_PATHS[functions] == "on"


def main() -> None:
    """Run the suite under each callback; exit with 1 unless each conforms."""
    version = str(vars(psycopg2)["__version__"]).split()[0]  # not in the stubs
    total: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        shutil.unpack_archive(fetch_source(version), folder, filter="data")
        (source,) = Path(folder).iterdir()
        (source / "conftest.py").write_text(_CONFTEST)
        print(f"the test-suite of psycopg2 {version}, in green mode", flush=True)
        total += _compare_with(BASELINE, OURS, source, ("tests",))
        lacking = tuple(test for test, takes in LACKING.items() if not takes or has(takes))
        print(f"its tests of what green mode lacks, {', '.join(lacking)}", flush=True)
        with_classes = tuple(f"{WITH_CLASSES}{callback}" for callback in OURS)
        total += _compare_with(BLOCKING, with_classes, source, lacking)
    print(f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
    sys.exit(1 if total["failed"] or not total["passed"] else 0)


def _compare_with(
    baseline: str, callbacks: tuple[str, ...], source: Path, tests: tuple[str, ...]
) -> Counter[str]:
    """Run *tests* under the baseline and under *callbacks*, and count how they ended."""
    total: Counter[str] = Counter()
    expected: Run | None = None
    for callback in (baseline, *callbacks):
        result = run(callback, source, tests)
        expected = expected or result
        bad = result.bad(expected)
        for test, how in bad.items():
            print(f"{callback}: {test}: {how}")
        count = Counter(result.outcomes.values())
        print(
            f"{callback}: {len(result.outcomes)} run, {count['failed']} failures, "
            f"{count['error']} errors, {count['skipped']} skipped, "
            f"{len(bad)} bad or otherwise than under {baseline}",
            flush=True,
        )
        total["failed"] += len(bad)
        total.update(outcome for test, outcome in result.outcomes.items() if test not in bad)
    return total


if __name__ == "__main__":
    main()
