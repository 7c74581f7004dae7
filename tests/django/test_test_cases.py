"""Django's test classes: the transaction of a ``TestCase`` is everybody's."""

import pytest

PRELUDE = """
import asyncio
from django.test import TestCase, TransactionTestCase
from tests.lab.django_site.cases import run_cases

def names():
    return sorted(Thing.objects.values_list("name", flat=True))

def create(name, fails=False):
    with transaction.atomic():
        Thing.objects.create(name=name)
        with connection.cursor() as cur:
            cur.execute("select pg_sleep(0.05)")
        if fails:
            raise ValueError(name)
    return names()
"""


@pytest.fixture(params=[{}, {"OPTIONS": {"pool": True}}], ids=["no pool", "pool"])
def run_cases(request, run_django):
    def run(code):
        assert "OK" in run_django(PRELUDE + code, request.param)

    return run


def test_rows_of_the_test_are_seen_in_jobs_calls_and_greenlets(run_cases):
    run_cases("""
class Case(TestCase):
    @classmethod
    def setUpTestData(cls):
        Thing.objects.create(name="of the class")

    def setUp(self):
        Thing.objects.create(name="of the test")

    def test_jobs(self):
        with self.assertNumQueries(2):
            assert greenwait.gather(names, names) == [["of the class", "of the test"]] * 2

    async def test_calls(self):
        found = await greenwait.aio.run(names)
        assert found == ["of the class", "of the test"], found
        await greenwait.aio.run(create, "of a call")
        assert len([thing async for thing in Thing.objects.all()]) == 3

    def test_nothing_is_left_of_the_other_tests(self):
        assert names() == ["of the class", "of the test"]

run_cases(Case)
""")


def test_rows_of_the_test_are_seen_in_greenlets(run_cases):
    run_cases("""
import gevent, greenwait.gevent
greenwait.gevent.patch_psycopg()

class Case(TestCase):
    def test_greenlets(self):
        Thing.objects.create(name="of the test")
        greenlets = [gevent.spawn(create, "of a greenlet"), gevent.spawn(create, "of another")]
        gevent.joinall(greenlets, raise_error=True)
        assert names() == ["of a greenlet", "of another", "of the test"]

run_cases(Case)
""")


def test_atomic_blocks_of_jobs_take_turns(run_cases):
    """As savepoints of one transaction they would be released with each other."""
    run_cases("""
def fails(name):
    try:
        create(name, fails=True)
    except ValueError:
        pass

def outer():
    with transaction.atomic():
        greenwait.gather(lambda: create("c"), lambda: fails("d"), lambda: create("e"))
        return create("f")

class Case(TestCase):
    def test_jobs(self):
        greenwait.gather(lambda: create("a"), lambda: fails("b"), lambda: create("g"))
        assert names() == ["a", "g"]

    def test_jobs_within_a_block(self):
        with transaction.atomic():
            greenwait.gather(lambda: create("a"), lambda: fails("b"), lambda: create("g"))
        assert names() == ["a", "g"]

    def test_jobs_within_jobs(self):
        greenwait.gather(outer, lambda: create("a"))
        assert names() == ["a", "c", "e", "f"]

    async def test_calls(self):
        await asyncio.gather(*(greenwait.aio.run(f, n) for f, n in
            [(create, "a"), (fails, "b"), (create, "g")]))
        assert await greenwait.aio.run(names) == ["a", "g"]

    def test_savepoint_that_a_job_leaves_stops_nobody(self):
        savepoint = getattr(transaction, "savepoint_create", transaction.savepoint)  # 6.1's name
        greenwait.gather(savepoint, lambda: create("a"))
        assert names() == ["a"]

    def test_turn_that_does_not_come_ends_by_the_deadline(self):
        def first():
            with transaction.atomic(), connection.cursor() as cur:
                cur.execute("select pg_sleep(0.5)")
        def second():
            with greenwait.timeout(0.1):
                create("a")
        with self.assertRaises(greenwait.QueryTimeout):
            greenwait.gather(first, second)
        assert names() == []

run_cases(Case)
""")


def test_job_does_not_close_the_connection_of_the_test(run_cases):
    run_cases("""
class Case(TestCase):
    def test_close(self):
        def work():
            Thing.objects.create(name="a")
            connection.close()
            connections.close_all()
        greenwait.gather(work)
        assert names() == ["a"]

run_cases(Case)
""")


def test_on_commit_callbacks_are_captured(run_cases):
    run_cases("""
class Case(TestCase):
    def test_capture(self):
        done = []
        def work():
            with transaction.atomic():
                transaction.on_commit(lambda: done.append(True))
        with self.captureOnCommitCallbacks(execute=True) as callbacks:
            greenwait.gather(work)
        assert len(callbacks) == 1 and done == [True]

run_cases(Case)
""")


def test_transaction_test_case_has_a_connection_for_each_job(run_cases):
    run_cases("""
class Case(TransactionTestCase):
    def test_jobs(self):
        def pid():
            with connection.cursor() as cur:
                cur.execute("select pg_backend_pid() from pg_sleep(0.1)")
                return cur.fetchone()[0]
        assert len({pid(), *greenwait.gather(pid, pid)}) == 3
        assert greenwait.gather(lambda: create("a"))
        assert names() == ["a"]

    def test_nothing_is_left(self):
        assert names() == []

run_cases(Case)
""")


def test_database_is_dropped_beside_threads_that_have_used_it(run_cases):
    """Their connections are closed, and those of the pool."""
    run_cases("""
import threading
used, done = threading.Event(), threading.Event()
def work():
    names()
    used.set()
    done.wait(30)

class Case(TransactionTestCase):
    def test_thread(self):
        threading.Thread(target=work).start()
        assert used.wait(10)
        greenwait.gather(names, names)
        assert connection.settings_dict["NAME"].startswith("test_")

import atexit
try:
    run_cases(Case)
finally:
    done.set()
""")
