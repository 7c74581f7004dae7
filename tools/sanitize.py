"""Run the tests on a build that reports what C must not read, write or compute.

    python -m tools.sanitize [PYTEST ARGUMENT]...

Builds every extension with gcc's AddressSanitizer and UndefinedBehaviorSanitizer into
build/sanitize, proves with a planted defect of each kind that they are on, and runs the
tests on that build. The processes that tests start inherit all of it; a report by any of
them, wherever its output went, makes the run fail. Needs Linux and gcc.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

from tools.building import ROOT, build_planted

BUILD = ROOT / "build" / "sanitize"
REPORTS = ROOT / "build" / "sanitize-reports"

_FLAGS = (
    "-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"
    # A greenlet's switch copies the stack away and back: marks beside its variables would stay.
    " --param=asan-stack=0"
)
_MARKS = (b"__asan_report_load", b"__ubsan_handle")  # in every object that was compiled so
_DEFECTS = {
    "read_beyond(64)": "heap-buffer-overflow",
    "overflow(2**31 - 1)": "signed integer overflow",
}
_DEFECT_TIMEOUT = 60


def build() -> None:
    """Compile everything, the planted defect too."""
    build_planted(BUILD, _FLAGS)
    for extension in BUILD.glob("greenwait/**/*.so"):
        missing = [mark for mark in _MARKS if mark not in extension.read_bytes()]
        if missing:
            sys.exit(f"{extension.name} is not instrumented: there is no {missing}")


def _library(name: str) -> str:
    found = subprocess.run(
        ["gcc", f"-print-file-name={name}"], check=True, capture_output=True, text=True
    )
    return found.stdout.strip()


def environment() -> dict[str, str]:
    """Return what makes a Python, and all that it starts, run on the instrumented build."""
    reports = f"log_path={REPORTS}/report:print_stacktrace=1:halt_on_error=1"
    # libstdc++, or the interceptors don't find what throws in greenlet's C++.
    preloaded = map(_library, ("libasan.so", "libubsan.so", "libstdc++.so.6"))
    return os.environ | {
        "LD_PRELOAD": " ".join(preloaded),
        "ASAN_OPTIONS": f"{reports}:detect_leaks=0:allocator_may_return_null=1",
        "UBSAN_OPTIONS": reports,
        "PYTHONMALLOC": "malloc",  # or Python's arenas hide where a block ends
        "PYTHONPATH": str(BUILD),
        "GREENWAIT_TEST_BUILD": "sanitized",
    }


def reports() -> str:
    """Return what was reported since this was asked last."""
    found = sorted(REPORTS.glob("report*"))
    text = "\n".join(path.read_text(errors="replace") for path in found)
    for path in found:
        path.unlink()
    return text


def report_to_files() -> None:
    """Have libubsan's reports in files too, in every process.

    Its log_path has no effect beside libasan: the function that sets it is exported by both, and
    the call inside libubsan goes to libasan's, which comes first.
    """
    (BUILD / "sitecustomize.py").write_text(
        f"import ctypes\nlibubsan = ctypes.CDLL({_library('libubsan.so')!r})\n"
        f"libubsan.__sanitizer_set_report_path({os.fsencode(REPORTS / 'report')!r})\n"
    )


def prove() -> None:
    """Fail unless each planted defect is reported."""
    for call, wanted in _DEFECTS.items():
        done = subprocess.run(
            [sys.executable, "-c", f"from greenwait import _planted_defect as it; it.{call}"],
            capture_output=True,
            text=True,
            env=environment(),
            timeout=_DEFECT_TIMEOUT,
        )
        found = reports()
        if wanted not in found or done.returncode == 0:
            sys.exit(f"{call} was not found: exit {done.returncode}\n{found}{done.stderr}")
        print(f"planted defect found: {wanted}", flush=True)


def main(arguments: Sequence[str]) -> int:
    """Build, prove, run the tests, and print what was reported."""
    build()
    shutil.rmtree(REPORTS, ignore_errors=True)
    REPORTS.mkdir(parents=True)
    report_to_files()
    prove()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        env=environment(),
        cwd=ROOT,
    )
    found = reports()
    print(found or "no process reported anything")
    return 1 if found else done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
