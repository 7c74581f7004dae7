"""Ctrl-C at random moments of trio.run()."""

import os
import random
import signal
import sys

import psycopg2
import trio

import greenwait
import greenwait.trio

greenwait.install(cancel_grace=10)
conn = psycopg2.connect(sys.argv[1])
conn.autocommit = True
source = random.Random(4711)
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))


def work():
    cur = conn.cursor()
    while True:
        cur.execute("select 1")


async def main():
    signal.setitimer(signal.ITIMER_REAL, source.uniform(1e-3, 4e-3))
    await greenwait.trio.run(work)


interrupts = 0
while interrupts < 300:
    try:
        trio.run(main)
    except KeyboardInterrupt:
        interrupts += 1
    assert not conn.closed
    cur = conn.cursor()
    cur.execute("select 42")
    assert cur.fetchone() == (42,)
print(interrupts)
