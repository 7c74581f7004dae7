"""Queries that a tracing library sees, in one of the contexts: ``DSN CONTEXT TRACER CASE``."""

import asyncio
import contextlib
import sys
from concurrent.futures import CancelledError
from contextvars import copy_context
from functools import partial

import psycopg2

import greenwait
from tests.lab.contexts import CONTEXTS
from tests.lab.tracers import TRACERS

DSN, CONTEXT, NAME, CASE = sys.argv[-4:]
TRACER = TRACERS[NAME]()


def query(conn, number):
    with TRACER.span(f"job {number}"), conn.cursor() as cur:
        cur.execute(f"select {number}, pg_sleep(0.1)")
        assert cur.fetchone()[0] == number


def in_this_span(job):
    """Return the function, which belongs to the caller's span wherever it is called."""
    if CONTEXT in ("plain", "gevent", "eventlet"):  # a new thread or greenlet inherits nothing
        job = partial(copy_context().run, job)
    return TRACER.bound(job)


def spans():
    """Return what was traced of the program's own spans and of its queries, by name."""
    return {each.name: each for each in TRACER.spans()}


def is_query_of(span, parent, least=0.09):
    return span.parent == parent and least < span.seconds < 5


# -- The cases


def each_query_in_its_job_s_span(context):
    pool = greenwait.Pool(DSN, max_size=2)

    def job(number):
        with pool.connection() as conn:
            query(conn, number)

    with TRACER.span("all"):
        context.together([in_this_span(partial(job, number)) for number in range(5)])
    pool.close()
    found = spans()
    for number in range(5):
        assert is_query_of(found[f"select {number}, pg_sleep(0.1)"], f"job {number}"), found
    assert found["job 3"].parent == ("all" if TRACER.is_by_context else "job")


def deadline_and_kill(context):
    def late():
        conn = greenwait.connect(DSN)
        try:
            with TRACER.span("late"), greenwait.timeout(0.1), conn.cursor() as cur:
                cur.execute("select 1, pg_sleep(20)")
        except greenwait.QueryTimeout:
            return True
        return False

    def killed():
        conn = greenwait.connect(DSN)
        with TRACER.span("killed"), conn.cursor() as cur:
            cur.execute("select 2, pg_sleep(20)")

    assert context.run(in_this_span(late)), "the deadline was not kept"
    with contextlib.suppress(context.killed_by, CancelledError):
        context.kill(in_this_span(killed), 0.1)
    found = spans()
    assert is_query_of(found["select 1, pg_sleep(20)"], "late"), found
    assert is_query_of(found["select 2, pg_sleep(20)"], "killed", least=0), found
    assert found["select 1, pg_sleep(20)"].has_failed == TRACER.tells_failure


def what_takes_a_connection(context):
    def job():
        conn = greenwait.connect(DSN)
        greenwait.cancel(conn)
        with conn, conn.cursor() as cur:
            cur.execute("listen traced; notify traced")
        assert next(greenwait.notifies(conn, 5)).channel == "traced"
        with conn.cursor() as cur:
            cur.execute("select 1")
        conn.close()
        assert conn.closed
        plain = psycopg2.connect(DSN)
        greenwait.cancel(plain)
        plain.close()

    context.run(in_this_span(job))


def awaited_methods(context):
    from greenwait import aio

    async def query(pool, number):
        with TRACER.span(f"job {number}"):
            async with pool.connection() as conn, conn.cursor() as cur:
                await cur.execute(f"select {number}, pg_sleep(0.1)")
                assert (await cur.fetchone())[0] == number

    async def main():
        async with await aio.create_pool(DSN, max_size=2) as pool:
            with TRACER.span("all"):
                await asyncio.gather(*[query(pool, number) for number in range(5)])
        conn = await aio.connect(DSN)
        assert isinstance(conn, aio.AsyncConnection)
        with TRACER.span("late"):
            try:
                async with conn.cursor() as cur:
                    await asyncio.wait_for(cur.execute("select 5, pg_sleep(20)"), 0.1)
            except asyncio.TimeoutError:
                await conn.rollback()
        conn.close()

    context.loop.run_until_complete(main())
    found = spans()
    for number in range(5):
        assert is_query_of(found[f"select {number}, pg_sleep(0.1)"], f"job {number}"), found
    assert found["job 3"].parent == "all"
    assert is_query_of(found["select 5, pg_sleep(20)"], "late")


if __name__ == "__main__":
    globals()[CASE](CONTEXTS[CONTEXT]())
    print("well")
