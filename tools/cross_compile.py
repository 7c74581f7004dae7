"""Compile the C code for the systems that a wheel is for, and for some more.

    python -m tools.cross_compile

Cython makes C of every ``.pyx`` below ``src/greenwait``, and zig, a C compiler that brings
the headers of many systems along, compiles it for some of them; then every
``.h`` there by itself, with all warnings as errors. Nothing is linked or
run: this finds a missing function or a wrong type in a part of the code that is
left out on Linux, not a mistake in what it does.

The Python headers are those of the Python that runs this, so for a target with
other type sizes than Linux has (Windows) a module can't be compiled, nor a header
of ours that includes Python's. The others can.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from Cython.Build import cythonize

MODULE_TARGETS = (
    "aarch64-macos",
    "x86_64-macos",
    "x86_64-freebsd",
    "aarch64-linux-gnu",
    "x86_64-linux-musl",
)
HEADER_TARGETS = (*MODULE_TARGETS, "x86_64-netbsd", "x86_64-windows-gnu")
_ROOT = Path(__file__).resolve().parent.parent
_SOURCES = _ROOT / "src" / "greenwait"
_HEADERS = (_SOURCES / "_system", _SOURCES / "_psycopg")
_TIMEOUT = 300.0  # zig's first run fills its cache
# Cython's C is not ours to keep free of warnings, but these are mistakes in any C.
_MODULE_FLAGS = (
    "-Werror=implicit-function-declaration",
    "-Werror=incompatible-pointer-types",
    "-Werror=int-conversion",
)
_HEADER_FLAGS = ("-Wall", "-Wextra", "-Werror")


def python_headers(folder: Path) -> Path:
    """Copy Python's headers into *folder*, with a pyconfig.h that any target may include.

    Debian's pyconfig.h asks the compiler for its target and knows only its own
    ones; it lies beside Python.h, which no ``-I`` gets in front of.
    """
    include = Path(sysconfig.get_path("include"))
    if not (include / "Python.h").exists():
        sys.exit(f"no Python.h in {include}: install Python's headers (Debian: python3-dev)")
    copy = folder / "python"
    shutil.copytree(include, copy)
    multiarch = sysconfig.get_config_var("MULTIARCH")
    real = include.parent / (multiarch or "") / include.name / "pyconfig.h"
    if multiarch and real.exists():
        shutil.copyfile(real, copy / "pyconfig.h")
    return copy


def compiles(name: str, source: Path, target: str, *flags: str) -> bool:
    """Compile *source* for *target*; say how that went, and what the compiler has against it."""
    command = [sys.executable, "-m", "ziglang", "cc", "-target", target, "-c", *flags]
    command += [f"-I{folder}" for folder in _HEADERS]
    cache = str(_ROOT / "build" / "zig")  # else in the home folder
    done = subprocess.run(
        [*command, "-o", f"{source}.o", str(source)],
        env={**os.environ, "ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_TIMEOUT,
    )
    said = "ok" if done.returncode == 0 else "FAILED"
    print(f"{said:6}  {target:18}  {name}", flush=True)
    if done.stdout:
        print(done.stdout)
    return done.returncode == 0


def compile_all(folder: Path) -> list[bool]:
    """Compile everything for every target, and return what went well."""
    headers = python_headers(folder)
    results = []
    modules = [str(module) for module in sorted(_SOURCES.rglob("*.pyx"))]
    for made in cythonize(modules, build_dir=folder, language_level=3, quiet=True, force=True):
        for target in MODULE_TARGETS:
            source = Path(made.sources[0])
            results.append(compiles(made.name, source, target, *_MODULE_FLAGS, f"-I{headers}"))
    for header in sorted(path for folder in _HEADERS for path in folder.glob("*.h")):
        source = folder / f"{header.name}.c"
        source.write_text(f'#include "{header.name}"\n')
        has_python = "<Python.h>" in header.read_text(encoding="utf-8")
        for target in MODULE_TARGETS if has_python else HEADER_TARGETS:
            flags = [f"-isystem{headers}"] if has_python else []
            results.append(compiles(header.name, source, target, *_HEADER_FLAGS, *flags))
    return results


def main() -> None:
    """Run the command."""
    with tempfile.TemporaryDirectory() as folder:
        results = compile_all(Path(folder))
    failed = results.count(False)
    print(f"{results.count(True)} passed, {failed} failed")
    if failed or not results:
        sys.exit(1)


if __name__ == "__main__":
    main()
