"""The compiled part of the build; everything else is in pyproject.toml."""

import os
import sys
from glob import glob
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCES = sorted(Path("src/greenwait").rglob("*.pyx"))

# make coverage: every line tells a tracer that it runs, also where the GIL is not held (which takes
# it for that), and each module's annotated C lies beside it as HTML.
LINETRACE = bool(os.environ.get("GREENWAIT_LINETRACE"))

extensions = [
    Extension(
        ".".join(source.relative_to("src").with_suffix("").parts),
        [source.as_posix()],
        depends=[
            *glob("src/greenwait/**/*.pxd", recursive=True),
            *glob("src/greenwait/_*/*.h"),
        ],
        include_dirs=["src/greenwait/_system", "src/greenwait/_psycopg"],
        define_macros=[("CYTHON_TRACE_NOGIL", "1")] if LINETRACE else [],
        libraries=["ws2_32"] if sys.platform == "win32" else [],
    )
    for source in SOURCES
]


class BuildExtensions(build_ext):
    """Without debug information and symbols where they are built to be installed, on Linux.

    They are nine tenths of what Python's own flags make there. Built in place, as tests, debuggers
    and profilers need them, they keep both; and who sets CFLAGS has a say in that anyway.
    """

    def run(self) -> None:
        """Compile them."""
        is_for_work = self.inplace or self.editable_mode or "CFLAGS" in os.environ
        if sys.platform == "linux" and not is_for_work:
            for extension in self.extensions:
                extension.extra_compile_args = [*extension.extra_compile_args, "-g0"]
                extension.extra_link_args = [*extension.extra_link_args, "-Wl,-s"]
        super().run()


# make sanitize and make memcheck: they must find what is wrong with this one.
if os.environ.get("GREENWAIT_PLANTED_DEFECT"):
    extensions.append(Extension("greenwait._planted_defect", ["tools/planted_defect.pyx"]))

setup(
    cmdclass={"build_ext": BuildExtensions},
    options={"build_ext": {"parallel": os.cpu_count() or 1}},
    ext_modules=cythonize(
        extensions,
        # Generated C never lies beside the sources.
        build_dir="build/cython-linetrace" if LINETRACE else "build/cython",
        annotate=LINETRACE,
        compiler_directives={
            "language_level": "3",
            "binding": True,
            "embedsignature": False,
            # An annotation tells what typing.get_type_hints() does; it is not checked in each call.
            "annotation_typing": False,
            "linetrace": LINETRACE,
            # An attribute of None is an AttributeError, and not a crash. So are those of an object
            # that the garbage collector has cleared.
            "nonecheck": True,
            "warn.unused": True,
        },
    ),
)
