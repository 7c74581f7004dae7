"""Ctrl-C comes while more is received than the memory holds."""

import os
import signal
import sys
import threading
import time

import psycopg2

import greenwait

signal.signal(signal.SIGINT, signal.default_int_handler)
greenwait.install(cancel_grace=20)
conn = psycopg2.connect(sys.argv[1])
cur = conn.cursor()
cur.execute("select 1")
began = time.monotonic()
try:
    threading.Timer(0.7, os.kill, (os.getpid(), signal.SIGINT)).start()
    # More than the memory holds, if nobody stops it.
    cur.execute("select generate_series(1, 2000000000), repeat('x', 300)")
except KeyboardInterrupt:
    conn.rollback()
    cur.execute("select 2")
    print(cur.fetchone(), time.monotonic() - began < 20)
