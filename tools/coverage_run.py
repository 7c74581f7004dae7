"""Which lines of ours do the tests run, Cython's too?

    python -m tools.coverage_run [PYTEST ARGUMENT]...

Copies what git tracks to build/coverage, compiles it there with GREENWAIT_LINETRACE=1, so that
each line of Cython tells that it runs, and runs the tests on that with coverage.py, processes
that they start included. Fails below what has been reached: _LEAST_CYTHON, _LEAST_PYTHON.

What a function without the GIL does is told as well, except where docs/coverage.md says so.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPY = ROOT / "build" / "coverage"
_PACKAGE = COPY / "src" / "greenwait"

_LEAST_CYTHON = 0.0
_LEAST_PYTHON = 0.0
_CONFIGURATION = f"""
[run]
plugins = Cython.Coverage
concurrency = thread, greenlet
parallel = true
patch = subprocess
source = {_PACKAGE}
data_file = {COPY}/.coverage
core = ctrace
[report]
exclude_also =
    if TYPE_CHECKING:
    @overload
"""

# What takes a pace that a traced build has not, and why.
LEFT_OUT: dict[str, str] = {}


def build() -> None:
    """Copy what is tracked, or new, and compile it for tracing."""
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
        timeout=1800,
    )
    (COPY / "coverage.ini").write_text(_CONFIGURATION)


def coverage(*arguments: str) -> int:
    """Run coverage.py in the copy and return how it ended."""
    environment = os.environ | {
        "PYTHONPATH": f"{COPY / 'src'}",
        "COVERAGE_PROCESS_START": f"{COPY}/coverage.ini",
    }
    return subprocess.run(
        [sys.executable, "-m", "coverage", *arguments], cwd=COPY, env=environment
    ).returncode


def share(files: dict[str, dict[str, dict[str, int]]], *suffixes: str) -> float:
    """Return how many of the lines of the files with these suffixes were run, in per cent."""
    sums = [file["summary"] for name, file in files.items() if name.endswith(suffixes)]
    return (
        100.0 * sum(it["covered_lines"] for it in sums) / sum(it["num_statements"] for it in sums)
    )


def main(arguments: Sequence[str]) -> int:
    """Build, run the tests, print the table, and compare with what has been reached."""
    build()
    rc = "--rcfile=coverage.ini"
    deselected = [f"--deselect={test}" for test in LEFT_OUT]
    ended = coverage("run", rc, "-m", "pytest", *deselected, *arguments)
    coverage("combine", "--quiet", rc)
    coverage("report", rc, "--show-missing", "--skip-empty")
    coverage("html", "--quiet", rc, "--directory=html")
    coverage("json", "--quiet", rc, "-o", "coverage.json")
    files = json.loads((COPY / "coverage.json").read_text())["files"]
    reached = True
    for name, least, suffixes in (
        ("Cython", _LEAST_CYTHON, (".pyx", ".pxd")),
        ("Python", _LEAST_PYTHON, (".py",)),
    ):
        per_cent = share(files, *suffixes)
        reached = reached and per_cent >= least
        print(f"{name}: {per_cent:.1f} % of the lines; at least {least} is asked for")
    return ended or not reached


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
