"""Programs in processes of their own: those of tests/programs, and short ones in a test's text."""

import re
import subprocess
import sys
from pathlib import Path

from tests.lab.bounds import bound

__all__ = ["PROGRAMS", "WARNINGS", "run_code", "run_program", "without_log"]

ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / "tests" / "programs"
# As pyproject.toml has them: faulthandler's watchdog is a thread when a script forks.
WARNINGS = ("-W", "error", "-W", "ignore:This process (pid=:DeprecationWarning")

_OF_GRACE = re.compile(r"^backend \d+ has not ended its query within .*\n", re.MULTILINE)


def without_log(stderr: str) -> str:
    """Return *stderr* without what the log says of a grace, where no handler is set."""
    return _OF_GRACE.sub("", stderr)


def run_code(code: str, *arguments: str, timeout: float = 40) -> str:
    """Run *code*, and return what it has printed, but for the log.

    It fails the test when it exits with anything but 0, and when it hangs, after its stacks have
    been dumped.
    """
    timeout = bound(timeout)
    guard = f"import faulthandler; faulthandler.dump_traceback_later({timeout}, exit=True)\n"
    done = subprocess.run(
        [sys.executable, *WARNINGS, "-c", guard + code, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout + 10,
        cwd=ROOT,
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + without_log(done.stderr)


def run_program(name: str, *arguments: str, timeout: float = 40) -> str:
    """Run the program *name* of tests/programs, and return what it has printed."""
    path = PROGRAMS / f"{name}.py"
    assert path.exists(), path
    # Not runpy, which has the program's own module end before the interpreter does.
    code = f"with open({str(path)!r}) as f: code = compile(f.read(), f.name, 'exec')\nexec(code)"
    return run_code(code, *arguments, timeout=timeout)
