"""What ends a wait in a greenlet of gevent's or eventlet's: a kill, a timeout of theirs, ours."""

import io

import greenlet
from greenlet import GreenletExit

import greenwait
from tests.lab.queries import assert_usable, one
from tests.programs.adapters.framework import (
    NAME,
    Timeout,
    assert_stopped,
    connect,
    framework,
    join,
    kill,
    sleep,
    spawn,
    start_timeout,
    watcher,
)


def killed_greenlet_stops_its_query_and_leaves_a_usable_connection():
    conn = connect()
    caught = []

    def work():
        try:
            one(conn, "select pg_sleep(20)")
        except BaseException as exc:
            caught.append(exc)
            raise

    job = spawn(work)
    sleep(0.2)
    kill(job)
    while not caught:
        sleep(0.01)
    assert [type(exc) for exc in caught] == [GreenletExit], caught
    assert_stopped(conn.info.backend_pid)
    assert_usable(conn)


def the_framework_s_own_timeout_is_delivered_as_it_is():
    conn = connect()
    turns = []

    def count():
        while True:
            turns.append(1)
            sleep(0.01)

    spawn(count)
    for _ in range(5):
        timeout, caught = start_timeout(0.1), None
        try:
            one(conn, "select pg_sleep(20)")
        except Timeout as exc:
            caught = exc
        finally:
            timeout.cancel()
        assert caught is timeout
        assert_stopped(conn.info.backend_pid)
        assert_usable(conn)
    assert len(turns) > 10
    with Timeout(0.1, False):
        one(conn, "select pg_sleep(20)")
    assert_usable(conn)


def greenwait_s_timeout_is_of_its_own_greenlet():
    def hurried():
        conn = connect()
        try:
            with greenwait.timeout(0.1):
                one(conn, "select pg_sleep(20)")
        except greenwait.QueryTimeout:
            assert_usable(conn)
            return "too late"

    def patient():
        return one(connect(), "select 'in time' from pg_sleep(0.3)")

    assert join([spawn(hurried), spawn(patient)]) == ["too late", "in time"]


def killed_before_the_loop_knows_of_the_wait():
    for number in range(50):

        def work(conn):
            try:
                one(conn, "select pg_sleep(10)")
            finally:
                conn.close()

        job = spawn(work, connect())
        sleep(0.001 * (number % 5))
        kill(job)
        sleep(0)
        assert one(watcher, "select 1") == 1


def exception_out_of_a_bare_greenlet_is_told_as_its_own():
    if NAME != "gevent":
        return
    hub = framework.get_hub()
    hub.exception_stream = io.StringIO()
    conn = connect()

    def work():
        one(conn, "select pg_sleep(0.1)")
        raise LookupError("nobody asked for it")

    bare = greenlet.greenlet(work, hub)
    hub.loop.run_callback(bare.switch)
    while not bare.dead:
        sleep(0.01)
    told = hub.exception_stream.getvalue()
    assert "LookupError: nobody asked for it" in told, told
    assert f"{bare} failed with LookupError" in told, told
