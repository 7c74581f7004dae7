"""Have valgrind look for errors and leaks in our objects.

    python -m tools.memcheck

Builds every extension with debug symbols into build/memcheck and runs ``tools/smoke.py`` on it:
connect, query, cancel, COPY, hub, pool and asyncio, and 2,000 waits. Only what has a frame in an
object of ours counts; the interpreter's own, OpenSSL's and the like are not ours to mend. A
planted defect of each kind must be found first. Needs valgrind (Debian: apt-get install valgrind).
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from tests.lab.postgres import Server
from tools.building import ROOT, build_planted

BUILD = ROOT / "build" / "memcheck"
WAITS = 1000  # under each of two pollers

_FLAGS = "-O1 -g -fno-omit-frame-pointer"
_TIMEOUT = 600
_PLANTED = {"InvalidRead", "UninitCondition", "Leak_DefinitelyLost"}
_DO_PLANTED = """
from greenwait import _planted_defect as it
it.read_beyond(64)
it.depend_on_nothing(64)
it.lose(64, 100)
"""
# CPython's maybe_small_long() compares the first digit of a 0, which has none: what it goes on with
# counts as uninitialised, and is right whatever it finds. That object is made here.
_ZERO = "_PyLong_New"


def _watched(*arguments: str) -> list[ElementTree.Element]:
    """Run Python under valgrind and return the errors that have a frame in our objects."""
    report = BUILD / "report.xml"
    command = [
        *("valgrind", "--quiet", "--xml=yes", f"--xml-file={report}", "--num-callers=50"),
        *("--leak-check=full", "--show-leak-kinds=definite", "--child-silent-after-fork=yes"),
        *("--error-limit=no", "--track-origins=yes", sys.executable, "-X", "faulthandler"),
        *arguments,
    ]
    environment = os.environ | {"PYTHONMALLOC": "malloc", "PYTHONPATH": str(BUILD)}
    done = subprocess.run(command, cwd=ROOT, env=environment, timeout=_TIMEOUT)
    if done.returncode:
        sys.exit(f"the program itself failed: exit {done.returncode}")
    errors = ElementTree.parse(report).getroot().findall("error")  # noqa: S314 - valgrind's
    print(f"{arguments[0]}: {len(errors)} errors of all objects", flush=True)
    return [error for error in errors if _is_ours(error) and not _is_of_zero(error)]


def _is_ours(error: ElementTree.Element) -> bool:
    objects = (obj.text or "" for obj in error.iterfind("stack/frame/obj"))
    return any(obj.startswith(f"{BUILD}/greenwait/") for obj in objects)


def _is_of_zero(error: ElementTree.Element) -> bool:
    """Say whether it is about a value that was created there, by malloc() called directly."""
    if not _kind(error).startswith("Uninit"):
        return False
    frames = error.findall("stack[2]/frame")  # --track-origins: where it was created
    return any(frame.findtext("fn") == _ZERO for frame in frames[:2])


def _kind(error: ElementTree.Element) -> str:
    return error.findtext("kind", "?")


def _lines(error: ElementTree.Element) -> Iterator[str]:
    yield f"{_kind(error)}: {error.findtext('what') or error.findtext('xwhat/text')}"
    for frame in error.iterfind("stack/frame"):
        place = f"{frame.findtext('file', '')}:{frame.findtext('line', '')}"
        yield f"    {frame.findtext('fn', '?')}  {place}  {Path(frame.findtext('obj', '')).name}"


def main() -> int:
    """Find what is planted, then look for what is not."""
    build_planted(BUILD, _FLAGS)
    found = {_kind(error) for error in _watched("-c", _DO_PLANTED)}
    if not found >= _PLANTED:
        sys.exit(f"planted defects: found {found}, not all of {_PLANTED}")
    print(f"planted defects found: {', '.join(sorted(_PLANTED))}", flush=True)
    with Server() as server:
        errors = _watched("tools/smoke.py", server.dsn("unix"), f"--waits={WAITS}")
    for error in errors:
        print("\n".join(_lines(error)))
    print(f"{2 * WAITS:,} waits and every way: {len(errors)} errors with a frame in our objects")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
