"""The smoke test on 64-bit ARM, under emulation.

    python -m tools.aarch64

Debian's Python for arm64, unpacked into build/aarch64, runs under qemu's emulation of the
processor; the system calls are this machine's kernel's. Our modules are cross-compiled for it,
psycopg2-binary and greenlet are their wheels. Then ``python -m greenwait`` and the smoke test run,
on a server of this machine.
"""

from tools.debian import Archive
from tools.foreign_python import ROOT, ForeignPython, need, requirements

_FOLDER = ROOT / "build" / "aarch64"
_SYSTEM = _FOLDER / "system"
# libstdc++: greenlet's wheel has none of its own.
_PACKAGES = ("python3", "libpython3-dev", "libstdc++6")
_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")


def main() -> None:
    """Run it."""
    need(
        ("qemu-aarch64-static", "qemu-user-static"),
        ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
    )
    complete = _FOLDER / "complete"
    if not complete.exists():
        Archive(_FOLDER / "apt", "arm64").unpack(_PACKAGES, _SYSTEM)
        complete.touch()
    python = ForeignPython(
        command=("qemu-aarch64-static", "-L", _SYSTEM, _SYSTEM / "usr/bin/python3"),
        folder=_FOLDER,
        platforms=_PLATFORMS,
        compiler_flags=f"-I{_SYSTEM / 'usr/include'}",
    )
    python.install(requirements("binary"))
    python.build()
    python.smoke()


if __name__ == "__main__":
    main()
