"""Do the wheels work where nothing else is?

    python -m tools.try_wheels FOLDER

Installs each wheel of FOLDER for the Python that it is for, first without psycopg2, then in clean
environments with psycopg2-binary and with a psycopg2 that is built from source, and runs
``smoke.py`` there, outside the checkout.
"""

import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from packaging.utils import parse_wheel_filename

from tools.build_dist import pythons, run, uv
from tools.postgres import Server

_SMOKE = Path(__file__).with_name("smoke.py")


def _environment(python: Path, folder: Path) -> Path:
    run(uv(), "venv", "--quiet", "--python", python, folder, cwd=folder.parent)
    return folder / "bin" / "python"


def check_alone(wheel: Path, python: Path, folder: Path) -> None:
    """Check that without psycopg2 an import says what to install."""
    own = _environment(python, folder)
    run(uv(), "pip", "install", "--quiet", "--python", own, "--no-deps", wheel, cwd=folder)
    command = [str(own), "-c", "import greenwait"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    if "greenwait[binary]" not in done.stderr or "greenwait[psycopg2]" not in done.stderr:
        sys.exit(f"without psycopg2, nothing says how to install it:\n{done.stderr}")


def check_works(wheel: Path, python: Path, extra: str, folder: Path, dsn: str) -> str:
    """Install *wheel* with the psycopg2 of *extra*, run the smoke test, return what it says."""
    own = _environment(python, folder)
    command = [uv(), "pip", "install", "--quiet", "--python", str(own)]
    wanted = f"greenwait[{extra}] @ {wheel.as_uri()}"
    # What has no wheel for this Python is compiled, and named: a user would have to, too.
    only = ["--only-binary", ":all:"] if extra == "binary" else ["--no-binary", "psycopg2"]
    attempt = [*command, *only, wanted]
    done = subprocess.run(attempt, cwd=folder, capture_output=True, text=True, timeout=600)
    compiled = ""
    if done.returncode != 0:
        run(*command, wanted, cwd=folder)
        compiled = f"; some of it compiled, since {' '.join(done.stderr.split())}"
    smoke = shutil.copy(_SMOKE, folder)
    return run(own, "-W", "error", smoke, dsn, cwd=folder).rstrip() + f" ({extra}{compiled})"


def main() -> None:
    """Try each wheel with both builds of psycopg2, two at a time."""
    (wheels,) = map(Path, sys.argv[1:])
    if shutil.which("pg_config") is None:
        sys.exit("needs pg_config, to build psycopg2: apt-get install libpq-dev")
    found = {
        next(iter(parse_wheel_filename(wheel.name)[3])).interpreter: wheel.resolve()
        for wheel in wheels.glob("*.whl")
    }
    here = {f"cp{major}{minor}": path for (major, minor), path in pythons().items()}
    if not found or found.keys() != here.keys():
        sys.exit(f"wheels for {sorted(found)}, but the Pythons here are {sorted(here)}")
    with (
        tempfile.TemporaryDirectory(prefix="greenwait-wheels-") as name,
        Server() as server,
        ThreadPoolExecutor(2) as pool,
    ):
        place, dsn = Path(name), server.dsn("tls")
        tried = []
        for tag, python in here.items():
            check_alone(found[tag], python, place / f"{tag}-alone")
            for extra in ("binary", "psycopg2"):
                folder = place / f"{tag}-{extra}"
                tried.append(pool.submit(check_works, found[tag], python, extra, folder, dsn))
        for future in tried:
            print(future.result(), flush=True)


if __name__ == "__main__":
    main()
