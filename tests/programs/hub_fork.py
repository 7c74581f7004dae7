"""A child that is forked in a job has no hub."""

import os
import sys

import psycopg2

import greenwait
from tests.lab.queries import one

greenwait.install()
conn = psycopg2.connect(sys.argv[1])
with greenwait.Hub() as hub:

    def work():
        hub.sleep(0.05)
        pid = os.fork()
        if pid == 0:
            own = psycopg2.connect(sys.argv[1])
            print(one(own, "select 'child' from pg_sleep(0.05)"), flush=True)
            print(greenwait.gather(lambda: 1, lambda: 2), flush=True)
            try:
                hub.spawn(print, "nobody would run it")
            except RuntimeError as exc:
                print(exc, flush=True)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0

    hub.spawn(work)
    print(one(conn, "select 'parent' from pg_sleep(3)"))
