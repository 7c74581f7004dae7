"""A server that shuts down, or crashes, in the middle of a stream."""

import contextlib
import os
import signal
import threading
import time

import psycopg2
import psycopg2.extras
import pytest
from psycopg2.extensions import set_wait_callback

import greenwait
from greenwait import aio
from tests.lab.event_loops import PATIENT, runner
from tests.lab.marks import needs_streams

pytestmark = needs_streams


@pytest.fixture
def slot(own_server):
    """The name of a slot, on a server that is up."""
    give_up = time.monotonic() + 40
    while True:
        try:
            with psycopg2.connect(own_server.dsn()) as conn, conn.cursor() as cur:
                cur.execute("select pg_drop_replication_slot(slot_name) from pg_replication_slots")
                cur.execute("select pg_create_logical_replication_slot('s', 'test_decoding')")
            conn.close()
            return "s"
        except psycopg2.Error:
            assert time.monotonic() < give_up
            time.sleep(0.1)


@contextlib.contextmanager
def ending_soon(server, how):
    """Have the server shut down during the block, and start it again after that.

    Here, since it dies with the thread that starts it.
    """
    timer = threading.Timer(0.3, os.kill, (server.pid, how))
    timer.start()
    try:
        yield
    finally:
        timer.join()
        server.restart()


HOW = [signal.SIGINT, signal.SIGQUIT]  # fast, immediate


@pytest.mark.parametrize("how", HOW)
def test_stream_ends_by_an_operational_error(own_server, slot, how):
    set_wait_callback(PATIENT)
    conn = psycopg2.connect(
        own_server.dsn(), connection_factory=greenwait.LogicalReplicationConnection
    )
    cur = conn.cursor()
    cur.start_replication(slot)
    with (
        ending_soon(own_server, how),
        greenwait.timeout(40),
        pytest.raises(psycopg2.OperationalError) as caught,
    ):
        next(cur)
    assert not isinstance(caught.value, greenwait.QueryTimeout)
    assert "closed the connection" in str(caught.value) or caught.value.pgcode == "57P01"
    assert conn.closed == 2


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_stream_of_a_task_ends_by_an_operational_error(own_server, slot, loop):
    async def main():
        conn = await aio.connect(
            own_server.dsn(), connection_factory=aio.AsyncLogicalReplicationConnection
        )
        cur = conn.cursor()
        await cur.start_replication(slot)
        with pytest.raises(psycopg2.OperationalError):
            async for _ in cur:
                pass
        assert conn.closed == 2

    with ending_soon(own_server, signal.SIGINT):
        runner(loop)(main(), 50)
