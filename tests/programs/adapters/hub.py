"""Waits in the hub's own greenlet, where a finalizer may run."""

import time
from typing import Any

import psycopg2
import psycopg2.extensions

import greenwait
from tests.lab.freezers import frozen
from tests.lab.queries import one
from tests.programs.adapters.framework import (
    DSN,
    call_in_hub,
    connect,
    join,
    patch_psycopg,
    sleep,
    spawn,
    watcher,
)

FACTORIES = {
    "psycopg2.extensions.connection": psycopg2.extensions.connection,
    "greenwait.Connection": greenwait.Connection,
}


def stop_hub(function):
    """Call it in the hub's greenlet; return what it raises, and how long it takes."""
    ended: list[Any] = []

    def call():
        began = time.monotonic()
        try:
            function()
        except Exception as exc:
            ended.append(exc)
        else:
            ended.append(None)
        ended.append(time.monotonic() - began)

    call_in_hub(call)
    while len(ended) < 2:
        sleep(0.01)
    return ended


def rollback_of_a_finalizer_in_the_hub_has_the_grace_and_no_more(factory):
    greenwait.uninstall()
    patch_psycopg(cancel_grace=0.5)

    owner: Any = None

    class Owner:
        def __init__(self):
            self.conn = connect(connection_factory=FACTORIES[factory])

        def __del__(self):
            try:
                self.conn.rollback()
            except psycopg2.OperationalError as exc:
                said.append(str(exc))

    def collect():
        nonlocal owner
        del owner

    for _ in range(5):  # on a busy machine the best one counts
        said = []
        owner = Owner()
        one(owner.conn, "select 1")
        conn = owner.conn
        watcher.rollback()
        with frozen(conn.info.backend_pid):
            _, took = stop_hub(collect)
        assert took > 0.49, took
        assert "not answered a rollback within 0.5 s" in said[0], said
        assert conn.closed
        assert one(connect(), "select 1") == 1
        if took < 1:
            break
    assert took < 1, took


def rollback_in_the_hub_that_is_answered_keeps_the_connection():
    conn = connect()
    one(conn, "select 1")
    assert stop_hub(lambda: conn.rollback())[0] is None
    assert one(conn, "select 2") == 2


def other_statements_in_the_hub_take_as_long_as_they_take():
    greenwait.uninstall()
    patch_psycopg(cancel_grace=0.2)
    conn = connect()
    assert stop_hub(lambda: one(conn, "select pg_sleep(0.6)"))[0] is None
    conn.rollback()
    assert one(conn, "select 2") == 2


def connection_that_is_at_work_is_not_waited_for_in_the_hub():
    conn, locker = greenwait.connect(DSN), connect()
    one(locker, "select pg_advisory_xact_lock(1)")
    job = spawn(one, conn, "select 'answer' from pg_advisory_xact_lock(1)")
    sleep(0.1)
    failure, took = stop_hub(lambda: conn.rollback())
    assert isinstance(failure, psycopg2.ProgrammingError), failure
    assert "in an event loop's own greenlet" in str(failure)
    assert took < 5
    locker.rollback()
    assert join([job]) == ["answer"]
