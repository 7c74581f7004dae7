"""Which wheels would a release have?

    python -m tools.wheel_identifiers

Asks cibuildwheel, for every system that we build on, what pyproject.toml comes to, and compares
that with ``wheel_identifiers.txt``: a release of cibuildwheel that drops or adds a Python is
seen here, and not when somebody misses a wheel.
"""

import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_LIST = Path(__file__).with_suffix(".txt")
_SYSTEMS = (
    ("linux", "x86_64"),
    ("linux", "aarch64"),
    ("macos", "x86_64"),
    ("macos", "arm64"),
    ("windows", "AMD64"),
)


def identifiers() -> set[str]:
    """Return cibuildwheel's names of all the wheels it would build."""
    found: set[str] = set()
    for platform, arch in _SYSTEMS:
        command = [sys.executable, "-m", "cibuildwheel", "--print-build-identifiers"]
        command += ["--platform", platform, "--archs", arch, str(_ROOT)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=300)
        found |= set(done.stdout.split())
    return found


def main() -> None:
    """Compare; say what differs."""
    found, wanted = identifiers(), set(_LIST.read_text().split())
    if found != wanted:
        missing, new = sorted(wanted - found), sorted(found - wanted)
        sys.exit(f"not as {_LIST.name} has it: missing {missing}, not expected {new}")
    print(f"{len(found)} wheels, as {_LIST.name} has them")


if __name__ == "__main__":
    main()
