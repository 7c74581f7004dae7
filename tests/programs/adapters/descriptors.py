"""Connections and descriptors that come, go and are closed under the event loop."""

import contextlib
import os
import socket
import subprocess
import time

import psycopg2

from tests.lab.queries import one
from tests.programs.adapters.framework import (
    connect,
    descriptors,
    join,
    sleep,
    spawn,
    wait_write,
    watcher,
)


def connections_that_come_and_go_leak_nothing():
    def work(number):
        for _ in range(5):
            conn = connect()
            assert one(conn, "select %s", number) == number
            conn.close()

    join([spawn(work, number) for number in range(10)])
    before = descriptors()
    for _ in range(5):
        join([spawn(work, number) for number in range(10)])
    assert descriptors() <= before


def connection_that_is_lost():
    conn = connect()
    pid = conn.info.backend_pid

    def work():
        try:
            one(conn, "select pg_sleep(20)")
        except psycopg2.OperationalError:
            return conn.closed

    job = spawn(work)
    sleep(0.2)
    one(watcher, "select pg_terminate_backend(%s)", pid)
    assert join([job]) == [2]


def closed_connections_leave_their_numbers_to_others():
    counts = []
    for _ in range(100):
        conns = [connect() for _ in range(3)]
        assert join([spawn(one, conn, "select 1") for conn in conns]) == [1, 1, 1]
        for conn in conns[::-1]:
            conn.close()
        counts.append(descriptors())
    assert counts[-1] <= counts[0]


def connection_that_is_closed_does_not_upset_the_next_of_its_descriptor():
    def close(conn):
        conn.close()

    def let_libpq_close(conn):
        one(watcher, "select pg_terminate_backend(%s, 5000)", conn.info.backend_pid)
        with contextlib.suppress(psycopg2.OperationalError):
            one(conn, "select 1")

    for each in (close, let_libpq_close):
        conn = connect()
        one(conn, "select 1")
        fd = conn.fileno()
        each(conn)
        numbers = [os.dup(1) for _ in range(10)]
        assert fd in numbers
        ends = socket.socketpair()
        os.dup2(ends[0].fileno(), fd)
        wait_write(fd)
        os.close(fd)
        sleep(0.01)
        sleep(0.01)
        for end in ends:
            end.close()
        for number in numbers:
            if number != fd:
                os.close(number)


def file_that_is_open_elsewhere_is_forgotten_with_its_connection():
    conn = connect()
    one(conn, "select 1")
    fd = conn.fileno()
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[fd])
    conn.close()
    for _ in range(3):
        again = connect()
        assert one(again, "select 1") == 1
    cpu = time.process_time()
    sleep(0.3)
    assert one(again, "select 2 from pg_sleep(0.3)") == 2
    assert time.process_time() - cpu < 0.3
    assert child.stdin
    child.stdin.close()
    child.wait()


def descriptor_that_is_closed_under_a_wait_is_an_error():
    conn = connect()
    one(conn, "select 1")

    def work():
        try:
            one(conn, "select pg_sleep(30)")
        except (psycopg2.OperationalError, OSError) as exc:
            return str(exc)

    job = spawn(work)
    sleep(0.1)
    os.close(conn.fileno())
    began = time.monotonic()
    assert "descriptor" in join([job])[0]
    assert time.monotonic() - began < 4  # it is looked for every second
