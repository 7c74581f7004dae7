"""A child that disposes of its parent's engine, while a job of that waits: ``DSN``."""

import os
import sys

import sqlalchemy
from psycopg2.extensions import parse_dsn

import greenwait

greenwait.install()
engine = sqlalchemy.create_engine(
    "postgresql+greenwait://", connect_args=parse_dsn(sys.argv[-1]), pool_size=1, max_overflow=0
)
PID = sqlalchemy.text("select pg_backend_pid()")


def pid():
    with engine.connect() as conn:
        return conn.scalar(PID)


def fork():
    child = os.fork()
    if child == 0:
        engine.dispose(close=False)
        found = {pid(), *greenwait.gather(*[pid] * 3)}
        os._exit(0 if len(found) == 1 and before not in found else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def hold():
    with engine.connect() as conn:
        conn.exec_driver_sql("select pg_sleep(0.3)")
        fork()
        return conn.scalar(PID)


before = pid()
fork()
assert greenwait.gather(hold, pid) == [before, before]
print("well")
