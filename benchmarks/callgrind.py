"""The instructions that a program runs between its marks, counted by valgrind's callgrind.

Whatever the process runs outside the kernel is counted: the interpreter, psycopg2, libpq, the
callback. Unlike a time it needs no quiet machine.

Under valgrind a program is about fifty times slower, and a limit in wall time would be over after
a query or two: an event loop's turn of 3 ms, a tick each 50 ms. So libfaketime slows the clock by
as much. Its own instructions are left out; what libc does for it, some 700 a query, is not.
"""

import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from shutil import which

_ROOT = Path(__file__).resolve().parent.parent
_FAKETIME = "libfaketimeMT.so.1"
_PLACES = ("lib/*/faketime", "lib/faketime", "lib64/faketime", "local/lib/faketime")  # in /usr
_TIMEOUT = 600.0

#: A call of it in the program is a mark: the system call that costs least, and nobody makes.
MARK = "getppid"

Counts = Counter[str]  # by the path of the program or library


def _faketime() -> Path | None:
    return next(
        (each for place in _PLACES for each in Path("/usr").glob(f"{place}/{_FAKETIME}")), None
    )


def missing() -> str:
    """Return what has to be installed before anything can be counted, or an empty string."""
    if which("valgrind") is None:
        return "needs valgrind: apt-get install valgrind"
    if _faketime() is None:
        return "needs libfaketime: apt-get install libfaketime"
    return ""


def by_object(lines: Iterable[str]) -> Counts:
    """Sum up what callgrind has written without compression, by the object that ran it.

    See the format in valgrind's manual: after ``ob=`` each line of costs is that object's, but the
    one below ``calls=``, which is the callee's.
    """
    counts: Counts = Counter()
    own, is_callee = "", False
    for line in lines:
        if line.startswith("ob="):
            own = line[3:].strip()
        elif line.startswith("calls="):
            is_callee = True
        elif line[:1].isdigit():
            if not is_callee:
                counts[own] += int(line.split()[1])
            is_callee = False
    return counts


def count(program: str, arguments: Sequence[str], marks: int, *, slow_clock: bool) -> list[Counts]:
    """Run Python code, and return what was counted between each of its marks and the next.

    :raises RuntimeError: the program failed, or has set another number of marks.
    """
    env = os.environ | {"PYTHONHASHSEED": "0"}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_ROOT), env.get("PYTHONPATH"))))
    if slow_clock:
        env |= {"LD_PRELOAD": str(_faketime()), "FAKETIME": "+0 x0.02"}
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory, "out")
        options = ["--compress-strings=no", "--compress-pos=no", f"--dump-before={MARK}"]
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", *options]
        command += [sys.executable, "-W", "ignore", "-c", program, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, env=env)
        # A part is what was counted before a mark; that after the last one has no number.
        if done.returncode or len(list(out.parent.glob("out.*"))) != marks:
            raise RuntimeError(f"{' '.join(arguments)} under valgrind:\n{done.stderr}")
        parts = []
        for part in range(2, marks + 1):
            with Path(f"{out}.{part}").open(encoding="utf-8", errors="replace") as lines:
                counts = by_object(lines)
            parts.append(_without(counts, _FAKETIME))
        return parts


def _without(counts: Counts, library: str) -> Counts:
    return Counter({path: each for path, each in counts.items() if Path(path).name != library})
