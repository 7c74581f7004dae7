"""Ctrl-C at random moments of COPY, in and out: ``DSN NUMBER``. All or nothing is copied."""

import io
import os
import random
import signal
import sys
import time

import greenwait

DSN, NUMBER = sys.argv[-2], int(sys.argv[-1])
greenwait.install(cancel_grace=20)
conn = greenwait.connect(DSN)
conn.autocommit = True
cur = conn.cursor()
cur.execute("set jit = off; create temp table t (id int, data text)")
source = random.Random(4711)
ROWS = 3_000
DATA = b"".join(b"%d\t%s\n" % (number, b"x" * 20) for number in range(ROWS))
OUT = f"copy (select g, repeat('x', 20) from generate_series(0, {ROWS - 1}) g) to stdout"
signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
signal.signal(signal.SIGINT, signal.default_int_handler)


def copy_in():
    """Copy in, and return how long it took."""
    began = time.monotonic()
    cur.copy_from(io.BytesIO(DATA), "t", size=1000)
    return time.monotonic() - began


def copy_out(file):
    began = time.monotonic()
    cur.copy_expert(OUT, file)
    return time.monotonic() - began


def count():
    cur.execute("select count(*) from t")
    return cur.fetchall()[0][0]


longest = max(copy_in() for _ in range(5)), max(copy_out(io.BytesIO()) for _ in range(5))
cur.execute("truncate t")
interrupted = copied = 0
for _ in range(NUMBER):
    is_in = source.random() < 0.7
    file = io.BytesIO()
    is_over = False
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, source.uniform(1e-5, longest[not is_in]))
            if is_in:
                copy_in()
            else:
                copy_out(file)
            is_over = True
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        if conn.closed:
            raise
        interrupted += 1
    assert not conn.closed
    assert conn.info.transaction_status == 0
    if is_in:
        found = count()
        # An interrupt may come as the server has succeeded already.
        assert found in ((ROWS,) if is_over else (0, ROWS)), found
        copied += found > 0
        cur.execute("truncate t")
    else:
        assert file.getvalue() == DATA if is_over else DATA.startswith(file.getvalue())
print(interrupted, copied)
