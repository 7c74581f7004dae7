"""A child that is forked below run() has waits and event loops of its own."""

import asyncio
import os
import signal
import sys

import psycopg2

import greenwait
from greenwait import aio
from tests.lab.queries import one

greenwait.install()


def ask(number):
    return one(psycopg2.connect(sys.argv[1]), "select %s from pg_sleep(0.1)", number)


async def both(first, second):
    return await asyncio.gather(aio.run(ask, first), aio.run(ask, second))


def fork():
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)  # the parent's watchdog is not here
        try:
            print(ask(1), asyncio.run(both(2, 3)), greenwait.gather(lambda: ask(4)), flush=True)
        finally:
            os._exit(0)
    return os.waitpid(pid, 0)[1]


async def main():
    return await asyncio.gather(aio.run(fork), both(5, 6))


print(asyncio.run(main()))
