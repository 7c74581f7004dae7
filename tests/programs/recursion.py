"""Recurse on a thread's small stack: DSN plain|run DEPTH STACK."""

import asyncio
import sys
import threading

import psycopg2

import greenwait
from greenwait import aio

dsn, how = sys.argv[1:3]
depth, stack = map(int, sys.argv[3:])
greenwait.install()
conn = psycopg2.connect(dsn)  # libpq needs more of a stack for that
sys.setrecursionlimit(100_000)


def recurse(n):  # through C: map() calls it
    if n:
        return next(map(recurse, (n - 1,)))
    cur = conn.cursor()
    cur.execute("select 42")
    ((found,),) = cur.fetchall()
    return found


async def main():
    return recurse(depth) if how == "plain" else await aio.run(recurse, depth)


found: list[int] = []
threading.stack_size(stack)
thread = threading.Thread(target=lambda: found.append(asyncio.run(main())))
thread.start()
thread.join()
assert found == [42]
