"""What the small benchmarks share: a server for the run, and an exit code.

The exit code is 0 when everything was measured, whether or not its goal was reached;
1 when the server failed or a contestant brought a wrong answer; 2 for bad usage, and
for what can't be measured here.
"""

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

import psycopg2
from psycopg2.extensions import connection, get_wait_callback, set_wait_callback
from rich.console import RenderableType

from benchmarks.callbacks import Callback
from benchmarks.figures import console, print_facts
from benchmarks.machine import CannotPinError, machine, versions
from benchmarks.workloads import WrongResultError
from tools.postgres import NoPostgresError, Server

__all__ = ["Facts", "connected", "exit_code", "run"]

Facts = dict[str, dict[str, str]]


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


def exit_code(benchmark: Callable[[], None]) -> int:
    """Run *benchmark*, say what has gone wrong, and return the exit code."""
    try:
        benchmark()
    except KeyboardInterrupt:
        print("interrupted, nothing written", file=sys.stderr)
        return 130
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
    return 0


def run(
    measure: Callable[[Server], Sequence[RenderableType]],
    write: Callable[[Facts], None] = lambda facts: None,
) -> int:
    """Start a server, print what *measure* makes of it, and return the exit code.

    What was measured is written by *write*, which gets the machine and the versions.
    """

    def benchmark() -> None:
        here = machine()
        with Server() as server:
            found = measure(server)
            with connected(server.dsn("unix"), None) as conn:
                facts = {"machine": here, "versions": versions(conn)}
        write(facts)
        terminal = console()
        for each in found:
            terminal.print(each, "")
        print_facts(facts, terminal)

    return exit_code(benchmark)
