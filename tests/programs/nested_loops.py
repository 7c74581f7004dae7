"""An event loop within a task of its own, which nest_asyncio makes possible."""

import asyncio
import sys
import time
import warnings

import nest_asyncio

import greenwait
from greenwait import aio

greenwait.install(cancel_grace=10)
complaints = []


async def ask(conn, number):
    async with conn, conn.cursor() as cur:
        await cur.execute("select %s from pg_sleep(0.02)", (number,))
        return (await cur.fetchone())[0]


async def both(first, second):
    return await asyncio.gather(ask(first, 1), ask(second, 2))


async def stopped(conn):
    try:
        await asyncio.wait_for(conn.cursor().execute("select pg_sleep(20)"), 0.05)
    except asyncio.TimeoutError:
        await conn.rollback()
        return "stopped"


async def main():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    first, second = [await aio.connect(sys.argv[1]) for _ in range(2)]
    assert await ask(first, 0) == 0
    began = time.monotonic()
    beside = asyncio.ensure_future(second.cursor().execute("select pg_sleep(0.5)"))
    for _ in range(10):
        assert loop.run_until_complete(ask(first, 3)) == 3
        assert await ask(first, 4) == 4
    await beside
    assert time.monotonic() - began < 10  # by its one-second ticks: 20
    for _ in range(10):
        assert loop.run_until_complete(both(first, second)) == [1, 2]
        assert await both(first, second) == [1, 2]
    assert loop.run_until_complete(stopped(first)) == "stopped"
    assert asyncio.run(ask(first, 6)) == 6
    assert await both(first, second) == [1, 2]
    first.close()
    second.close()


loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
warnings.filterwarnings("ignore", message=".*event_loop_policy")  # nest_asyncio's own, as of 3.14
nest_asyncio.apply(loop)
loop.run_until_complete(main())
loop.close()
print(complaints)
