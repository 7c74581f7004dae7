"""Servers that die, sockets that are closed, hosts that refuse."""

import contextlib
import os
import signal
import socket
import threading
import time

import psycopg2
import pytest

from tests.asleep import when_asleep
from tools.postgres import Server


def one(conn, query):
    cur = conn.cursor()
    cur.execute(query)
    return cur.fetchone()[0]


def connect_again(dsn):
    """Connect to a server that is recovering from the loss of a process."""
    give_up = time.monotonic() + 30
    while True:
        try:
            return psycopg2.connect(dsn)
        except psycopg2.OperationalError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.02)


def test_terminated_backend_is_an_operational_error(conn, connect):
    watcher = connect()
    pid = conn.info.backend_pid
    terminate = f"select pg_terminate_backend({pid})"
    with (
        when_asleep(watcher, conn, lambda: one(watcher, terminate)),
        pytest.raises(psycopg2.OperationalError, match="terminating connection"),
    ):
        one(conn, "select pg_sleep(20)")
    assert conn.closed == 2


@pytest.fixture
def breakable(own_server, callback, transport):
    """Two connections to a server whose processes may be killed: a victim and a watcher."""
    assert isinstance(own_server, Server)
    if transport == "dsn":
        transport = "unix"
    with contextlib.ExitStack() as stack:
        pair = [connect_again(own_server.dsn(way)) for way in (transport, "unix")]
        for conn in pair:
            stack.callback(conn.close)
        yield pair
        # The loss of one process makes the postmaster restart all of them, in its own time:
        # the next test must not connect before that.
        with pytest.raises(psycopg2.Error):
            while True:
                one(pair[1], "select pg_sleep(0.01)")


def test_killed_server_process_is_an_operational_error(breakable):
    conn, watcher = breakable
    pid = conn.info.backend_pid
    with (
        when_asleep(watcher, conn, lambda: os.kill(pid, signal.SIGKILL)),
        pytest.raises(psycopg2.OperationalError, match=r"closed the connection|SSL SYSCALL|reset"),
    ):
        one(conn, "select pg_sleep(20)")
    assert conn.closed == 2


def test_server_process_killed_during_a_large_result_is_an_operational_error(breakable):
    conn, watcher = breakable
    pid = conn.info.backend_pid
    with (
        when_asleep(watcher, conn, lambda: os.kill(pid, signal.SIGKILL)),
        pytest.raises(psycopg2.OperationalError),
    ):
        one(conn, "select repeat('x', 10000), pg_sleep(0.0005) from generate_series(1, 100000)")
    assert conn.closed == 2


def test_descriptor_closed_under_the_wait_is_an_operational_error(
    callback, transport, server, connect
):
    conn = psycopg2.connect(server.dsn(transport))
    number = conn.fileno()
    with (
        when_asleep(connect(), conn, lambda: os.close(number)),
        pytest.raises(psycopg2.OperationalError, match=str(number)) as info,
    ):
        one(conn, "select pg_sleep(5)")
    assert isinstance(info.value.__cause__, OSError)
    assert conn.closed == 2


def test_second_host_is_reached_when_the_first_refuses(callback, server):
    if "tcp" not in server.transports:
        pytest.skip("the server of GREENWAIT_TEST_DSN is reached in one way only")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refuses, and stays ours
        refusing = taken.getsockname()[1]
        for way in set(server.transports) - {"unix"}:
            hosts = {"host": "127.0.0.1,127.0.0.1", "port": f"{refusing},{server.port}"}
            with contextlib.closing(psycopg2.connect(server.dsn(way, **hosts))) as conn:
                assert one(conn, "select 4 from pg_sleep(0.01)") == 4
                assert conn.info.port == server.port


def test_all_hosts_refusing_is_an_operational_error(callback):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(psycopg2.OperationalError, match="refused"):
            psycopg2.connect(host="127.0.0.1,127.0.0.1", port=f"{port},{port}", user="x")


def test_silent_server_that_hangs_up_is_an_operational_error(callback):
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def hang_up():
            peer, _ = listening.accept()
            peer.recv(1)
            peer.close()

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        with pytest.raises(psycopg2.OperationalError):
            psycopg2.connect(host="127.0.0.1", port=listening.getsockname()[1], user="x")
        thread.join(20)


def test_failed_connections_leak_no_descriptor(callback, server):
    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    def fail():
        with pytest.raises(psycopg2.OperationalError):
            psycopg2.connect(server.dsn(dbname="there_is_no_such_database"))

    fail()
    before = descriptors()
    for _ in range(50):
        fail()
    assert descriptors() == before
