"""Servers that die, sockets that are closed, hosts that refuse."""

import contextlib
import gc
import os
import selectors
import signal
import socket
import threading
import time
from typing import Any

import psycopg2
import pytest

from tests.lab.asleep import when_asleep
from tests.lab.postgres import Server
from tests.lab.queries import one


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


@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_server_process_killed_while_it_is_sent_to_is_an_operational_error(breakable):
    conn, _ = breakable
    pid = conn.info.backend_pid
    os.kill(pid, signal.SIGSTOP)  # so that it takes in no more than the socket does
    before = signal.signal(signal.SIGALRM, lambda *_: os.kill(pid, signal.SIGKILL))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(psycopg2.OperationalError, match=r"closed the connection|reset") as info:
            one(conn, "select length('" + "x" * 20_000_000 + "')")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert "not open" not in str(info.value)
    assert conn.closed == 2


class HastyServer(threading.Thread):
    """In front of a server, refuses a long query when it has read no more than its length."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self._upstream = socket.create_connection(("127.0.0.1", port))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]

    def run(self):
        client, _ = self._listening.accept()
        with self._listening, self._upstream, client, selectors.DefaultSelector() as selector:
            for each in (client, self._upstream):
                selector.register(each, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    sock: Any = key.fileobj
                    data = sock.recv(65536)
                    if not data:
                        return
                    if sock is client and data[:1] == b"Q" and self._is_long(data):
                        self._refuse(client, data)
                    else:
                        (self._upstream if sock is client else client).sendall(data)

    def _is_long(self, data):
        return int.from_bytes(data[1:5], "big") > 100_000

    def _refuse(self, client, data):
        # The protocol's ErrorResponse and ReadyForQuery.
        fields = b"SERROR\0C54000\0Mtoo long\0\0"
        client.sendall(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields + b"Z\0\0\0\5I")
        unread = int.from_bytes(data[1:5], "big") + 1 - len(data)
        while unread:
            unread -= len(client.recv(min(unread, 65536)))


def test_answer_that_comes_before_the_statement_is_sent_is_noticed(callback, own_server):
    """A pooler that limits statements may answer so; then nothing more comes to wake anybody."""
    connect_again(own_server.dsn("tcp")).close()  # it is there, whatever a test did before
    server = HastyServer(own_server.port)
    server.start()
    conn = psycopg2.connect(own_server.dsn("tcp", port=server.port))
    conn.autocommit = True
    with contextlib.closing(conn):
        for _ in range(3):
            with pytest.raises(psycopg2.errors.ProgramLimitExceeded, match="too long"):
                one(conn, "select length('" + "x" * 20_000_000 + "')")
            assert one(conn, "select 3") == 3
    server.join(20)
    assert not server.is_alive()


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
    gc.collect()
    before = descriptors()
    for _ in range(50):
        fail()
    assert descriptors() <= before
