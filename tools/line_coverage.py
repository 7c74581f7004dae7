"""Measure which of our lines the tests run, Cython's too.

    python -m tools.line_coverage [PYTEST ARGUMENT]...

Copies the checkout's files to build/coverage, compiles them there with GREENWAIT_LINETRACE=1, so
that each line of Cython tells that it runs, and runs the tests on that under coverage.py, the
processes that they start included; some again, as on other systems. Fails where fewer lines ran
than what is asked for. Needs Linux, gcc, and Python up to 3.12: from 3.13 on Cython tells
sys.monitoring, which coverage.py does not listen to for a plugin.

A line that no test can run says so beside it, in Python and in Cython: ``# pragma: no cover``, and
why.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

from coverage import CoverageData
from coverage.exceptions import CoverageException

from tools.building import ROOT, build_extensions, copy_checkout

COPY = ROOT / "build" / "coverage"
_PACKAGE = COPY / "src" / "greenwait"
_LEAST = {"*.py": 100, "*.p[yx][xd]": 95}  # per cent

# What the second and the third time are about: how it is done with an older libpq, or with none.
_OLDER = COPY / "older"
_AGAIN = (
    ({"PYTHONPATH": f"{_PACKAGE.parent}:{_OLDER}"}, ("test_cancel.py", "test_interrupt.py")),
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
    copy_checkout(COPY)
    build_extensions("build_ext", "--inplace", flags="-O0", folder=COPY, GREENWAIT_LINETRACE="1")
    # Where Cython's plugin looks for it.
    made = COPY / "build" / "cython-linetrace" / "src" / "greenwait"
    for generated in made.rglob("*.c"):
        shutil.copy2(generated, _PACKAGE / generated.relative_to(made))
    shutil.copy2(ROOT / "tools" / "coverage_plugin.py", _PACKAGE.parent)


def coverage(command: str, *arguments: str, **settings: str) -> int:
    """Run coverage.py in the copy and return how it ended."""
    environment = {
        "COVERAGE_COPY": str(COPY),
        "GREENWAIT_TEST_BUILD": "traced",
        "PYTHONPATH": str(_PACKAGE.parent),
        **settings,
    }
    done = subprocess.run(
        [sys.executable, "-m", "coverage", command, "--rcfile=tools/coverage.ini", *arguments],
        cwd=COPY,
        env=os.environ | environment,
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
    command = ("run", "-m", "pytest", *arguments)
    failed = coverage(*command)
    if not any((ROOT / each.split("::")[0]).exists() for each in arguments):
        # The oldest psycopg2 that has a wheel for this Python, with its libpq.
        install = (sys.executable, "-m", "uv", "pip", "install", "--quiet", f"--target={_OLDER}")
        options = ("--only-binary=:all:", "--resolution=lowest-direct")
        subprocess.run([*install, *options, "psycopg2-binary>=2.9"], check=True)
        for settings, files in _AGAIN:
            failed |= coverage(*command, *(f"tests/{name}" for name in files), **settings)
    return failed


def main(arguments: Sequence[str]) -> int:
    """Build, run the tests, print the tables, and compare with what is asked for."""
    if sys.version_info >= (3, 13):
        sys.exit("Python up to 3.12 is needed: make coverage PYTHON=python3.12 VENV=.venv312")
    build()
    failed = run_tests(arguments)
    drop_unfinished()
    coverage("combine", "--quiet")
    coverage("html", "--quiet", "--directory=html")
    for pattern, least in _LEAST.items():
        failed |= coverage(
            *("report", "--show-missing", "--skip-covered"),
            *(f"--include={pattern}", f"--fail-under={least}"),
        )
    print(f"line by line: {COPY / 'html' / 'index.html'}")
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
