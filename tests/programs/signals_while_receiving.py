"""Signals come while the descriptor is ready again and again."""

import signal
import sys
import threading
import time

import psycopg2

import greenwait

greenwait.install()
conn = psycopg2.connect(sys.argv[1])
sent: list[float] = []
late: list[float] = []
signal.signal(signal.SIGUSR1, lambda *_: late.append(time.monotonic() - sent[-1]))


def send():
    for _ in range(8):
        time.sleep(0.1)
        sent.append(time.monotonic())
        # To this thread: the one that waits is not interrupted.
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        while len(late) < len(sent):
            time.sleep(0.001)


cur = conn.cursor()
sender = threading.Thread(target=send, daemon=True)
sender.start()
while sender.is_alive():
    cur.execute("select generate_series(1, 300000), repeat('x', 300)")
    assert cur.rowcount == 300000
print(*sorted(late))
