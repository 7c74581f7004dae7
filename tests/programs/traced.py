"""Traced code is interrupted: DSN QUERY."""

import signal
import sys

import psycopg2

import greenwait


class Limit(Exception):
    pass


def handler(*_):
    raise Limit


signal.signal(signal.SIGALRM, handler)
greenwait.install()
cur = psycopg2.connect(sys.argv[1]).cursor()
sys.settrace(lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 1)
try:
    cur.execute(sys.argv[2])
    cur.execute("select 1")  # at the latest
except Limit:
    print("it was raised")
