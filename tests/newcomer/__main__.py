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
from pathlib import Path

from tests.lab.postgres import Server
from tests.newcomer.home import Home
from tests.newcomer.reader import NOT_RUN, PAGES, Reader
from tools.building import copy_checkout, run_quietly
from tools.wheels import find_pythons


def build(python: Path, source: Path, wheels: Path) -> None:
    """Build a wheel for *python* of *source*, where Cython's output serves the next one too."""
    wheel = ("-m", "pip", "--quiet", "wheel", "--no-deps", "--wheel-dir", wheels)
    run_quietly((python, *wheel, "."), source)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", action="append", help="one of them; may be repeated")
    parser.add_argument("--page", action="append", type=Path, help="one of the pages; the same")
    parser.add_argument("--wheels", type=Path, help="the folder of wheels that are built already")
    arguments = parser.parse_args()
    pythons = [Path(shutil.which(name) or name) for name in arguments.python or ()]
    pages = [path.resolve() for path in arguments.page or PAGES]
    deviations = 0
    with tempfile.TemporaryDirectory(prefix="newcomer-") as name:
        place = Path(name)
        wheels = (arguments.wheels or place / "wheels").resolve()
        if not arguments.wheels:
            copy_checkout(place / "source")
        for number, python in enumerate(pythons or find_pythons().values()):
            began = time.monotonic()
            if not arguments.wheels:
                build(python, place / "source", wheels)
            built = time.monotonic()
            folder = place / str(number)
            folder.mkdir()
            with Server() as server:
                home = Home(folder, server.dsn("tcp"), wheels)
                reader = Reader(python, home, folder)
                found = 0
                for page in pages:
                    for deviation in reader.read(page):
                        print(deviation, flush=True)
                        found += 1
            if home.left():
                print(f"left at HOME: {', '.join(home.left())}")
                found += 1
            version = subprocess.check_output((python, "-V"), text=True).strip()
            seconds = f"{time.monotonic() - built:.0f} s, and {built - began:.0f} s for the wheel"
            print(f"{version}: {reader.blocks} blocks, {found} deviations; {seconds}", flush=True)
            deviations += found
    for command, why in NOT_RUN.items():
        print(f"not run: {command}: {why}")
    sys.exit(bool(deviations))


if __name__ == "__main__":
    main()
