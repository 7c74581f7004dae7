"""What the benchmarks share: a connection under a callback, and a server for the run."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import psycopg2
from psycopg2.extensions import connection, get_wait_callback, set_wait_callback
from rich.table import Table

from benchmarks.callbacks import Callback
from benchmarks.figures import Facts, console, print_facts
from benchmarks.machine import machine, versions
from tests.lab.postgres import Server


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


def facts_of(server: Server, here: dict[str, str] | None = None) -> Facts:
    """Return what was measured where: *here* is the machine as it was before."""
    here = here or machine()
    with connected(server.dsn("unix"), None) as conn:
        return {"machine": here, "versions": versions(conn)}


def run(measure: Callable[[Server], Sequence[Table]]) -> Facts:
    """Start a server, print the tables that *measure* makes of it, and return where that was."""
    here = machine()
    with Server() as server:
        tables = measure(server)
        facts = facts_of(server, here)
    terminal = console()
    for table in tables:
        terminal.print(table, "")
    print_facts(facts, terminal)
    return facts
