"""Forks, the end of the interpreter, and what is left of a hub."""

import contextlib
import gc
import random
import sys
import weakref
from concurrent.futures import CancelledError

import pytest

import greenwait
from tests.lab.leaks import no_leaked_descriptors
from tests.lab.marks import needs_fork, needs_refusal
from tests.lab.queries import assert_stopped, assert_usable, one

pytestmark = pytest.mark.patient


@needs_fork
def test_forked_child_has_no_hub(run_program):
    child, gathered, refused, parent = run_program("hub_fork").splitlines()
    assert (child, gathered, parent) == ("child", "[1, 2]", "parent")
    assert "make another hub" in refused


def test_what_wakes_a_hub_without_eventfd_is_closed_with_it(run_program):
    assert run_program("hub_without_eventfd") == "0\n"


@needs_fork
def test_child_that_is_forked_in_a_job_has_a_gather_of_its_own(run_program):
    """As one of multiprocessing's is: its jobs are not those of the parent."""
    assert run_program("gather_fork") == "[0, 1, 2]\n[4, 5]\n[6, 7, None]\n"


@needs_fork
@pytest.mark.parametrize("end", ["exit", "raise", "return"])
@pytest.mark.parametrize("where", ["job", "block", "gather", "map"])
def test_forked_child_that_leaves_leaves_its_parents_jobs_alone(run_program, where, end):
    child, last = run_program("hub_forks", where, end).splitlines()
    assert last == "[1, 2]"
    said, own = child.rsplit(" [", 1)
    assert own == "3, 4]"
    if end == "return" and where in ("block", "map"):
        assert said == "None"
    else:
        expected = {
            "exit": "SystemExit(0)",
            "raise": "KeyError('child')",
            "return": "RuntimeError('a job has returned in",
        }
        assert said.startswith(expected[end])


def test_interpreter_exit_with_a_hub_at_work(run_python):
    script = """
import sys, psycopg2, greenwait
greenwait.install()
conn = psycopg2.connect(sys.argv[1])
hub = greenwait.Hub().__enter__()
hub.spawn(conn.cursor().execute, "select pg_sleep(0.1)")
hub.sleep(0.01)
results = greenwait.map(lambda i: i, range(10))
print(next(results))
"""
    assert run_python(script) == "0\n"


def test_nothing_is_left_behind(conns):
    own = conns(3)

    class Tracked:
        pass

    results = []

    def work(conn):
        tracked = Tracked()
        results.append(weakref.ref(tracked))
        one(conn, "select 1")
        return tracked

    with no_leaked_descriptors():
        greenwait.gather(*[lambda conn=conn: work(conn) for conn in own])
        with greenwait.Hub() as hub:
            job = hub.spawn(work, own[0])
            job.result()
            del job
        with greenwait.Hub() as hub:
            hub.spawn(work, own[0]).cancel()
            hub.sleep(0)
        del hub
    gc.collect()
    assert [reference() for reference in results] == [None] * 4


def test_interrupts_at_random_moments_leave_no_hub_entered(run_program):
    assert run_program("hub_interrupts") == "5000\n"


@needs_refusal
def test_cancels_at_random_moments(conns, watcher):
    """Thousands of them: connections stay usable, or are known to be lost."""
    own = conns(10)
    source = random.Random(4711)
    queries = [
        "select 1",
        "select pg_sleep(0.001)",
        "select repeat('x', 300000)",
        "select g from generate_series(1, 2000) g",
        "select pg_sleep(5)",
    ]
    wrong = []

    def work(conn):
        try:
            for _ in range(20):
                number = source.randrange(1000)
                if one(conn, "select %s", number) != number:
                    wrong.append(conn)
                with conn.cursor() as cur:
                    cur.execute(source.choice(queries))
        finally:
            conn.rollback()

    with no_leaked_descriptors(), greenwait.Hub() as hub:
        for _ in range(100):
            jobs = [hub.spawn(work, conn) for conn in own]
            while jobs:
                hub.sleep(source.random() * 0.003)
                job = jobs.pop(source.randrange(len(jobs)))
                job.cancel()
                with contextlib.suppress(CancelledError):
                    job.result(timeout=20)
    assert wrong == []
    assert_stopped(watcher, own)
    assert_usable(*own)


@pytest.mark.skipif(sys.platform != "linux", reason="proc_pid_status(5) is Linux's")
def test_memory_of_a_waiting_job(run_program):
    """Beyond its connection. Python's pages come in lots, so this is a mean."""
    assert 0 < float(run_program("waiting_jobs")) < 24
