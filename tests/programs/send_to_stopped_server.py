"""Send to a server process that is stopped, on a connection that is older than the callback.

It takes nothing in. What is sent to it blocks: in libpq, where no signal is heard, or in the
callback, where the handler ends it. DSN poll|epoll|begin|twice.
"""

import os
import signal
import sys

os.environ["GREENWAIT_NO_LIBPQ"] = ""  # whatever path this run is about
import psycopg2

import greenwait

conn = psycopg2.connect(sys.argv[1])
conn.autocommit = True
cur = conn.cursor()
pid = conn.info.backend_pid
if sys.argv[2] == "begin":  # BEGIN is a wait of its own
    greenwait.install()
    conn.autocommit = False
else:
    greenwait.install(poller="epoll" if sys.argv[2] == "epoll" else "poll")
    cur.execute("select 1")
if sys.argv[2] == "twice":
    greenwait.uninstall()
    cur.execute("select 1")
    greenwait.install()


class Heard(Exception):
    pass


def handler(*_):
    raise Heard


signal.signal(signal.SIGALRM, handler)
os.kill(pid, signal.SIGSTOP)
try:
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    cur.execute("select length(%s)", ("x" * 20_000_000,))
except Heard:
    print("heard")
finally:
    os.kill(pid, signal.SIGCONT)
