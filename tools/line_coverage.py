"""Which of our lines do the tests run, Cython's too?

    python -m tools.line_coverage [PYTEST ARGUMENT]...

Copies the checkout's files to build/coverage, compiles them there with GREENWAIT_LINETRACE=1, so
that each line of Cython tells that it runs, and runs the tests on that under coverage.py, the
processes that they start included. Fails where fewer lines ran than what is asked for.
Needs Linux and gcc.

A line that no test can run says so beside it: ``# pragma: no cover``, and why.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
COPY = ROOT / "build" / "coverage"
PACKAGE = COPY / "src" / "greenwait"

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
"""

# What keeps a pace, or holds the GIL for a time, that a traced build can't.
LEFT_OUT: dict[str, str] = {}


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
    for generated in (COPY / "build").glob("cython-linetrace/src/greenwait/*.c"):
        shutil.copy2(generated, PACKAGE)
    (COPY / "coverage.ini").write_text(_CONFIGURATION)
    shutil.copy2(ROOT / "tools" / "coverage_plugin.py", PACKAGE.parent)


def coverage(*arguments: str) -> int:
    """Run coverage.py in the copy and return how it ended."""
    done = subprocess.run(
        [sys.executable, "-m", "coverage", *arguments],
        cwd=COPY,
        env=os.environ | {"PYTHONPATH": f"{COPY / 'src'}"},
    )
    return done.returncode


def share(files: dict[str, dict[str, Any]], suffixes: tuple[str, ...]) -> float:
    """Return how many of the lines in the files with these suffixes were run, in per cent."""
    sums = [file["summary"] for name, file in files.items() if name.endswith(suffixes)]
    covered: int = sum(each["covered_lines"] for each in sums)
    statements: int = sum(each["num_statements"] for each in sums)
    return 100.0 * covered / statements


def main(arguments: Sequence[str]) -> int:
    """Build, run the tests, print the table, and compare with what is asked for."""
    build()
    for test, reason in LEFT_OUT.items():
        print(f"left out: {test}: {reason}")
    deselected = [f"--deselect={test}" for test in LEFT_OUT]
    configuration = f"--rcfile={COPY}/coverage.ini"
    failed = coverage("run", configuration, "-m", "pytest", *deselected, *arguments)
    coverage("combine", "--quiet", configuration)
    coverage("report", configuration, "--show-missing", "--skip-covered")
    coverage("html", "--quiet", configuration, "--directory=html")
    coverage("json", "--quiet", configuration, "-o", "coverage.json")
    files = json.loads((COPY / "coverage.json").read_text())["files"]
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
