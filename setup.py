"""The compiled part of the build; everything else is in pyproject.toml."""

import os
import sys
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup

MODULES = [
    "_aio",
    "_callback",
    "_cancel",
    "_connecting",
    "_conninfo",
    "_copy",
    "_deadline",
    "_delivery",
    "_gevent",
    "_hub",
    "_interrupt",
    "_known",
    "_libpq",
    "_line",
    "_loop",
    "_poll",
    "_pool",
    "_sleep",
    "_stats",
    "_trio",
    "_turn",
    "_waiter",
]

extensions = [
    Extension(
        f"greenwait.{name}",
        [f"src/greenwait/{name}.pyx"],
        depends=[*glob("src/greenwait/*.pxd"), *glob("src/greenwait/*.h")],
        include_dirs=["src/greenwait"],
        libraries=["ws2_32"] if sys.platform == "win32" else [],
    )
    for name in MODULES
]

# make sanitize and make memcheck: they must find what is wrong with this one.
if os.environ.get("GREENWAIT_PLANTED_DEFECT"):
    extensions.append(Extension("greenwait._planted_defect", ["tools/planted_defect.pyx"]))

setup(
    ext_modules=cythonize(
        extensions,
        build_dir="build/cython",  # generated C never lies beside the sources
        compiler_directives={
            "language_level": "3",
            "binding": True,
            "embedsignature": False,
            "warn.unused": True,
        },
    ),
)
