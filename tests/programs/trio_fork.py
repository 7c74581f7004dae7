"""A child that is forked below run() has waits of its own."""

import os
import signal
import sys

import psycopg2
import trio

import greenwait
import greenwait.trio
from tests.lab.queries import one

greenwait.install()


def ask(number):
    return one(psycopg2.connect(sys.argv[1]), "select %s from pg_sleep(0.1)", number)


def fork():
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)  # the parent's watchdog is not here
        try:
            print(ask(1), greenwait.gather(lambda: ask(2)), flush=True)
        finally:
            os._exit(0)
    return os.waitpid(pid, 0)[1]


print(trio.run(greenwait.trio.run, fork))
