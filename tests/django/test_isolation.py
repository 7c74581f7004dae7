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
