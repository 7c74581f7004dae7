"""How much memory does a job take that waits?"""

import re
import sys
from pathlib import Path

import psycopg2

import greenwait

greenwait.install()


def resident_kb():
    (kb,) = re.findall(r"VmRSS:\s*(\d+)", Path("/proc/self/status").read_text())
    return int(kb)


def ask(conn, seconds):
    with conn.cursor() as cur:
        cur.execute("select pg_sleep(%s)", (seconds,))


conns = [psycopg2.connect(sys.argv[1]) for _ in range(100)]
for conn in conns:
    ask(conn, 0)
with greenwait.Hub() as hub:
    hub.spawn(ask, conns[0], 0).result()
    before = resident_kb()
    jobs = [hub.spawn(ask, conn, 20) for conn in conns]
    hub.sleep(0.5)
    print((resident_kb() - before) / len(jobs))
    for job in jobs:
        job.cancel()
