"""Run what the README and the docs print, as a newcomer does, on each CPython from 3.10 here.

    python -m tests.newcomer                           # of this checkout, on all of them
    python -m tests.newcomer --python python3.13 --page docs/copy.md
    python -m tests.newcomer --wheels dist             # wheels that are built already

The newcomer has an empty HOME, nothing else in the environment, and a PostgreSQL of their own.
They install greenwait by the README's first line, then run each page's blocks in order: lines of
a console, programs, and what a diff makes of one. A page that needs more says so by a line of pip,
since each such page begins in an environment of its own. What differs from the page is printed.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.lab.postgres import Server
from tests.newcomer.home import Home
from tests.newcomer.reader import NOT_RUN, PAGES, Reader, make_plain
from tools.building import copy_checkout, run_quietly
from tools.wheels import find_pythons

_UV = Path(sys.executable).with_name("uv")
_READERS = 2


def build(python: Path, source: Path, wheels: Path) -> None:
    """Build a wheel for *python* of *source*, where Cython's output serves the next one too.

    With uv, since pip installs a new Cython for each build, whose files are newer than that output.
    """
    command = (_UV, "build", "--quiet", "--wheel", "--python", python, "--out-dir", wheels)
    run_quietly(command, source)


def follow(python: Path, pages: Sequence[Path], wheels: Path, place: Path) -> tuple[int, list[str]]:
    """Return how many blocks of *pages* were run on *python*, and each deviation, in order.

    Readers share the pages, since pip waits for the network, and programs for the server. Each
    has a server of its own: some programs look what is at work there, or listen.
    """
    left = deque(pages)
    found: dict[Path, list[str]] = {}
    home = Home(place / "home", wheels, place.parent / "pip")
    plain = make_plain(python, home, place)

    def read(_: int) -> int:
        with Server() as server:
            reader = Reader(plain, home, server.dsn("tcp"), place)
            while left:
                page = left.popleft()
                found[page] = [str(deviation) for deviation in reader.read(page)]
            return reader.blocks

    with ThreadPoolExecutor(_READERS) as threads:
        blocks = sum(threads.map(read, range(_READERS)))
    deviations = [each for page in pages for each in found[page]]
    return blocks, deviations + [f"left at HOME: {name}" for name in home.left()]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", action="append", help="one of them; may be repeated")
    parser.add_argument("--page", action="append", type=Path, help="one of the pages; the same")
    parser.add_argument("--wheels", type=Path, help="the folder of wheels that are built already")
    arguments = parser.parse_args()
    named = [Path(shutil.which(name) or "") for name in arguments.python or ()]
    if Path() in named:
        parser.error("--python is the name of a program on PATH, as python3.13, or its path")
    pages = [path.resolve() for path in arguments.page or PAGES]
    deviates = False
    with tempfile.TemporaryDirectory(prefix="newcomer-") as name:
        place = Path(name)
        wheels = (arguments.wheels or place / "wheels").resolve()
        if not arguments.wheels:
            copy_checkout(place / "source")
        for number, python in enumerate(named or find_pythons().values()):
            began = time.monotonic()
            if not arguments.wheels:
                build(python, place / "source", wheels)
            built = time.monotonic()
            folder = place / str(number)
            folder.mkdir()
            blocks, deviations = follow(python, pages, wheels, folder)
            print(*deviations, sep="\n", end="\n" if deviations else "")
            version = subprocess.check_output((python, "-V"), text=True).strip()
            seconds = f"{time.monotonic() - built:.0f} s, and {built - began:.0f} s for the wheel"
            print(
                f"{version}: {blocks} blocks, {len(deviations)} deviations; {seconds}", flush=True
            )
            deviates = deviates or bool(deviations)
    for command, why in NOT_RUN.items():
        print(f"not run: {command}: {why}")
    sys.exit(deviates)


if __name__ == "__main__":
    main()
