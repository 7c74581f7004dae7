"""There is no descriptor left to cancel with: DSN ctrl-c|deadline|cancel."""

import os
import resource
import signal
import sys
import threading
import time

import psycopg2

import greenwait

greenwait.install(cancel_grace=0.5)
signal.signal(signal.SIGINT, signal.default_int_handler)
conn = psycopg2.connect(sys.argv[1])
conn.autocommit = True
cur = conn.cursor()
cur.execute("select 1")
if sys.argv[2] == "ctrl-c":
    waits = greenwait.stats().waits
    main = threading.get_ident()

    def interrupt():
        while greenwait.stats().waits == waits:
            time.sleep(0.01)
        time.sleep(0.3)
        signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 2, hard))
held = []
try:
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
began = time.monotonic()
try:
    if sys.argv[2] == "cancel":
        greenwait.cancel(conn)
    elif sys.argv[2] == "ctrl-c":
        cur.execute("select pg_sleep(20)")
    else:
        with greenwait.timeout(0.3):
            cur.execute("select pg_sleep(20)")
except BaseException as exc:
    caught = exc
took = time.monotonic() - began
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
for fd in held:
    os.close(fd)
print(type(caught).__name__, caught, caught.__cause__, took < 10, conn.closed)
