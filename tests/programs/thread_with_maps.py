"""Threads end with maps that were not read to their end: DSN ITEMS MAPS."""

import sys
import threading
import time

import psycopg2

import greenwait
from greenwait._greenlets.hub import hub_here

greenwait.install(cancel_grace=20)
watcher = psycopg2.connect(sys.argv[1])
watcher.autocommit = True
items, maps = map(int, sys.argv[2:])
local = threading.local()
pids = []


def ask(conn, seconds):
    with conn.cursor() as cur:
        cur.execute("select pg_backend_pid() from pg_sleep(%s)", (seconds,))
        return cur.fetchone()[0]


def work(number):
    conn = psycopg2.connect(sys.argv[1])
    pids.append(conn.info.backend_pid)
    with conn:  # it is rolled back, at the thread's end
        return ask(conn, 0 if number == 0 else 30)


def thread():
    local.maps = [greenwait.map(work, range(items), concurrency=3) for _ in range(maps)]
    for each in local.maps:
        next(each)


began = time.monotonic()
for _ in range(2):
    own = threading.Thread(target=thread)
    own.start()
    own.join()
assert hub_here() is None
assert time.monotonic() - began < 20
query = "select count(*) from pg_stat_activity where pid = any(%s) and state = 'active'"
with watcher.cursor() as cur:
    cur.execute(query, (pids,))
    assert cur.fetchone() == (0,)
