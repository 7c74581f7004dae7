"""Queries in gevent's and eventlet's greenlets: others run meanwhile."""

import time

import psycopg2

import greenwait
from tests.lab.hosts import silent_listener
from tests.lab.queries import assert_usable, one
from tests.programs.adapters.framework import (
    DSN,
    NAME,
    call_in_hub,
    connect,
    join,
    sleep,
    spawn,
    watcher,
)


def queries_run_at_the_same_time():
    def work(number):
        with connect() as conn:
            return one(conn, "select %s from pg_sleep(0.2)", number)

    began = time.monotonic()
    assert join([spawn(work, number) for number in range(20)]) == list(range(20))
    assert time.monotonic() - began < 3.9  # one by one: 4


def others_run_meanwhile():
    turns = []

    def count():
        while True:
            turns.append(1)
            sleep(0.01)

    spawn(count)
    conn = connect()
    for _ in range(5):  # on a busy machine the best one counts
        turns.clear()
        one(conn, "select pg_sleep(0.5)")
        if len(turns) > 10:
            break
    assert len(turns) > 10


def large_answers_and_statements():
    def work(size):
        conn = connect()
        return len(one(conn, "select %s || 'y'", "x" * size))

    for _ in range(3):
        sizes = [1, 100, 100_000, 5_000_000]
        assert join([spawn(work, size) for size in sizes]) == [size + 1 for size in sizes]


def query_in_a_callback_of_the_hub_s_own_waits_by_blocking():
    conn = connect()
    answers = []
    call_in_hub(lambda: answers.append(one(conn, "select 'here' from pg_sleep(0.05)")))
    sleep(0.3)
    assert answers == ["here"]
    assert_usable(conn)


def silent_hosts_time_out_beside_each_other():
    def work():
        try:
            psycopg2.connect(host="127.0.0.1", port=port, user="x", connect_timeout=1)
        except psycopg2.OperationalError as exc:
            return "connect_timeout" in str(exc)

    with silent_listener() as port:
        began = time.monotonic()
        assert join([spawn(work) for _ in range(5)]) == [True] * 5
        assert 1 <= time.monotonic() - began < 4.5  # one by one: 5


def greenwait_connect_works_there():
    def work():
        conn = greenwait.connect(DSN, connect_timeout=10)
        return one(conn, "select 'here'")

    assert join([spawn(work) for _ in range(3)]) == ["here"] * 3


def hub_of_ours_is_refused_in_favour_of_the_framework_s():
    def work():
        try:
            greenwait.gather(lambda: 1)
        except RuntimeError as exc:
            return str(exc)

    sleep(0)
    (message,) = join([spawn(work)])
    assert f"{NAME}.{'pool.Pool' if NAME == 'gevent' else 'GreenPool'}" in message, message


def query_beside_notifications_of_the_same_connection():
    conn, other = connect(), connect()
    conn.autocommit = other.autocommit = True
    conn.cursor().execute("listen beside")
    found = []

    def listen():
        for notify in greenwait.notifies(conn, timeout=20):
            found.append(notify.payload)
            if notify.payload == "last":
                break

    job = spawn(listen)
    sleep(0.05)
    for number in range(3):
        assert one(conn, "select %s from pg_sleep(0.1)", number) == number
        other.cursor().execute("notify beside, %s", (str(number),))
    other.cursor().execute("notify beside, 'last'")
    join([job])
    assert found == ["0", "1", "2", "last"], found


def idle_connection_that_is_readable_keeps_nobody_awake():
    idle = connect()
    one(idle, "select 1")
    idle.rollback()
    one(watcher, "select pg_terminate_backend(%s, 5000)", idle.info.backend_pid)
    cpu = time.process_time()
    sleep(0.5)
    one(watcher, "select pg_sleep(0.5)")
    assert time.process_time() - cpu < 0.3
    try:
        one(idle, "select 1")
    except psycopg2.OperationalError:
        return
    raise AssertionError
