"""Do the tests pass on the Pythons to come?

    python -m tools.next_pythons [PYTEST ARGUMENT]...

Debian's unstable suite, sid, has them before anybody else has. debootstrap unpacks it into
build/sid, where each of them gets a venv with greenwait, psycopg2-binary and all that the tests
use, and runs the tests. A later call keeps the folder and the venvs, and fetches the newest
releases. Needs root, for chroot(2); the mirror is the one that this machine's apt uses.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from tools.debian import find_mirror, output

ROOT = Path(__file__).resolve().parent.parent
SID = ROOT / "build" / "sid"
VERSIONS = ("3.14", "3.15")
_COMPLETE = SID / "complete"  # made when debootstrap is done with the rest
_SOURCES = Path("/greenwait")  # as seen from inside
# libpq and libffi: a psycopg2 or a cffi without a wheel is compiled.
_COMPILERS = ("gcc", "g++", "make", "libpq-dev", "libffi-dev")
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_PIP_SETTINGS = ("index-url", "extra-index-url", "proxy", "trusted-host", "timeout")
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")

# What is mounted here is seen by nobody else and gone with the last process: no `rm -r build` ever
# walks into the machine's own /dev.
_PRIVATELY = ("unshare", "--mount", "sh", "-ec")
_ENTER = """
mount -t proc proc "$0/proc"
mount --rbind /dev "$0/dev"
exec chroot "$0" "$@"
"""


def inside(*command: str) -> list[str]:
    """Return *command* as it is run in the chroot, with an environment of its own."""
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive",
    }
    for name in (*_PROXIES, "GREENWAIT_NO_LIBPQ"):
        if name in os.environ:
            environment[name] = os.environ[name]
    settings = [f"{name}={value}" for name, value in environment.items()]
    return [*_PRIVATELY, _ENTER, str(SID), "env", "-i", *settings, *command]


def unpack() -> None:
    """Have a Debian sid in build/sid, with this machine's ways to the network."""
    if not _COMPLETE.exists():
        shutil.rmtree(SID, ignore_errors=True)
        SID.parent.mkdir(exist_ok=True)
        print(f"debootstrap: sid, into {SID.relative_to(ROOT)}", flush=True)
        command = ("debootstrap", "--variant=minbase", "--include=ca-certificates", "sid")
        subprocess.run(
            [*_PRIVATELY, 'exec "$0" "$@"', *command, SID, find_mirror()[0]],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        _COMPLETE.touch()
    shutil.copy("/etc/resolv.conf", SID / "etc")
    (SID / "etc/apt/apt.conf").write_text(output("apt-config", "dump", "Acquire"))


def set_up_pip() -> None:
    """Have pip ask the index that it asks here, and trust whom it trusts here.

    What is on this machine's disk, such as an index or a file of constraints, is not there.
    """
    found: dict[str, str] = {}
    # `:env:.index-url='https://...'` comes before `global.index-url='...'`, and outranks it.
    for line in output(sys.executable, "-m", "pip", "config", "list").splitlines():
        key, _, value = line.partition("=")
        name = key.rpartition(".")[2].removeprefix("default-")
        found.setdefault(name, ast.literal_eval(value))
    trusted = Path(found.get("cert", _CERTIFICATES))
    if trusted.is_file():
        shutil.copy(trusted, SID / _CERTIFICATES.relative_to("/"))
    lines = ["[global]", "disable-pip-version-check = true", f"cert = {_CERTIFICATES}"]
    for name in _PIP_SETTINGS:
        values = [value for value in found.get(name, "").split() if not value.startswith("file:")]
        if values:
            lines.append(f"{name} = {' '.join(values)}")
    (SID / "etc/pip.conf").write_text("\n".join([*lines, ""]))


def install_pythons() -> list[str]:
    """Install what sid has of VERSIONS, in its newest release; return those."""
    subprocess.run(inside("apt-get", "update", "-qq"), check=True)
    listed = output(*inside("apt-cache", "pkgnames", "python3."))
    found = [version for version in VERSIONS if f"python{version}-venv" in listed.split()]
    for version in VERSIONS:
        if version not in found:
            print(f"sid has no python{version}", flush=True)
    if not found:
        sys.exit("there is nothing to try")
    pythons = [f"python{version}-{part}" for version in found for part in ("dev", "venv")]
    command = ("apt-get", "install", "-qq", "--no-install-recommends", *_COMPILERS, *pythons)
    subprocess.run(inside(*command), check=True, stdout=subprocess.DEVNULL)
    return found


def copy_sources() -> None:
    """Have in the chroot what git has, or would add, here."""
    copy = SID / _SOURCES.relative_to("/")
    shutil.rmtree(copy, ignore_errors=True)
    command = ("git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in output(*command).split("\0"):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)


def _shell(version: str, script: str, *arguments: str) -> list[str]:
    """Return what runs *script* beside greenwait's sources, with the venv's Python as $0."""
    python = f"/venvs/{version}/bin/python"
    return inside("sh", "-ec", f"cd {_SOURCES}; {script}", python, *arguments)


def install(version: str) -> None:
    """Build greenwait, and install it with what the tests need, for the Python of *version*."""
    if not (SID / "venvs" / version / "bin" / "pip").exists():
        subprocess.run(inside(f"python{version}", "-m", "venv", f"/venvs/{version}"), check=True)
    subprocess.run(_shell(version, '"$0" -m pip install --quiet --upgrade pip'), check=True)
    command = (
        '"$0" -m pip install --quiet --upgrade --upgrade-strategy=eager'
        ' --editable ".[binary,test]" "$@"'
    )
    wheels = subprocess.run(
        _shell(version, command, "--only-binary=:all:"), stderr=subprocess.PIPE, text=True
    )
    if wheels.returncode != 0:
        print(f"{version}: some of it is compiled, since {wheels.stderr.strip()}", flush=True)
        subprocess.run(_shell(version, command), check=True)


def run_tests(version: str, arguments: Iterable[str]) -> tuple[str, bool]:
    """Run them; return what pytest counted, and whether they passed."""
    command = _shell(version, 'exec "$0" -m pytest "$@"', *arguments)
    counts = "pytest has counted nothing"
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as pytest:
        assert pytest.stdout is not None
        for line in pytest.stdout:
            print(line, end="", flush=True)
            if re.search(r"\d (passed|failed|skipped|errors?|deselected)\b.* in [\d.]+s", line):
                counts = line.strip(" =\n")
    return counts, pytest.returncode == 0


def main(arguments: Sequence[str]) -> int:
    """Run the tests on each; return an exit code."""
    if os.geteuid() != 0:
        sys.exit("needs root, for a chroot")
    if shutil.which("debootstrap") is None:
        sys.exit("needs debootstrap: apt-get install debootstrap")
    unpack()
    set_up_pip()
    found = install_pythons()
    copy_sources()
    outcomes = {}
    for version in found:
        install(version)
        title = output(*_shell(version, '"$0" -VV')).strip()
        print(f"== {title}", flush=True)
        subprocess.run(_shell(version, '"$0" -m greenwait'), check=True)
        outcomes[title] = run_tests(version, arguments)
    for title, (counts, passed) in outcomes.items():
        print(f"{'passed' if passed else 'FAILED'}: {title}: {counts}")
    return 0 if all(passed for _, passed in outcomes.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
