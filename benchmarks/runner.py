"""What do the small benchmarks share? A server for the run, contestants by name, an exit code.

The exit code is 0 when everything was measured, whether or not its goal was reached;
1 when the server failed or a contestant brought a wrong answer; 2 for bad usage, and
for what can't be measured here.
"""

import argparse
import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

import psycopg2
from psycopg2.extensions import connection, get_wait_callback, set_wait_callback
from rich.console import RenderableType

from benchmarks.callbacks import NAMES, Callback, unavailable
from benchmarks.figures import print_facts, terminal
from benchmarks.machine import CannotPinError, machine, versions
from benchmarks.workloads import WrongResultError
from tools.postgres import NoPostgresError, Server

__all__ = ["add_only", "chosen", "connected", "run"]


def add_only(parser: argparse.ArgumentParser) -> None:
    """Give *parser* the option ``--only``."""
    parser.add_argument(
        "--only",
        metavar="CONTESTANT",
        action="append",
        choices=NAMES,
        help=f"only this one; may be repeated: {', '.join(NAMES)}",
    )


def chosen(
    parser: argparse.ArgumentParser, only: Sequence[str] | None, default: Sequence[str]
) -> tuple[str, ...]:
    """Return the names in *only*, else those of *default* that can run here."""
    missing = unavailable()
    for name in only or ():
        if name in missing:
            parser.error(f"--only {name}: {missing[name]}")
    return tuple(name for name in only or default if name not in missing)


@contextlib.contextmanager
def connected(dsn: str, callback: Callback | None) -> Iterator[connection]:
    """Connect in autocommit mode under *callback*, and put back the one before at the end."""
    before = get_wait_callback()
    set_wait_callback(callback)
    try:
        with contextlib.closing(psycopg2.connect(dsn)) as conn:
            conn.autocommit = True  # no BEGIN: an execute() is one wait
            yield conn
    finally:
        set_wait_callback(before)


def run(
    measure: Callable[[Server], Sequence[RenderableType]],
    write: Callable[[dict[str, str], dict[str, str]], None] | None = None,
) -> int:
    """Start a server, print what *measure* makes of it, and return the exit code.

    What was measured is written by *write*, which gets the machine and the versions.
    """
    here = machine()
    try:
        with Server() as server:
            found = measure(server)
            with connected(server.dsn("unix"), None) as conn:
                with_what = versions(conn)
    except (NoPostgresError, CannotPinError) as exc:
        print(exc, file=sys.stderr)
        return 2
    except (
        psycopg2.Error,
        WrongResultError,
        RuntimeError,  # Server's, and of clients that are processes of their own
        subprocess.SubprocessError,
    ) as exc:
        print(f"the measurement failed: {exc}", file=sys.stderr)
        return 1
    if write is not None:
        write(here, with_what)
    console = terminal()
    for each in found:
        console.print(each, "", highlight=False)
    print_facts({"on": here, "with": with_what}, console)
    return 0
