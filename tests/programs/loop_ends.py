"""Event loops end with queries under way: asyncio's, in debug mode, and uvloop's."""

import asyncio
import logging
import sys
import time

import psycopg2
import uvloop

import greenwait
from greenwait import aio
from tests.lab.queries import one

logging.getLogger("asyncio").setLevel(logging.ERROR)  # it may be told that a turn took long
greenwait.install(cancel_grace=10)


def ask(query):
    with psycopg2.connect(sys.argv[1]) as conn:
        return one(conn, query)


async def awaited():
    conn = await aio.connect(sys.argv[1])
    async with conn.cursor() as cur:
        await cur.execute("select pg_sleep(23)")


kept = []


async def main():
    kept.extend(asyncio.create_task(aio.run(ask, "select pg_sleep(23)")) for _ in range(5))
    kept.extend(asyncio.create_task(awaited()) for _ in range(5))
    await asyncio.sleep(0.3)


asyncio.run(main(), debug=True)
assert all(task.cancelled() for task in kept)
kept.clear()
loop = uvloop.new_event_loop()
loop.set_debug(True)
asyncio.set_event_loop(loop)
loop.run_until_complete(main())
for task in kept:
    task.cancel()
loop.run_until_complete(asyncio.gather(*kept, return_exceptions=True))
loop.close()
give_up = time.monotonic() + 5
while ask(
    "select count(*) from pg_stat_activity where state = 'active'"
    " and query like '%pg_sleep(23)' and pid <> pg_backend_pid()"
):
    assert time.monotonic() < give_up
print("well")
