"""Forks, threads and the end of the interpreter."""

import pytest

from greenwait._sleep import POLLERS
from tests.lab.marks import needs_flat_memory, needs_own_memory


@pytest.fixture(params=POLLERS)
def run_green(request, run_program):
    """Return a function that runs the program's function of the test's name, for every poller."""
    case = request.node.originalname.removeprefix("test_")
    return lambda **options: run_program("processes", request.param, case, **options)


def test_forked_child_queries_on_its_own_connection(run_green, transport):
    assert run_green(transport=transport) == "ok\n"


def test_child_forked_from_a_thread_serves_signals(run_green):
    """The thread that forks is the child's main thread, where signal handlers run."""
    assert run_green() == "0\n"


def test_process_that_closes_all_descriptors_can_go_on(run_green):
    """As a daemon does: greenwait's own descriptors are gone, and their numbers go to others."""
    assert run_green() == "True\n" * 4


def test_thread_that_ends_closes_only_its_own_descriptor(run_green):
    """Its number may have gone to a file, if somebody closed all descriptors meanwhile."""
    assert run_green() == "True\n"


def test_main_thread_is_known_where_threading_is_patched(run_python):
    """gevent makes up the idents that threading gives; signals are the real main thread's."""
    script = """
import sys, threading, types
threading.main_thread = lambda: types.SimpleNamespace(ident=12345)
threading.get_native_id = lambda: 1  # the process's id is the main thread's on Linux only
import psycopg2, greenwait
greenwait.install()
cur = psycopg2.connect(sys.argv[1]).cursor()
for _ in range(5):  # on a busy machine the best one counts
    greenwait.stats(reset=True)
    cur.execute("select pg_sleep(1)")
    if greenwait.stats().sleeps > 5:
        break
print(greenwait.stats().sleeps > 5)  # it looks for signals every 50 ms, other threads every second
"""
    assert run_python(script) == "True\n"


def test_child_inherits_no_descriptor_and_keeps_what_it_opens(run_green):
    assert run_green() == "0\n"


def test_multiprocessing_workers_query(run_green):
    assert run_green() == "[0, 2, 4, 6, 8, 10]\n"


def test_query_in_atexit(run_green):
    assert run_green() == "late\n"


def test_query_in_del_while_modules_are_torn_down(run_green):
    assert run_green() == "7"


def test_guarded_connection_in_del_while_modules_are_torn_down(run_green):
    """When greenlet refuses to say which one is at work."""
    assert run_green() == "rolled back, closed"


def test_daemon_threads_in_a_query_do_not_disturb_the_exit(run_green):
    assert run_green() == "bye\n"


def test_sigterm_ends_a_process_that_waits(run_green):
    """SystemExit from a handler leaves by the front door."""
    assert run_green() == "left\n"


@needs_flat_memory
@needs_own_memory
def test_threads_that_come_and_go_leak_no_memory(run_green):
    """200,000 waits and 200 threads: the resident size stays."""
    assert run_green() == "True\n"
