"""Debian's packages, for another machine or as sources, unpacked below a folder of ours.

apt has its lists and what it downloads in that folder, and finds nothing installed: a package comes
with all that it depends on, and nothing of this system changes. Root is not needed.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path

_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def _find_mirror() -> tuple[str, str]:
    """Return the address of Debian's archive, as apt is set up here, and which release is."""
    targets = ("Created-By: Packages", "Origin: Debian", "Label: Debian")
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME)", *targets]
    listed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    if not listed:
        sys.exit("apt knows no mirror of Debian: apt-get update, on a Debian")
    address, release = listed.splitlines()[0].split()
    return address, release


class Archive:
    """Debian's archive, for one architecture, of *release* or else of the one installed here."""

    def __init__(self, folder: Path, architecture: str, release: str = "") -> None:
        self._folder = folder
        for name in ("lists/partial", "archives/partial"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()
        address, installed = _find_mirror()
        release = release or installed
        signed = f"[signed-by={_KEYS}] " if _KEYS.exists() else ""
        lines = [f"{kind} {signed}{address} {release} main\n" for kind in ("deb", "deb-src")]
        (folder / "sources.list").write_text("".join(lines))
        settings = {
            "Dir::State": folder,
            "Dir::State::status": folder / "status",
            "Dir::State::lists": folder / "lists",
            "Dir::Cache": folder,
            "Dir::Cache::archives": folder / "archives",
            "Dir::Etc::sourcelist": folder / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "APT::Architecture": architecture,
            "APT::Sandbox::User": "root",  # the folder is not for apt's own user to read
        }
        self._options = [f"-o{name}={value}" for name, value in settings.items()]
        self._apt("apt-get", "update", "-qq")

    def unpack(self, packages: Iterable[str], root: Path) -> None:
        """Unpack *packages* and all that they depend on into *root*, as if it were /."""
        shutil.rmtree(root, ignore_errors=True)
        for package in (self._folder / "archives").glob("*.deb"):
            package.unlink()  # of another call's
        (root / "usr/lib").mkdir(parents=True)
        (root / "lib").symlink_to("usr/lib")  # some packages have one, some the other
        install = ("install", "-qq", "--yes", "--no-install-recommends", "--download-only")
        self._apt("apt-get", *install, *packages)
        for package in (self._folder / "archives").glob("*.deb"):
            contents = subprocess.run(
                ["dpkg-deb", "--fsys-tarfile", package], check=True, stdout=subprocess.PIPE
            ).stdout
            options = ("--keep-directory-symlink", "--no-same-owner")
            subprocess.run(["tar", "-x", *options, "-C", root], input=contents, check=True)

    def unpack_source(self, package: str) -> Path:
        """Unpack what *package* is made from, without Debian's changes; return the folder."""
        place = self._folder / "sources" / package
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        self._apt("apt-get", "source", "-qq", "--download-only", package, cwd=place)
        (original,) = (path for path in place.glob("*.orig.tar.*") if path.suffix != ".asc")
        with tarfile.open(original) as contents:
            contents.extractall(place)  # noqa: S202 - apt has verified it
        (folder,) = (path for path in place.iterdir() if path.is_dir())
        return folder

    def has(self, package: str) -> bool:
        """Return whether there is one of that name."""
        return package in self._apt("apt-cache", "pkgnames", package).split()

    def newest_python(self) -> str:
        """Return the version of Debian's python3, such as ``"3.11"``."""
        found = re.search(
            r"^Version: (\d+\.\d+)", self._apt("apt-cache", "show", "python3"), re.MULTILINE
        )
        assert found is not None
        return found[1]

    def _apt(self, program: str, command: str, *arguments: str, cwd: Path | None = None) -> str:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
        return subprocess.run(
            [program, *self._options, command, *arguments],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env=environment,
        ).stdout
