"""A Python that runs here and is not this machine's: for another processor, or on another libc.

It has neither pip nor a compiler of its own: pip's packages are installed for it from here, as
wheels, and its own sysconfig says with which compiler our modules are to be built.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import requires, version
from pathlib import Path

from packaging.requirements import Requirement

from tests.lab.postgres import find_binaries, running

ROOT = Path(__file__).resolve().parent.parent
# Cython as it is here: what it has generated here can stay.
_TO_BUILD = tuple(f"{name}=={version(name)}" for name in ("setuptools", "Cython"))


def requirements(extras: Iterable[str]) -> list[str]:
    """Return what greenwait needs, with *extras*, as pip is asked for it.

    But for the server, which is this machine's: it has no wheel for another one, or would start on
    this one's libc.
    """
    found = []
    for text in requires("greenwait") or []:
        requirement = Requirement(text)
        marker, requirement.marker = requirement.marker, None
        wanted = marker is None or any(marker.evaluate({"extra": extra}) for extra in extras)
        if wanted and not requirement.name.endswith("-postgres"):
            found.append(str(requirement))
    return found


@dataclass(frozen=True)
class ForeignPython:
    """That Python, started by *command*; what is made for it lies in *folder*."""

    command: tuple[str | Path, ...]
    folder: Path
    platforms: tuple[str, ...]  # those of its wheels
    compiler_flags: str = ""

    @property
    def _packages(self) -> Path:
        return self.folder / "packages"

    @property
    def _built(self) -> Path:
        return self.folder / "greenwait"

    def go_through(self, arguments: Sequence[str], **of_tests: str) -> None:
        """Build, show what greenwait makes of it, run the smoke test; after --suite, the tests.

        *of_tests*: these variables are in the environment of the tests.
        """
        suite = arguments[:1] == ["--suite"]
        self._install(requirements(["binary", "test"] if suite else ["binary"]))
        self._build()
        self._run("-m", "greenwait")
        with running() as server:
            self._run(str(ROOT / "tools" / "smoke.py"), server.dsn("tcp"))
        if suite:
            of_tests["GREENWAIT_TEST_POSTGRES"] = str(find_binaries())
            self._run("-m", "pytest", *arguments[1:], environment=of_tests)

    def _install(self, packages: Iterable[str]) -> None:
        """Install *packages*, unless they are, maybe with others."""
        wanted = [*_TO_BUILD, *packages]
        stamp = self._packages / ".installed"
        if stamp.exists() and set(wanted) <= set(stamp.read_text().splitlines()):
            return
        shutil.rmtree(self._packages, ignore_errors=True)
        number = self._run("-c", "import sys; print('%d.%d' % sys.version_info[:2])", quiet=True)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary=:all:"]
        command += [f"--platform={platform}" for platform in self.platforms]
        command += [f"--python-version={number.strip()}", f"--target={self._packages}"]
        subprocess.run([*command, *wanted], check=True)
        for included in self._packages.glob("Cython/Includes/**/*.pxd"):
            os.utime(included, (0, 0))  # or what Cython has generated here were older
        stamp.write_text("\n".join(wanted))

    def _build(self) -> None:
        """Build our modules, from the C that Cython has made here for our own."""
        self._remove_leftovers()
        command = ["setup.py", "--quiet", "build", "--parallel=2"]
        command += [f"--build-lib={self._built}", f"--build-temp={self.folder / 'objects'}"]
        command += ["dist_info", f"--output-dir={self._built}"]  # a test asks for the version
        flags = f"-O1 -g0 {self.compiler_flags}"
        self._run(*command, environment={"CFLAGS": flags, "PYTHONPATH": str(self._packages)})

    def _remove_leftovers(self) -> None:
        """Remove what was built from files that are gone: it would still be imported."""
        for path in (self._built / "greenwait").rglob("*.*"):
            source = ROOT / "src" / path.relative_to(self._built)
            if path.is_file() and not any(source.parent.glob(f"{path.name.split('.')[0]}.*")):
                path.unlink()

    def _run(
        self, *arguments: str, environment: dict[str, str] | None = None, quiet: bool = False
    ) -> str:
        """Run it, where it finds the packages and what we have built."""
        paths = os.pathsep.join(map(str, (self._built, self._packages)))
        done = subprocess.run(
            [*self.command, *arguments],
            stdout=subprocess.PIPE if quiet else None,
            text=True,
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": paths,
                "PYTHONDONTWRITEBYTECODE": "",  # nothing of it is compiled yet
                **(environment or {}),
            },
        )
        if done.returncode != 0:
            sys.exit(f"{self.folder.name}: {arguments[0]} {arguments[1]} has failed")
        return done.stdout or ""


def need(*programs: Sequence[str]) -> None:
    """Exit, and say how, if one of these pairs of a program and Debian's package is not there."""
    missing = [package for program, package in programs if shutil.which(program) is None]
    if missing:
        sys.exit(f"needs {', '.join(missing)}: apt-get install {' '.join(missing)}")
