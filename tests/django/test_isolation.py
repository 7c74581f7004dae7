"""Jobs, calls, greenlets and threads: each has its own connection and transaction."""

import pytest

# How to run two functions at once, beside each other: both(first, second).
CONTEXTS = {
    "gather": "both = greenwait.gather",
    "aio": """
import asyncio
def both(*functions):
    async def main():
        await asyncio.gather(*(greenwait.aio.run(function) for function in functions))
    asyncio.run(main())
""",
    "trio": """
import trio, greenwait.trio
def both(*functions):
    async def main():
        async with trio.open_nursery() as nursery:
            for function in functions:
                nursery.start_soon(greenwait.trio.run, function)
    trio.run(main)
""",
    "gevent": """
import gevent, greenwait.gevent
greenwait.gevent.patch_psycopg()
def both(*functions):
    gevent.joinall([gevent.spawn(function) for function in functions], raise_error=True)
""",
    "threads": """
import concurrent.futures
def both(*functions):
    with concurrent.futures.ThreadPoolExecutor() as threads:
        for done in [threads.submit(function) for function in functions]:
            done.result()
""",
}


@pytest.fixture(params=CONTEXTS)
def both(request):
    return CONTEXTS[request.param]


@pytest.fixture(params=[{}, {"OPTIONS": {"pool": {"max_size": 5}}}], ids=["no pool", "pool"])
def settings(request):
    return request.param


def test_overlapping_transactions_keep_their_own_rows(run_django, both, settings):
    """B commits while A is open, reads nothing of A's, and stays when A rolls back."""
    code = """
from django.db import connection
committed = []
seen = {}

class Regret(Exception):
    pass

def sleep():
    with connection.cursor() as cur:
        cur.execute("select pg_sleep(0.2)")

def first():
    try:
        with transaction.atomic():
            Thing.objects.create(name="a")
            sleep()
            sleep()
            sleep()
            seen["a"] = sorted(Thing.objects.values_list("name", flat=True))
            raise Regret
    except Regret:
        with transaction.atomic():
            Thing.objects.create(name="a again")
            transaction.on_commit(lambda: committed.append("a"))

def second():
    sleep()
    with transaction.atomic():
        Thing.objects.create(name="b")
        seen["b"] = sorted(Thing.objects.values_list("name", flat=True))
        transaction.on_commit(lambda: committed.append("b"))

both(first, second)
assert seen == {"a": ["a", "b"], "b": ["b"]}, seen
assert sorted(Thing.objects.values_list("name", flat=True)) == ["a again", "b"]
assert committed == ["b", "a"], committed
print("well")
"""
    assert run_django(both + code, settings).strip() == "well"


def test_they_run_at_once(run_django, both, settings):
    code = """
import time
def work():
    with transaction.atomic(), connection.cursor() as cur:
        cur.execute("select pg_sleep(0.5)")
began = time.monotonic()
both(*[work] * 5)
assert time.monotonic() - began < 2
print("well")
"""
    assert run_django(both + code, settings).strip() == "well"


def test_job_within_an_atomic_block_is_outside_of_it(run_django, settings):
    """It does not see the block's rows; it waits for a row's lock until its timeout()."""
    code = """
Thing.objects.create(name="a")
def reads():
    return Thing.objects.get(name="a").number
def writes():
    with greenwait.timeout(0.3):
        Thing.objects.filter(name="a").update(number=2)
with transaction.atomic():
    Thing.objects.filter(name="a").update(number=1)
    assert greenwait.gather(reads) == [0]
    try:
        greenwait.gather(writes)
    except django.db.OperationalError as exc:
        assert isinstance(exc.__cause__, greenwait.QueryTimeout)
    else:
        raise AssertionError
    assert reads() == 1
assert greenwait.gather(reads) == [1]
print("well")
"""
    assert run_django("import django.db" + code, settings).strip() == "well"


def test_next_job_of_a_worker_has_a_connection_of_its_own(run_django, settings):
    code = """
def leaves_a_transaction():
    transaction.set_autocommit(False)
    Thing.objects.create(name="a")
    return id(connection.connection)
def next_one():
    assert connection.connection is None
    assert transaction.get_autocommit()
    return list(Thing.objects.all())
assert greenwait.gather(leaves_a_transaction, next_one, limit=1)[1] == []
with greenwait.Hub() as hub:
    hub.spawn(leaves_a_transaction).result()
    assert hub.spawn(next_one).result() == []
assert list(Thing.objects.all()) == []
print("well")
"""
    assert run_django(code, settings).strip() == "well"


LEFT = """
import time
def left(most):
    \"\"\"Wait until no more than that many sessions besides this one are left.\"\"\"
    until = time.monotonic() + 10
    with connection.cursor() as cur:
        while True:
            cur.execute(
                "select count(*) from pg_stat_activity where datname = current_database()"
                " and pid <> pg_backend_pid()"
            )
            found = cur.fetchone()[0]
            if found <= most or time.monotonic() > until:
                return found
            time.sleep(0.02)
"""


def test_calls_leave_no_connection(run_django):
    code = """
import asyncio
def work(number):
    Thing.objects.create(name=f"thing {number}")
async def main():
    for first in range(0, 150, 10):
        await asyncio.gather(*(greenwait.aio.run(work, first + n) for n in range(10)))
asyncio.run(main())
assert Thing.objects.count() == 150
assert left(0) == 0
print("well")
"""
    assert run_django(LEFT + code).strip() == "well"


def test_calls_give_their_connections_back(run_django):
    code = """
import asyncio
pids = set()
def work(number):
    Thing.objects.create(name=f"thing {number}")
    with connection.cursor() as cur:
        cur.execute("select pg_backend_pid()")
        pids.add(cur.fetchone())
async def main():
    await asyncio.gather(*(greenwait.aio.run(work, number) for number in range(150)))
asyncio.run(main())
assert len(pids) == 5, pids
assert Thing.objects.count() == 150
connection.close()
stats = connection.pool_stats()
assert (stats.in_use, stats.size) == (0, 5), stats
print("well")
"""
    settings = {"OPTIONS": {"pool": {"max_size": 5}}}
    assert run_django(code, settings).strip() == "well"


def test_call_that_is_cancelled_rolls_back_and_keeps_the_pooled_connection(run_django):
    code = """
import asyncio
def sleep():
    with connection.cursor() as cur:
        cur.execute("select pg_backend_pid()")
        pids.append(cur.fetchone()[0])
        cur.execute("select pg_sleep(60)")
pids = []
def work():
    with transaction.atomic():
        Thing.objects.create(name="a")
        sleep()
async def main():
    task = asyncio.create_task(greenwait.aio.run(work))
    while not pids:
        await asyncio.sleep(0.01)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass
    else:
        raise AssertionError
    assert connection.pool_stats().in_use == 0
    assert await greenwait.aio.run(lambda: list(Thing.objects.all())) == []
    assert connection.pool_stats().made == 1, connection.pool_stats()
asyncio.run(main())
print("well")
"""
    assert run_django(code, {"OPTIONS": {"pool": {"max_size": 1}}}).strip() == "well"


def test_queries_beside_an_event_loop_are_refused_outside_of_calls(run_django):
    code = """
import asyncio
from django.core.exceptions import SynchronousOnlyOperation

def is_refused(function):
    try:
        function()
    except SynchronousOnlyOperation:
        return True
    return False

def query():
    return list(Thing.objects.all())

async def main():
    assert is_refused(query)
    assert is_refused(lambda: greenwait.gather(query))
    assert not await greenwait.aio.run(is_refused, query)
    assert is_refused(query)
    async def awaited():
        return is_refused(query)
    assert await greenwait.aio.run(lambda: greenwait.aio.await_(awaited()))
    assert not await asyncio.to_thread(is_refused, query)
    assert [thing async for thing in Thing.objects.all()] == []
asyncio.run(main())
assert not is_refused(query)
print("well")
"""
    assert run_django(code).strip() == "well"


def test_forked_child_has_a_connection_of_its_own(run_django, settings):
    code = """
import os
Thing.objects.create(name="a")
def pid():
    with connection.cursor() as cur:
        cur.execute("select pg_backend_pid()")
        return cur.fetchone()[0]
mine = pid()
child = os.fork()
if child == 0:
    ok = pid() != mine and Thing.objects.count() == 1
    connections.close_all()
    os._exit(not ok)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert pid() == mine
print("well")
"""
    assert run_django(code, settings).strip() == "well"


def test_threads_that_end_leave_no_connection(run_django):
    code = """
import threading
def work():
    Thing.objects.count()
threads = [threading.Thread(target=work) for _ in range(20)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert left(0) == 0
print("well")
"""
    assert run_django(LEFT + code).strip() == "well"


def test_greenlets_that_end_leave_no_connection(run_django):
    code = """
import gevent, gevent.monkey, greenwait.gevent
greenwait.gevent.patch_psycopg()
def work():
    Thing.objects.count()
gevent.joinall([gevent.spawn(work) for _ in range(20)], raise_error=True)
assert left(0) == 0
print("well")
"""
    assert run_django(LEFT + code).strip() == "well"
