"""Calls that were closed are refused, as coroutines are."""

import asyncio
import sys
from typing import Any

import greenwait
import greenwait.aio
from greenwait.aio._call import Call

greenwait.install()


async def refused(call):
    try:
        await call
    except RuntimeError as exc:
        print(exc)


async def main():
    conn: Any = await greenwait.aio.connect(sys.argv[1])
    closed, thrown, begun = conn.commit(), conn.commit(), Call(conn.commit, (), {})
    closed.close()
    await refused(closed)
    try:
        thrown.throw(ValueError)
    except ValueError:
        await refused(thrown)
    await begun.begin()
    try:
        begun.begin()
    except RuntimeError as exc:
        print(exc)
    cur = conn.cursor()
    suspension = cur.execute("select pg_sleep(0.1)").send(None)
    over = asyncio.Event()
    while not suspension.done():
        await asyncio.sleep(0.01)
    assert suspension.get_loop() is asyncio.get_running_loop()
    suspension.add_done_callback(lambda _: over.set())
    await over.wait()


asyncio.run(main())
