"""Does psycopg2's own test-suite end under greenwait as it does under ``wait_select``?

    python -m tools.conformance [--callback NAME]... [-v]

The suite is in psycopg2's source distribution. The one that belongs to the
installed psycopg2 is fetched into build/conformance and unpacked in a temporary
folder, then run in green mode on a PostgreSQL of our own: first under psycopg2's
own callback, the baseline, then under each of ours. A callback conforms when
nothing fails and every test ends as it did under the baseline: a test can't be
passed by being skipped.
"""

import argparse
import contextlib
import ctypes
import faulthandler
import importlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import unittest
import warnings
from collections import Counter
from dataclasses import dataclass, field
from email import message_from_string
from pathlib import Path
from typing import Any, cast

import psycopg2
import psycopg2._psycopg
import psycopg2.extensions
import psycopg2.extras

from tools.postgres import DATABASE, USER, NoPostgresError, Server, find_binaries

BASELINE = "psycopg2.extras.wait_select"
OURS = ("greenwait.wait", "greenwait.EpollWaitCallback")
_ROOT = Path(__file__).resolve().parent.parent
_CACHE = _ROOT / "build" / "conformance"
_DOWNLOAD_TIMEOUT = 300.0
_SUITE_TIMEOUT = 600.0  # it takes about 25 s


class CannotRunError(Exception):
    """The suite could not be run at all, and this is what to do about it."""


# -- In a process of its own: the suite, once


class _Recorder(unittest.TextTestResult):
    """Remembers how every test ended; unittest itself forgets the ones that passed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._started: list[str] = []
        self._warned: list[str] = []

    def startTestRun(self) -> None:  # noqa: N802, unittest's name
        super().startTestRun()
        show = warnings.showwarning

        def remember(
            message: Warning | str, category: type[Warning], *where: Any, **more: Any
        ) -> None:
            test = self._started[-1] if self._started else "before the first test"
            self._warned.append(f"{test}: {category.__name__}: {message}")
            show(message, category, *where, **more)

        warnings.showwarning = remember  # the runner puts the old one back

    def startTest(self, test: unittest.TestCase) -> None:  # noqa: N802, unittest's name
        self._started.append(test.id())
        super().startTest(test)

    def report(self) -> dict[str, Any]:
        """Return what the fields of ``Run`` are made of."""
        outcomes = dict.fromkeys(self._started, "passed")
        details: dict[str, str] = {}
        endings: dict[str, list[tuple[Any, str]]] = {
            "skipped": list(self.skipped),
            "failed": self.failures
            + [(test, "passed, but was expected to fail") for test in self.unexpectedSuccesses],
            "error": list(self.errors),
        }
        for outcome, ended in endings.items():
            for test, detail in ended:
                name = getattr(test, "test_case", test).id()  # of a subtest: the test it is part of
                outcomes[name] = outcome
                details[name] = detail
        return {"outcomes": outcomes, "details": details, "warned": self._warned}


def run_suite(callback_name: str, source: Path, report: Path) -> None:
    """Run the suite in *source* under a callback and write to *report* how each test ended.

    Changes psycopg2, ``sys.path`` and the working folder, and where the suite
    hangs, dumps all stacks and ends the process.
    """
    faulthandler.enable()
    # Never cancelled: a process that has run the suite and then can't exit is a failure too.
    faulthandler.dump_traceback_later(_SUITE_TIMEOUT, exit=True)
    callback = pkgutil.resolve_name(callback_name)
    psycopg2.extras.wait_select = callback  # where tests/testconfig.py takes it from
    os.chdir(source)
    sys.path[0] = str(source)  # instead of the repository, which has a `tests` of its own
    suite = importlib.import_module("tests").test_suite()
    testcase = importlib.import_module("tests.testutils").ConnectingTestCase
    # test_pgconn_ptr hands a PGconn to libpq: it has to be the libpq that psycopg2 has loaded,
    # which is reached through psycopg2, and not the system's, which the suite would look for.
    testcase._libpq = ctypes.PyDLL(psycopg2._psycopg.__file__, mode=os.RTLD_NOW | os.RTLD_NOLOAD)
    registered = [psycopg2.extensions.get_wait_callback()]
    # The suite makes warnings errors while it is imported; for the run itself unittest.main(),
    # with which psycopg2 runs it, sets "default".
    runner = unittest.TextTestRunner(verbosity=2, resultclass=_Recorder, warnings="default")
    result = cast(_Recorder, runner.run(suite))
    report.write_text(json.dumps(result.report()))
    registered.append(psycopg2.extensions.get_wait_callback())
    if registered != [callback, callback]:
        sys.exit(f"{callback_name} was not the wait callback of the suite, but {registered}")


# -- The suite's source


def fetch_source(version: str) -> Path:
    """Return psycopg2's source distribution of *version*, from the cache or fetched with pip."""
    cached = _CACHE / f"psycopg2-{version}.tar.gz"
    if cached.exists():
        return cached
    _CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_CACHE) as folder:
        # pip asks the source's setup.py for metadata, and that needs a pg_config: where the
        # system has none, the one of the server that we start is good enough.
        path = os.pathsep.join([str(find_binaries()), os.environ.get("PATH", os.defpath)])
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download"]
        command += ["--no-deps", "--no-binary=psycopg2", f"--dest={folder}", f"psycopg2=={version}"]
        done = subprocess.run(
            command,
            env={**os.environ, "PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_DOWNLOAD_TIMEOUT,
        )
        if done.returncode != 0:
            raise CannotRunError(
                f"{done.stdout}\npip could not fetch the source of psycopg2 {version}, with which "
                f"its tests come; put {cached.name} into {_CACHE.relative_to(_ROOT)} yourself, or "
                "install a psycopg2 whose source is published"
            )
        os.replace(Path(folder) / cached.name, cached)
    return cached


def unpack(archive: Path, version: str, folder: Path) -> Path:
    """Unpack the source into *folder* and return where its ``tests`` lie."""
    try:
        with tarfile.open(archive) as tar:
            if hasattr(tarfile, "data_filter"):  # not in the first releases of 3.10 and 3.11
                tar.extraction_filter = tarfile.data_filter
            tar.extractall(folder)  # noqa: S202, filtered where that exists
    except (tarfile.TarError, EOFError, OSError) as exc:
        raise CannotRunError(
            f"{archive.relative_to(_ROOT)} can't be unpacked ({exc}); delete it and run this again"
        ) from exc
    (source,) = folder.iterdir()
    found = message_from_string((source / "PKG-INFO").read_text(encoding="utf-8"))["Version"]
    if found != version:
        raise CannotRunError(
            f"{archive.relative_to(_ROOT)} holds psycopg2 {found}, but {version} is installed; "
            "delete it and run this again"
        )
    return source


# -- One run for each callback, and what they came to


@dataclass
class Run:
    """What the suite came to under one callback."""

    callback: str
    seconds: float = 0.0
    outcomes: dict[str, str] = field(default_factory=dict)  # passed, skipped, failed or error
    details: dict[str, str] = field(default_factory=dict)  # a traceback; why it was skipped
    warned: list[str] = field(default_factory=list)
    broken: str = ""  # what happened, where the process did not end well

    def ending(self, test: str) -> str:
        """Return how *test* ended, in words."""
        outcome = self.outcomes.get(test, "not run")
        return f"{outcome} ({self.details[test]})" if outcome == "skipped" else outcome

    def bad(self, baseline: "Run") -> dict[str, str]:
        """Return the tests that failed, or ended otherwise than under *baseline*, and how."""
        bad = {}
        for test in baseline.outcomes | self.outcomes:
            if self.outcomes.get(test) in ("failed", "error"):
                bad[test] = f"{self.outcomes[test]}\n{self.details[test]}"
            elif self.outcomes.get(test) != baseline.outcomes.get(test):
                bad[test] = (
                    f"{self.ending(test)}; under {baseline.callback}: {baseline.ending(test)}"
                )
        return bad


def run(callback: str, source: Path, verbose: bool) -> Run:
    """Run the suite under *callback*, in a process and on a server of its own."""
    with Server() as server, tempfile.TemporaryDirectory() as folder:
        with contextlib.closing(psycopg2.connect(server.dsn())) as conn, conn:
            conn.cursor().execute("create extension hstore")
        report, log = Path(folder) / "report.json", Path(folder) / "log"
        started = time.monotonic()
        with log.open("wb") as output:
            code = _run_in_child(
                ["--report", str(report), "--source", str(source), "--callback", callback],
                _environment(server),
                output=None if verbose else output.fileno(),
            )
        result = Run(callback, time.monotonic() - started)
        if report.exists():
            result = Run(callback, result.seconds, **json.loads(report.read_text()))
        if code != 0 or not result.outcomes:
            said = log.read_text(errors="replace")[-20_000:]
            result.broken = (
                f"{said}\nthe suite's process ended with status {code}, "
                f"and reported {len(result.outcomes)} tests"
            )
        return result


def _environment(server: Server) -> dict[str, str]:
    """Return our environment with the suite's settings, and none that change what it does."""
    ours = ("PG", "PSYCOPG2_TEST", "PYTHONWARNINGS")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | {
        "PSYCOPG2_TEST_GREEN": "1",
        "PSYCOPG2_TESTDB": DATABASE,
        "PSYCOPG2_TESTDB_HOST": str(server.directory),
        "PSYCOPG2_TESTDB_PORT": str(server.port),
        "PSYCOPG2_TESTDB_USER": USER,
        "PSYCOPG2_TEST_REPL_DSN": "",  # the replication tests too, on the same database
    }


def _run_in_child(arguments: list[str], environment: dict[str, str], output: int | None) -> int:
    """Run this module's ``run_suite`` and return the exit status; leave no process behind."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tools.conformance", *arguments],
        cwd=_ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_SUITE_TIMEOUT + 30)  # its faulthandler comes first
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    return child.wait()


def compare(callbacks: list[str], verbose: bool) -> bool:
    """Run the suite under each of *callbacks*; say whether all end well and as the first does."""
    version = str(vars(psycopg2)["__version__"]).split()[0]  # not in the stubs
    total: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        source = unpack(fetch_source(version), version, Path(folder))
        print(f"the test-suite of psycopg2 {version}, in green mode", flush=True)
        baseline: Run | None = None
        for callback in callbacks:
            result = run(callback, source, verbose)
            if result.broken:
                print(f"{callback}: {result.broken}")
                total["failed"] += 1
            if not result.outcomes:
                if baseline is None:
                    break  # nothing to compare with
                continue
            baseline = baseline or result
            bad = result.bad(baseline)
            for test, how in bad.items():
                print(f"{callback}: {test}: {how}")
            for warning in result.warned:
                print(f"{callback}: warning in {warning}")
            count = Counter(result.outcomes.values())
            print(
                f"{callback}: {len(result.outcomes)} run, {count['failed']} failures, "
                f"{count['error']} errors, {count['skipped']} skipped in {result.seconds:.1f} s",
                flush=True,
            )
            if bad:
                print(f"{callback}: {len(bad)} fail or end otherwise than under {BASELINE}")
            total["failed"] += len(bad)
            total.update(outcome for test, outcome in result.outcomes.items() if test not in bad)
    print(f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
    return not total["failed"]


def _callable_name(name: str) -> str:
    try:
        found = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as exc:
        raise argparse.ArgumentTypeError(f"{name!r} can't be imported: {exc}") from exc
    if not callable(found):
        raise argparse.ArgumentTypeError(f"{name!r} is not callable")
    return name


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.conformance",
        description="Run psycopg2's own test-suite under greenwait and compare with wait_select.",
    )
    parser.add_argument(
        "--callback",
        action="append",
        type=_callable_name,
        metavar="NAME",
        help="dotted name of a wait callback to compare with the baseline, may be repeated "
        f"(default: {', '.join(OURS)})",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="show the suite's output")
    parser.add_argument("--report", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.report:
        run_suite(options.callback[0], options.source, options.report)
        return
    callbacks = dict.fromkeys([BASELINE, *(options.callback or OURS)])
    try:
        conforms = compare(list(callbacks), options.verbose)
    except (CannotRunError, NoPostgresError) as exc:
        sys.exit(f"{parser.prog}: {exc}")
    if not conforms:
        sys.exit(1)


if __name__ == "__main__":
    main()
