"""The smoke test on 64-bit ARM, under emulation.

    python -m tools.aarch64 [--suite [PYTEST ARGUMENT]...]

Debian's Python for arm64, unpacked into build/aarch64, runs under qemu's emulation of the
processor; the system calls are this machine's kernel's. Our modules are cross-compiled for it,
psycopg2-binary and greenlet are their wheels. Then ``python -m greenwait`` and the smoke test run,
on a server of this machine, and with ``--suite`` the tests.
"""

import sys

from tools.debian import Archive
from tools.foreign_python import ROOT, ForeignPython, need

_FOLDER = ROOT / "build" / "aarch64"
_SYSTEM = _FOLDER / "system"
# libstdc++: greenlet's wheel has none of its own.
_PACKAGES = ("python3", "libpython3-dev", "libstdc++6")
_EMULATOR = "qemu-aarch64-static"
_PYTHON = _SYSTEM / "usr/bin/python3"
_PROGRAM = _SYSTEM / "usr/bin/python"  # what that is to itself: a test may start another one
_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")


def write_program() -> None:
    """Make the program that is Python, without the kernel's help, binfmt_misc."""
    _PROGRAM.unlink(missing_ok=True)
    command = f"{_EMULATOR} -L {_SYSTEM} -0 {_PROGRAM} {_PYTHON}"
    _PROGRAM.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    _PROGRAM.chmod(0o755)


def main(arguments: list[str]) -> None:
    """Run it."""
    need(
        (_EMULATOR, "qemu-user-static"),
        ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
    )
    complete = _FOLDER / "complete"
    if not complete.exists():
        Archive(_FOLDER / "apt", "arm64").unpack(_PACKAGES, _SYSTEM)
        complete.touch()
    write_program()
    python = ForeignPython(
        command=(_PROGRAM,),
        folder=_FOLDER,
        platforms=_PLATFORMS,
        compiler_flags=f"-I{_SYSTEM / 'usr/include'}",
    )
    python.go_through(arguments, GREENWAIT_TEST_PLATFORM="emulated", GREENWAIT_TEST_SLOWNESS="5")


if __name__ == "__main__":
    main(sys.argv[1:])
