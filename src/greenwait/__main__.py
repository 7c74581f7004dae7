"""``python -m greenwait``: what is installed here, and what greenwait can use of it."""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import greenwait
from greenwait._poll import POLLERS
import psycopg2
from psycopg2.extensions import get_wait_callback, libpq_version


def _psycopg2_build() -> str:
    for distribution in ("psycopg2-binary", "psycopg2"):
        try:
            return f"{distribution} {version(distribution)}"
        except PackageNotFoundError:
            continue
    return "build unknown: no package metadata"


def _libpq_release(number: int) -> str:
    """Write 170006 as ``17.6`` (libpq manual, PQlibVersion)."""
    return f"{number // 10000}.{number % 10000}"


def report() -> str:
    """Return the lines that ``python -m greenwait`` prints."""
    facts = {
        "greenwait": greenwait.__version__,
        "Python": f"{platform.python_version()} ({platform.python_implementation()}, {sys.platform})",
        "psycopg2": f"{psycopg2.__version__} [{_psycopg2_build()}]",
        "libpq": f"{_libpq_release(libpq_version())} loaded, "
        f"{_libpq_release(psycopg2.__libpq_version__)} built against",
        "pollers": ", ".join(POLLERS),
        "wait callback": repr(get_wait_callback()),
    }
    return "\n".join(f"{name + ':':<15}{fact}" for name, fact in facts.items())


if __name__ == "__main__":
    print(report())
