"""A server that shuts down, or crashes, in the middle of a stream."""

import asyncio
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


def restart_later(server, how):
    thread = threading.Thread(target=lambda: (time.sleep(0.3), server.restart(how)))
    thread.start()
    return thread


def blocking_end(server, slot, how):
    """Return the class of the exception that ends blocking psycopg2's stream."""
    set_wait_callback(None)
    conn = psycopg2.connect(
        server.dsn(), connection_factory=psycopg2.extras.LogicalReplicationConnection
    )
    cur = conn.cursor()
    cur.start_replication(slot)
    thread = restart_later(server, how)
    with pytest.raises(psycopg2.Error) as caught:
        cur.consume_stream(print)
    thread.join()
    assert conn.closed == 2
    return type(caught.value)


HOW = [signal.SIGINT, signal.SIGQUIT]  # fast, immediate


@pytest.mark.parametrize("how", HOW)
def test_stream_ends_by_an_operational_error(own_server, slot, how):
    set_wait_callback(PATIENT)
    conn = psycopg2.connect(
        own_server.dsn(), connection_factory=greenwait.LogicalReplicationConnection
    )
    cur = conn.cursor()
    cur.start_replication(slot)
    thread = restart_later(own_server, how)
    try:
        with greenwait.timeout(40), pytest.raises(psycopg2.OperationalError) as caught:
            next(cur)
    finally:
        thread.join()
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
        thread = restart_later(own_server, signal.SIGINT)
        try:
            with pytest.raises(psycopg2.OperationalError):
                async for _ in cur:
                    pass
        finally:
            await asyncio.to_thread(thread.join)
        assert conn.closed == 2

    runner(loop)(main(), 50)


def test_blocking_psycopg2_raises_the_same(own_server, slot):
    assert issubclass(blocking_end(own_server, slot, signal.SIGINT), psycopg2.OperationalError)
