"""The smoke test, and the tests, on musl, the C library of Alpine Linux.

    python -m tools.musl [--suite [PYTEST ARGUMENT]...]

Debian's sources of CPython, and of the libraries that its modules need, are built with musl-gcc in
build/musl; musl itself is Debian 13's, and all else are wheels. Then ``python -m greenwait`` and
the smoke test run, and with ``--suite`` the tests.
"""

import os
import sys
from pathlib import Path

from tools.building import run_quietly
from tools.debian import Archive
from tools.foreign_python import ROOT, ForeignPython, need

_FOLDER = ROOT / "build" / "musl"
_SYSTEM = _FOLDER / "system"
_LOADER = _SYSTEM / "usr/lib/x86_64-linux-musl/libc.so"  # which is the loader, too
_PREFIX = _FOLDER / "prefix"
_KERNEL = _FOLDER / "kernel"  # its headers, which musl-gcc does not look for
_MULTIARCH = Path("/usr/include/x86_64-linux-gnu")
# The last is glibc's, for what has no wheel for musl: zope.interface, which gevent needs. What is
# compiled in it has glibc in its name, and is not found here; the package does without.
_PLATFORMS = ("musllinux_1_2_x86_64", "musllinux_1_1_x86_64", "manylinux_2_17_x86_64")
_COMPILER = _FOLDER / "musl-gcc"
# musl-gcc answers what gcc would: Python's configure refuses that, and its setup.py would look for
# headers in glibc's folder.
_WRAPPER = f"""#!/bin/sh
case "$*" in -print-multiarch | --print-multiarch) exec echo x86_64-linux-musl ;; esac
exec musl-gcc -idirafter {_KERNEL} "$@"
"""
_ENVIRONMENT = {
    "CC": str(_COMPILER),
    "CFLAGS": "-O1 -fPIC",  # a module of Python's is linked with these libraries, too
    "CPPFLAGS": f"-I{_PREFIX / 'include'}",
    "LDFLAGS": f"-L{_PREFIX / 'lib'} -Wl,--dynamic-linker={_LOADER}",
    "PKG_CONFIG_LIBDIR": str(_PREFIX / "lib/pkgconfig"),  # and not the system's
}
_OPENSSL_WITHOUT = ("shared", "tests", "engine", "afalgeng", "module", "async")


def _make(folder: Path, configure: list[str], *targets: list[str]) -> None:
    print(f"{folder.name}: make", flush=True)
    make = ["make", "--silent", f"--jobs={os.cpu_count()}"]
    for command in (configure, *([*make, *names] for names in targets)):
        run_quietly(command, folder, **_ENVIRONMENT)


def build_python() -> Path:
    """Build Python with what the tests want of it: zlib, ctypes and ssl; return where it is."""
    # Wheels for musl have libraries with packed relocations (DT_RELR), which it reads as of 1.2.4.
    # Debian 12's is 1.2.3; of that, the headers do.
    Archive(_FOLDER / "newer", "amd64", "trixie").unpack(("musl",), _SYSTEM)
    archive = Archive(_FOLDER / "apt", "amd64")
    _COMPILER.write_text(_WRAPPER)
    _COMPILER.chmod(0o755)
    _KERNEL.mkdir(exist_ok=True)
    for name, headers in {
        "linux": _MULTIARCH.parent / "linux",
        "asm-generic": _MULTIARCH.parent / "asm-generic",
        "asm": _MULTIARCH / "asm",
    }.items():
        link = _KERNEL / name
        link.unlink(missing_ok=True)
        link.symlink_to(headers)
    zlib, ffi, openssl = (archive.unpack_source(name) for name in ("zlib", "libffi", "openssl"))
    _make(zlib, ["./configure", f"--prefix={_PREFIX}", "--static"], ["install"])
    options = ["--disable-shared", "--disable-docs"]
    _make(ffi, ["./configure", "--quiet", f"--prefix={_PREFIX}", *options], [], ["install"])
    options = [f"no-{name}" for name in _OPENSSL_WITHOUT]
    _make(
        openssl,
        ["./Configure", "linux-x86_64", f"--prefix={_PREFIX}", "--libdir=lib", *options],
        ["build_generated"],
        ["libcrypto.a", "libssl.a"],
        ["install_dev"],
    )
    python = archive.unpack_source(f"python{archive.newest_python()}")
    _make(python, ["./configure", "--quiet", f"--with-openssl={_PREFIX}"], [])
    return python / "python"


def main(arguments: list[str]) -> None:
    """Run it."""
    need(("musl-gcc", "musl-tools"))
    complete = _FOLDER / "complete"
    if not complete.exists():
        complete.parent.mkdir(parents=True, exist_ok=True)
        executable = build_python()
        complete.write_text(str(executable))
    ForeignPython((complete.read_text(),), _FOLDER, _PLATFORMS).go_through(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
