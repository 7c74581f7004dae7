"""The end of the interpreter, in programs of gevent's and eventlet's."""

import builtins
import time
from atexit import register
from typing import Any

import psycopg2

import greenwait
from tests.lab.queries import one
from tests.programs.adapters.framework import DSN, NAME, connect, framework, join, sleep, spawn

kept: Any = None  # to the end of the interpreter


def program_ends_though_connections_are_open():
    global kept
    kept = conns = [connect() for _ in range(3)]
    join([spawn(one, conn, "select 1") for conn in conns])
    if NAME == "gevent":
        took = []
        for _ in range(5):  # on a busy machine the best one counts
            join([spawn(one, conn, "select 1") for conn in conns])
            began = time.monotonic()
            assert framework.wait(timeout=5)
            took.append(time.monotonic() - began)
            if took[-1] < 1:
                break
        assert min(took) < 1, took


# -- What is left at the end, about which nothing is to be said


def idle_connection():
    global kept
    kept = connect()
    one(kept, "select 1")


def of_another_greenlet():
    join([spawn(lambda: one(connect(), "select 1"))])


def pending_wait():
    global kept
    kept = connect()
    spawn(one, kept, "select pg_sleep(100)")
    sleep(0.1)


def pending_wait_with_a_deadline():
    global kept
    kept = connect()

    def work():
        with greenwait.timeout(50):
            one(kept, "select pg_sleep(100)")

    spawn(work)
    sleep(0.1)


class Late:
    """It is freed while there still is a sys.stderr, where it is kept by ``builtins``."""

    def __init__(self, conn):
        self.conn = conn
        builtins.__dict__["late"] = self

    def __del__(self):
        self.conn.rollback()


def finalizer():
    one(Late(connect()).conn, "select 1")


def finalizer_of_a_guarded_connection():
    one(Late(greenwait.connect(DSN)).conn, "select 1")


class LateAtWork(Late):
    error = psycopg2.ProgrammingError

    def __del__(self):
        try:
            self.conn.rollback()
        except self.error as exc:
            assert "at interpreter exit" in str(exc), exc
        else:
            raise AssertionError


def finalizer_of_one_that_is_at_work():
    spawn(one, LateAtWork(greenwait.connect(DSN)).conn, "select pg_sleep(100)")
    sleep(0.1)


def notifications():
    global kept
    kept = conn = greenwait.connect(DSN)
    conn.autocommit = True
    spawn(lambda: list(greenwait.notifies(conn)))
    sleep(0.1)


def atexit():
    global kept
    kept = connect()
    register(lambda: join([spawn(one, kept, "select 1")]))
