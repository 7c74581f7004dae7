"""A child that is forked in a job has a gather() of its own."""

import os
import signal
import sys

import psycopg2

import greenwait
from tests.lab.queries import one

greenwait.install()


def ask(number):
    return one(psycopg2.connect(sys.argv[1]), "select %s from pg_sleep(0.2)", number)


def fork():
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)  # the parent's watchdog is not here
        try:
            print(greenwait.gather(*[lambda n=n: ask(n) for n in range(3)]), flush=True)
            print(list(greenwait.map(ask, [4, 5])), flush=True)
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


print(greenwait.gather(lambda: ask(6), lambda: ask(7), fork))
