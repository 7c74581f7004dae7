"""A child that is forked in a hub leaves it: DSN job|block|gather|map exit|raise|return."""

import os
import signal
import sys

import psycopg2

import greenwait
from tests.lab.queries import one

greenwait.install()
where, end = sys.argv[2:]
parent = os.getpid()


def ask(seconds, number):
    return one(psycopg2.connect(sys.argv[1]), "select %s from pg_sleep(%s)", number, seconds)


def work():
    if os.fork() == 0:
        signal.alarm(20)  # the parent's watchdog is not here
        if end == "exit":
            sys.exit(0)
        if end == "raise":
            raise KeyError("child")
        return
    os.wait()


def fork(where):
    if where == "job":
        with greenwait.Hub() as hub:
            jobs = [hub.spawn(ask, 0.3, 1), hub.spawn(ask, 0.3, 2), hub.spawn(work)]
            hub.sleep(0.4)
            return [job.result() for job in jobs[:2]]
    if where == "block":
        with greenwait.Hub() as hub:
            jobs = [hub.spawn(ask, 0.3, 1), hub.spawn(ask, 0.3, 2)]
            hub.sleep(0.1)
            work()
            if os.getpid() != parent:
                return None
            return [job.result() for job in jobs]
    if where == "gather":
        return greenwait.gather(lambda: ask(0.3, 1), lambda: ask(0.3, 2), work)[:2]
    found = []
    for number in greenwait.map(lambda n: ask(0.3 * n, n), [0, 1, 2]):
        if number == 0:
            work()
            if os.getpid() != parent:
                return None
        else:
            found.append(number)
    return found


try:
    found = fork(where)
except (SystemExit, KeyError, RuntimeError) as exc:
    found = repr(exc)
if os.getpid() == parent:
    print(found)
else:
    print(found, greenwait.gather(lambda: ask(0.1, 3), lambda: ask(0.1, 4)), flush=True)
    os._exit(0)  # at its exit faulthandler waits for a thread that is not here
