"""A closed connection stays in the kernel's set, and readable, if a child holds its socket."""

import os
import sys
import time

import psycopg2
from psycopg2.extensions import set_wait_callback

import greenwait

set_wait_callback(greenwait.EpollWaitCallback)
conn = psycopg2.connect(sys.argv[1])
conn.cursor().execute("select 1")
pid = os.fork()
if pid == 0:
    time.sleep(3)
    os._exit(0)
conn.close()  # the server hangs up on the shared socket: EPOLLIN | EPOLLHUP for ever
other = psycopg2.connect(sys.argv[1])
before = time.process_time()
other.cursor().execute("select pg_sleep(1)")
print(time.process_time() - before < 0.05)
os.kill(pid, 9)
os.waitpid(pid, 0)
