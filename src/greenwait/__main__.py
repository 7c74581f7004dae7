"""``python -m greenwait``: a report of the installed versions and of greenwait's fast paths.

``python -m greenwait timeline FILE`` draws a trace.
"""

import argparse
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from psycopg2 import __libpq_version__ as libpq_version_at_build

import greenwait
from greenwait._psycopg.libpq import FAST_PATHS
from greenwait._psycopg.psycopg2 import LIBPQ_VERSION, get_wait_callback
from greenwait._psycopg.psycopg2 import VERSION as PSYCOPG2_VERSION
from greenwait._sleep import POLLERS


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
        "Python": f"{platform.python_version()} ({sys.implementation.name}, {sys.platform})",
        "psycopg2": f"{PSYCOPG2_VERSION} [{_psycopg2_build()}]",
        "libpq": f"{_libpq_release(LIBPQ_VERSION)} loaded, "
        f"{_libpq_release(libpq_version_at_build)} built against",
        "pollers": ", ".join(POLLERS),
        "wait callback": repr(get_wait_callback()),
        **FAST_PATHS,
    }
    return "\n".join(f"{name + ':':<15}{fact}" for name, fact in facts.items())


def main(arguments: list[str]) -> None:
    """Print the report, or draw a trace."""
    if arguments[:1] == ["timeline"]:
        from greenwait import _timeline

        _timeline.main(arguments[1:])
        return
    argparse.ArgumentParser(
        prog="python -m greenwait",
        description="Report the installed versions and greenwait's fast paths; without arguments.",
        epilog="python -m greenwait timeline FILE draws a trace.",
    ).parse_args(arguments)
    print(report())


if __name__ == "__main__":
    main(sys.argv[1:])
