"""Sending: connections opened before the callback, blocking until seen; and the send buffer."""

import contextlib
import io
import os
import signal
import socket
import threading

import pytest
from psycopg2.extensions import set_wait_callback

import greenwait
from greenwait._psycopg.libpq import FAST_PATHS
from tests.lab.freezers import frozen
from tests.lab.marks import needs_copy, needs_epoll


@pytest.mark.parametrize(
    "before",
    [
        "poll",
        pytest.param("epoll", marks=needs_epoll),
        "begin",
        "twice",
    ],
)
def test_large_statement_is_sent_from_the_callback(run_program, transport, before):
    arguments = {"transport": transport, "timeout": 20}
    assert run_program("send_to_stopped_server", before, **arguments) == "heard\n"


def test_connection_stays_usable_when_the_callback_is_gone(connect, transport):
    conn = connect(transport)
    set_wait_callback(greenwait.wait)
    cur = conn.cursor()
    cur.execute("select 1")
    set_wait_callback(None)
    cur.execute("select length(%s)", ("x" * 20_000_000,))
    assert cur.fetchone() == (20_000_000,)


@contextlib.contextmanager
def send_buffers(conn):
    """Yield a list of the sizes that the send buffer of the connection's socket has meanwhile."""
    sizes, is_over = [], threading.Event()

    def look(sock):
        while not is_over.wait(0.001):
            sizes.append(sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF))

    with socket.socket(fileno=os.dup(conn.fileno())) as sock:
        sizes.append(sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF))
        looking = threading.Thread(target=look, args=(sock,))
        looking.start()
        try:
            yield sizes
        finally:
            is_over.set()
            looking.join()
            sizes.append(sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF))


def statement(conn):
    conn.cursor().execute("select length(%s)", ("x" * 40_000_000,))


def interrupted_statement(conn):
    """The server reads nothing until the deadline has passed."""
    pid = conn.info.backend_pid
    query = f"select length('{'x' * 40_000_000}')"
    with frozen(pid), greenwait.timeout(0.5), pytest.raises(greenwait.QueryTimeout):
        threading.Timer(1, os.kill, (pid, signal.SIGCONT)).start()
        conn.cursor().execute(query)


def copy(conn):
    cur = greenwait.Cursor(conn)
    cur.execute("create temp table t (data text)")
    cur.copy_expert("copy t from stdin", io.BytesIO(b"x" * 200_000 + b"\n" + b"y" * 5_000_000))


@pytest.mark.patient
@needs_epoll  # it is Linux's
@pytest.mark.skipif(FAST_PATHS["send"] != "on", reason="it takes libpq's functions")
@pytest.mark.parametrize(
    "send", [statement, interrupted_statement, pytest.param(copy, marks=needs_copy)]
)
def test_send_buffer_of_a_unix_socket_is_widened_for_a_while(callback, connect, send):
    conn = connect("unix")
    with send_buffers(conn) as sizes:
        send(conn)
    assert max(sizes) > sizes[0]
    assert sizes[-1] == sizes[0]
