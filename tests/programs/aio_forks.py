"""A child that is forked below run() leaves its parent's loop: DSN PROXY_DSN KIND WHERE END."""

import asyncio
import gc
import os
import signal
import sys
from typing import Any

import psycopg2
import uvloop

import greenwait
from greenwait import aio
from tests.lab.bounds import bound
from tests.lab.queries import one

greenwait.install()
dsn, kind, where, end = sys.argv[2:]
parent = os.getpid()
SECONDS = bound(0.5)  # so long do they wait: meanwhile the child is forked


def leave():
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # the parent's watchdog is not here
        if end == "_exit":
            os._exit(0)
        raise SystemExit(3)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def wait_and_leave():
    conn = psycopg2.connect(dsn)
    conn.cursor().execute("select pg_sleep(0.1)")
    found = leave()
    conn.close()
    return found


async def in_block():
    conn: Any = await aio.connect(dsn)
    try:
        async with conn, conn.cursor() as cur:
            await cur.execute("select 1 from pg_sleep(%s)", [SECONDS])
            return (await cur.fetchone())[0]
    finally:
        await conn.close()


async def idle_in_block():
    conn: Any = await aio.connect(dsn)
    try:
        async with conn, conn.cursor("named") as cur:
            await cur.execute("select generate_series(2, 10)")
            await asyncio.sleep(SECONDS)
            return (await cur.fetchone())[0]
    except BaseException:
        await conn.rollback()
        raise
    finally:
        conn.close()


async def in_pool():
    async with await aio.create_pool(dsn) as pool:
        async with pool.connection() as lent:
            await lent.cursor().execute("select 1 from pg_sleep(%s)", [SECONDS])
        conn: Any = await pool.getconn()
        try:
            cur = conn.cursor()
            await cur.execute("select 3 from pg_sleep(%s)", [SECONDS])
            return (await cur.fetchone())[0]
        finally:
            await pool.putconn(conn)


def ask():
    conn = psycopg2.connect(dsn)
    with conn:
        found = one(conn, "select 4 from pg_sleep(%s)", SECONDS)
    conn.close()
    return found


async def main():
    tasks = []
    for question in in_block, idle_in_block, in_pool, lambda: aio.run(ask):
        tasks.append(asyncio.ensure_future(question()))  # one after the other: they are compared
        await asyncio.sleep(0.05)
    function = {"first": leave, "after a wait": wait_and_leave}[where]
    found = await aio.run(function)
    return [found, *await asyncio.gather(*tasks)]


def run():
    loop = (uvloop if kind == "uvloop" else asyncio).new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(main())
    finally:  # as asyncio.run() does
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        # uvloop's takes all descriptors out of the epoll set, which is the parent's too.
        if os.getpid() == parent or kind == "asyncio":
            loop.close()


try:
    found = run()
except SystemExit as exc:
    gc.collect()
    if os.getpid() != parent:
        assert isinstance(exc.code, int)
        os._exit(exc.code)  # at its exit faulthandler waits for a thread that is not here
    raise
print(found)
