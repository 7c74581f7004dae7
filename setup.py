"""The compiled part of the build; everything else is in pyproject.toml."""

import sys

from Cython.Build import cythonize
from setuptools import Extension, setup

extensions = [
    Extension(
        "greenwait._poll",
        ["src/greenwait/_poll.pyx"],
        depends=["src/greenwait/_readiness.pxd", "src/greenwait/readiness.h"],
        include_dirs=["src/greenwait"],
        libraries=["ws2_32"] if sys.platform == "win32" else [],
    ),
]

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
