"""Check that what would be published is complete, and works where nothing else is.

``python -m tools.check_dist`` builds the sdist and, from it, the wheel; compares
what is in them with what should be; and installs the wheel into an environment of
its own, first without psycopg2, then with it, to run a smoke test there.
"""

import os
import re
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

from tools.postgres import Server

ROOT = Path(__file__).parent.parent

_SMOKE_TEST = """
import sys
import greenwait, psycopg2
from psycopg2.extensions import set_wait_callback
for callback in (greenwait.wait, greenwait.EpollWaitCallback):
    set_wait_callback(callback)
    conn = psycopg2.connect(sys.argv[1])
    cur = conn.cursor()
    cur.execute("select 42 from pg_sleep(0.05)")
    assert cur.fetchall() == [(42,)]
    cur.execute("select repeat('x', 3000000)")
    try:
        with greenwait.timeout(0.1):
            cur.execute("select pg_sleep(10)")
    except greenwait.QueryTimeout:
        conn.rollback()
    conn.close()
greenwait.connect(sys.argv[1], connect_timeout=10).close()
assert greenwait.stats().results_libpq >= 2
"""


def _run(*command: str | Path, cwd: Path, fails: bool = False) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600)
    if (done.returncode != 0) != fails:
        sys.exit(
            f"{' '.join(map(str, command))} exited {done.returncode}:\n{done.stdout}{done.stderr}"
        )
    return done.stdout + done.stderr


def _expect(what: str, found: set[str], wanted: set[str]) -> None:
    if found != wanted:
        sys.exit(f"{what}: missing {sorted(wanted - found)}, not expected {sorted(found - wanted)}")
    print(f"{what}: {len(found)} files, as they should be")


def check_sdist(sdist: Path) -> None:
    """Check that the tracked files are in it, and neither generated C nor binaries."""
    with tarfile.open(sdist) as archive:
        files = {
            name.split("/", 1)[1] for name in archive.getnames() if archive.getmember(name).isfile()
        }
    tracked = set(_run("git", "ls-files", cwd=ROOT).splitlines())
    made = {"PKG-INFO", "setup.cfg"}
    egg_info = {name for name in files if ".egg-info/" in name}
    hidden = {name for name in tracked if name.startswith((".git", ".ci/"))}
    _expect(sdist.name, files - egg_info - made - hidden, tracked - hidden)


def check_wheel(wheel: Path) -> None:
    """Check that the modules, the stubs and the extensions are in it, and no sources."""
    with zipfile.ZipFile(wheel) as archive:
        files = {
            re.sub(r"\.(cpython-|abi3|cp3).*\.(so|pyd)$", ".so", name)
            for name in archive.namelist()
            if ".dist-info/" not in name
        }
    tracked = map(Path, _run("git", "ls-files", "greenwait", cwd=ROOT / "src").splitlines())
    becomes = {".py": ".py", ".pyi": ".pyi", ".typed": ".typed", ".pyx": ".so"}
    wanted = {
        str(path.with_suffix(becomes[path.suffix])) for path in tracked if path.suffix in becomes
    }
    _expect(wheel.name, files, wanted)


def check_installed(wheel: Path, place: Path) -> None:
    """Check that in a clean environment the wheel says what it needs, and then works."""
    venv.create(place / "env", with_pip=True)
    python = place / "env" / "bin" / "python"
    _run(python, "-m", "pip", "install", "--quiet", "--no-deps", wheel, cwd=place)
    error = _run(python, "-c", "import greenwait", cwd=place, fails=True)
    if "greenwait[binary]" not in error or "greenwait[psycopg2]" not in error:
        sys.exit(f"without psycopg2, the ImportError does not say how to install it:\n{error}")
    _run(python, "-m", "pip", "install", "--quiet", f"{wheel}[binary]", cwd=place)
    print(_run(python, "-m", "greenwait", cwd=place).rstrip())
    with Server() as server:
        _run(python, "-W", "error", "-c", _SMOKE_TEST, server.dsn("tls"), cwd=place)
    print("the installed wheel works")


def main() -> None:
    """Build, compare, install, run."""
    os.environ.pop("PYTHONPATH", None)
    with tempfile.TemporaryDirectory(prefix="greenwait-dist-") as name:
        place = Path(name)
        # Without --sdist or --wheel, build makes the wheel from the sdist it has just made.
        _run(sys.executable, "-m", "build", "--outdir", place, ROOT, cwd=place)
        (sdist,), (wheel,) = place.glob("*.tar.gz"), place.glob("*.whl")
        check_sdist(sdist)
        check_wheel(wheel)
        check_installed(wheel, place)


if __name__ == "__main__":
    main()
