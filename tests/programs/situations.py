"""Play situations with a callback, and print what was seen: DSN CALLBACK SITUATIONS, in JSON."""

import json
import sys

import psycopg2
from psycopg2.extensions import set_wait_callback

import greenwait

told = []


def tell(*things):
    told.append(things)


def attempt(statement):
    try:
        cur.execute(statement)
        tell("succeeded", cur.rowcount)
    except psycopg2.Error as exc:
        tell(type(exc).__name__, exc.pgcode, str(exc))


set_wait_callback(
    {"blocking": None, "poll": greenwait.wait, "epoll": greenwait.EpollWaitCallback}[sys.argv[2]]
)
seen = {}
for name, situation in json.loads(sys.argv[3]).items():
    told = seen[name] = []
    conn = psycopg2.connect(sys.argv[1])
    cur = conn.cursor()
    exec(situation)
    tell(conn.closed, conn.status)
    try:
        conn.rollback()
        cur.execute("select 7")
        tell(cur.fetchone(), conn.info.transaction_status)
    except psycopg2.Error as exc:
        tell(type(exc).__name__, exc.pgcode, str(exc))
    conn.close()
print(json.dumps([seen, greenwait.stats().results_libpq]))
