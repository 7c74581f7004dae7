"""A place comes free while another thread has its turn, in eventfd(2)."""

import contextlib
import os
import sys

import psycopg2
import trio

real, meanwhile = os.eventfd, []


def eventfd(*args):
    if meanwhile:
        meanwhile.pop()()
    return real(*args)


os.eventfd = eventfd
import greenwait
import greenwait.trio

greenwait.install()
run = greenwait.trio.run


def give_up(pool):
    with contextlib.suppress(greenwait.PoolTimeout):
        pool.close(timeout=0)


async def main():
    pool = greenwait.Pool(sys.argv[1], max_size=1)
    conn = await run(pool.getconn)
    meanwhile.append(lambda: pool.putconn(conn))
    assert await run(pool.getconn, 5) is conn
    meanwhile.append(lambda: pool.putconn(conn))
    await run(pool.close, 5)
    assert conn.closed
    pool = greenwait.Pool(sys.argv[1], max_size=1)
    conn = await run(pool.getconn)
    meanwhile.append(lambda: give_up(pool))
    try:
        await run(pool.getconn, 5)
    except psycopg2.InterfaceError as exc:
        print(exc)
    assert not meanwhile


trio.run(main)
