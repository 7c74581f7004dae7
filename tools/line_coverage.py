"""Which of our lines do the tests run, Cython's too?

    python -m tools.line_coverage [PYTEST ARGUMENT]...

Copies the checkout's files to build/coverage, compiles them there with GREENWAIT_LINETRACE=1, so
that each line of Cython tells that it runs, and runs the tests on that under coverage.py, the
processes that they start included; some again, as on other systems. Fails where fewer lines ran
than what is asked for. Needs Linux, gcc, and Python up to 3.12: from 3.13 on Cython tells
sys.monitoring, which coverage.py does not listen to for a plugin.

A line of Python that no test can run says so beside it: ``# pragma: no cover``, and why. The gaps
in Cython are listed with the reasons of tools/coverage_gaps.txt.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coverage import CoverageData
from coverage.exceptions import CoverageException

from tools.coverage_gaps import REASONS, gaps, unknown
from tools.selection import left_out, names_tests

ROOT = Path(__file__).resolve().parent.parent
COPY = ROOT / "build" / "coverage"
PACKAGE = COPY / "src" / "greenwait"
_RCFILE = COPY / "coverage.ini"
_NOTHING: dict[str, str] = {}

_LEAST_CYTHON = 95.0  # per cent
_LEAST_PYTHON = 100.0
_BUILD_TIMEOUT = 1800
# Each process writes a file of its own. What is only there for a type checker does not count.
_CONFIGURATION = f"""
[run]
plugins = coverage_plugin
core = ctrace
concurrency = thread, greenlet
parallel = true
patch = subprocess, fork, _exit
source = {PACKAGE}
data_file = {COPY}/.coverage
disable_warnings = no-data-collected, module-not-measured, module-not-imported
[report]
exclude_also =
    if TYPE_CHECKING:
    @overload
    raise NotImplementedError
    raise MemoryError
    from exceptiongroup import
    if sys.version_info <
"""

# What can't hold on this build, and why.
_PACE = "a traced build does not keep that pace"
LEFT_OUT = {
    "tests/test_cancel.py::test_next_query_is_safe_from_a_cancel_that_comes_late": _PACE,
    "tests/test_signals.py::test_handler_runs_while_the_descriptor_is_always_ready": _PACE,
    "tests/test_processes.py::test_threads_that_come_and_go_leak_no_memory": "coverage.py keeps "
    "something of each thread",
    "tests/test_interrupt.py::test_traced_code_gets_it_too": "it sets a tracer of its own",
    "tests/test_libpq.py::test_another_libpq_in_the_process_is_left_alone": "coverage.py has "
    "loaded a libcrypto that another libpq does not take",
}

# What the second and the third time are about: how it is done with an older libpq, or with none.
_OLDER = COPY / "older"
_AGAIN = (
    ({"PYTHONPATH": f"{PACKAGE.parent}:{_OLDER}"}, ("test_cancel.py", "test_interrupt.py")),
    (
        {"GREENWAIT_NO_LIBPQ": "1"},
        (
            *("test_cancel.py", "connect", "test_timeout.py", "test_timeout_blocks.py"),
            "test_workloads.py",
        ),
    ),
)


def build() -> None:
    """Copy what git tracks, or would, and compile it for tracing."""
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    shutil.rmtree(COPY, ignore_errors=True)
    for name in names.stdout.splitlines():
        if (ROOT / name).is_file():
            (COPY / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, COPY / name)
    subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace", "--parallel", "2"],
        check=True,
        cwd=COPY,
        env=os.environ | {"GREENWAIT_LINETRACE": "1", "CFLAGS": "-O0"},
        timeout=_BUILD_TIMEOUT,
    )
    # Where Cython's plugin looks for it.
    made = COPY / "build" / "cython-linetrace" / "src" / "greenwait"
    for generated in made.rglob("*.c"):
        shutil.copy2(generated, PACKAGE / generated.relative_to(made))
    _RCFILE.write_text(_CONFIGURATION)
    shutil.copy2(ROOT / "tools" / "coverage_plugin.py", PACKAGE.parent)


def install_older() -> None:
    """Install the oldest psycopg2 that has a wheel for this Python, with its libpq."""
    subprocess.run(
        [
            *(sys.executable, "-m", "uv", "pip", "install", "--quiet", f"--target={_OLDER}"),
            *("--only-binary=:all:", "--resolution=lowest-direct", "psycopg2-binary>=2.9"),
        ],
        check=True,
    )


def coverage(*arguments: str, settings: Mapping[str, str] = _NOTHING) -> int:
    """Run coverage.py in the copy and return how it ended."""
    done = subprocess.run(
        [sys.executable, "-m", "coverage", *arguments],
        cwd=COPY,
        env=os.environ | {"PYTHONPATH": str(PACKAGE.parent), **settings},
    )
    return done.returncode


def drop_unfinished() -> None:
    """Remove the data files of processes that were killed as they wrote them."""
    for path in COPY.glob(".coverage.*"):
        data = CoverageData(str(path))
        try:
            data.read()
            names = [name for name in data.measured_files() if name.endswith(".pyx")]
            is_finished = all(map(data.file_tracer, names))
        except CoverageException:
            is_finished = False
        if not is_finished:
            print(f"dropped, since its process was killed as it wrote it: {path.name}")
            path.unlink()


def run_tests(arguments: Sequence[str]) -> int:
    """Run them under coverage.py, and if they are all meant, some again; return how that ended."""
    options = [*left_out(LEFT_OUT), *arguments]
    command = ("run", f"--rcfile={_RCFILE}", "-m", "pytest", *options)
    failed = coverage(*command)
    if not names_tests(arguments):
        install_older()
        for settings, files in _AGAIN:
            failed |= coverage(*command, *(f"tests/{name}" for name in files), settings=settings)
    return failed


def share(files: dict[str, dict[str, Any]], suffixes: tuple[str, ...]) -> float:
    """Return how many of the lines in the files with these suffixes were run, in per cent."""
    sums = [file["summary"] for name, file in files.items() if name.endswith(suffixes)]
    covered: int = sum(each["covered_lines"] for each in sums)
    statements: int = sum(each["num_statements"] for each in sums)
    return 100.0 * covered / statements


def main(arguments: Sequence[str]) -> int:
    """Build, run the tests, print the table, and compare with what is asked for."""
    if sys.version_info >= (3, 13):
        sys.exit("Python up to 3.12 is needed: make coverage PYTHON=python3.12 VENV=.venv312")
    nothing = unknown((ROOT / "src" / "greenwait").rglob("*.p[yx]?"))
    if nothing:
        sys.exit(f"{REASONS.name} has reasons for what is not there: {', '.join(nothing)}")
    build()
    failed = run_tests(arguments)
    configuration = f"--rcfile={_RCFILE}"
    drop_unfinished()
    coverage("combine", "--quiet", configuration)
    coverage("report", configuration, "--show-missing", "--skip-covered")
    coverage("html", "--quiet", configuration, "--directory=html")
    coverage("json", "--quiet", configuration, "-o", "coverage.json")
    files = json.loads((COPY / "coverage.json").read_text())["files"]
    for name, file in files.items():
        if not name.endswith(".py"):
            for gap in gaps(COPY / name, file["missing_lines"]):
                print(gap)
    reached = True
    for language, least, suffixes in (
        ("Cython", _LEAST_CYTHON, (".pyx", ".pxd")),
        ("Python", _LEAST_PYTHON, (".py",)),
    ):
        per_cent = share(files, suffixes)
        reached = reached and per_cent >= least
        print(f"{language}: {per_cent:.1f} % of the lines ran; {least:.0f} % is asked for")
    print(f"line by line: {COPY / 'html' / 'index.html'}")
    return 1 if failed or not reached else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
