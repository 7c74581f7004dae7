"""What docs/orms.md says of each library, in each context, in a process of its own.

`make orms` installs them.
"""

import contextlib
import os
import sys

import psycopg2
import pytest

from tests.lab import programs
from tests.lab.bounds import bound

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="SIGALRM, and the contexts, are POSIX's"),
    pytest.mark.timeout(bound(60)),
]

JOBS = ["hub", "asyncio", "gevent"]
RIGHT = [
    "they_run_at_once",
    "transactions_keep_their_own_rows",
    "one_commits_while_another_is_open",
    "deadline_ends_one_query",
]
AS_THEY_ARE = ["pandas", "records"]
BY_RECIPE = ["dataset by recipe", "peewee by recipe", "peewee by recipe without blocks"]


@pytest.fixture
def run_library(server):
    """Return a function that runs a case with a library, in a database of the test's own."""
    name = f"libraries_{os.getpid()}"
    with contextlib.closing(psycopg2.connect(server.dsn(server.transports[0]))) as conn:
        conn.autocommit = True
        cur = conn.cursor()
        cur.execute(f"create database {name}")

        def run(library, context, case):
            for package in (library.split()[0], *(["gevent"] if "gevent" in context else [])):
                pytest.importorskip(package, exc_type=ImportError)
            dsn = server.dsn(server.transports[0], dbname=name)
            printed = programs.run_program("orms/library_in_context", dsn, library, context, case)
            assert "well\n" in printed  # gevent prints the traceback of a greenlet

        yield run
        cur.execute(f"drop database {name} with (force)")


@pytest.mark.parametrize("case", RIGHT)
@pytest.mark.parametrize("context", [*JOBS, "patched gevent"])
@pytest.mark.parametrize("library", [*AS_THEY_ARE, *BY_RECIPE])
def test_jobs_are_concurrent_and_isolated(run_library, library, context, case):
    run_library(library, context, case)


@pytest.mark.parametrize("case", RIGHT)
@pytest.mark.parametrize("library", ["dataset in blocks", "peewee", "pony"])
def test_patched_greenlets_need_no_recipe(run_library, library, case):
    run_library(library, "patched gevent", case)


@pytest.mark.parametrize("context", JOBS)
def test_pandas_inserts_by_copy(run_library, context):
    run_library("pandas", context, "rows_are_copied")


# -- What the page warns of: when one of these fails, the page may promise more.


@pytest.mark.parametrize("context", JOBS)
@pytest.mark.parametrize("library", ["dataset", "peewee", "pony"])
def test_jobs_share_a_transaction_without_a_recipe(run_library, library, context):
    run_library(library, context, "they_share_a_transaction")


@pytest.mark.parametrize("context", JOBS)
def test_job_of_pony_commits_what_another_rolls_back(run_library, context):
    run_library("pony", context, "one_commits_what_another_rolls_back")


@pytest.mark.parametrize("context", JOBS)
def test_second_job_of_peewee_stops_the_thread(run_library, context):
    run_library("peewee", context, "second_to_connect_stops_the_thread")


def test_transaction_of_records_suppresses_exceptions(run_library):
    run_library("records", "hub", "exceptions_are_suppressed")
