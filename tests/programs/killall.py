"""gevent's killall() of greenlets that have timeouts: DSN SEED."""

from gevent import monkey

monkey.patch_all()
import random
import sys
import time
from typing import Any

import gevent
import psycopg2

from greenwait.gevent import patch_psycopg

patch_psycopg()
DSN, generator = sys.argv[1], random.Random(int(sys.argv[2]))
running = set()
Timeout: Any = gevent.Timeout


def connect():
    conn = psycopg2.connect(DSN)
    conn.autocommit = True
    return conn


def poller(number):
    conn = connect()
    while True:
        running.add(number)
        with Timeout(0.05 + generator.random() * 0.1, False):
            conn.cursor().execute("select pg_sleep(0.6)")
        if conn.closed:
            conn = connect()


jobs = [gevent.spawn(poller, number) for number in range(100)]
while len(running) < len(jobs):
    gevent.sleep(0.05)
gevent.sleep(0.1)
began = time.monotonic()
try:
    gevent.killall(jobs, timeout=20)
finally:
    print(sum(not job.ready() for job in jobs), time.monotonic() - began)
