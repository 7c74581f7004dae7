"""The end of a pool, and what forked children have of it."""

import contextlib
import os
import time

import psycopg2
import pytest

import greenwait
from tests.lab.marks import needs_fork
from tests.lab.queries import one

pytestmark = pytest.mark.patient


def test_closed_pool(callback, dsn):
    pool = greenwait.Pool(dsn)
    with pool.connection():
        pass
    pool.close()
    pool.close()
    assert pool.stats().size == 0
    with pytest.raises(psycopg2.InterfaceError, match="the pool is closed"):
        pool.getconn()


def test_close_tells_who_waits(callback, dsn):
    with greenwait.Hub() as hub:
        pool = greenwait.Pool(dsn, max_size=1)
        conn = pool.getconn()
        jobs = [hub.spawn(pool.getconn) for _ in range(3)]
        hub.sleep(0)
        closing = hub.spawn(pool.close)
        for job in jobs:
            with pytest.raises(psycopg2.InterfaceError, match="the pool is closed"):
                job.result(timeout=5)
        assert not closing.done()
        pool.putconn(conn)
        closing.result(timeout=5)
    assert conn.closed


def test_close_has_a_deadline(callback, dsn):
    pool = greenwait.Pool(dsn)
    conn = pool.getconn()
    began = time.monotonic()
    with pytest.raises(greenwait.PoolTimeout, match="1 of its connections are still in use"):
        pool.close(timeout=0.1)
    assert time.monotonic() - began < 5
    assert one(conn, "select 1") == 1
    pool.putconn(conn)
    assert conn.closed
    pool.close(timeout=0)


def test_exception_in_the_block_is_not_replaced(callback, dsn):
    with pytest.raises(ZeroDivisionError), greenwait.Pool(dsn) as pool:
        pool.close(timeout=0)
        raise ZeroDivisionError


def test_block_alone_gives_its_connection_back(pool):
    block = pool.connection()
    with pytest.raises(RuntimeError, match="use connection\\(\\) in a with statement"):
        block.__exit__(None, None, None)
    with block as conn:
        one(conn, "select 1")
        with pytest.raises(ValueError, match="which gives it back"):
            pool.putconn(conn)
        with pytest.raises(RuntimeError, match="entered already"):
            block.__enter__()
    assert (pool.stats().in_use, pool.stats().idle) == (0, 1)
    assert pool.getconn() is conn
    pool.putconn(conn)
    with block:
        pass


def test_connection_that_nobody_has_used_for_long_is_not_lent(callback, dsn):
    with greenwait.Pool(dsn, max_idle=0.2) as pool:
        with pool.connection() as first, pool.connection() as second:
            pids = {first.info.backend_pid, second.info.backend_pid}
        time.sleep(0.3)
        with pool.connection() as conn:
            assert conn.info.backend_pid not in pids
        assert pool.stats().discarded == 2


@pytest.mark.skipif(not hasattr(os, "eventfd"), reason="eventfd(2) is Linux's")
def test_place_that_comes_free_while_a_ticket_is_made_is_not_overlooked(run_program):
    """eventfd(2), which a ticket may need, lets other threads have their turn."""
    message = run_program("place_meanwhile")
    assert message == "the pool is closed, and lends no more: make another one\n"


@needs_fork
def test_forked_child_begins_anew(pool):
    conn = pool.getconn()
    one(conn, "select 1")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with pool.connection() as own, pool.connection() as other:
                pids = {each.info.backend_pid for each in (own, other, conn)}
                assert len(pids) == 3
                assert one(own, "select 1") == one(other, "select 1") == 1
            with contextlib.suppress(ValueError):
                pool.putconn(conn)
            pool.close()
            os.write(writing, b"well")
        finally:
            os._exit(0)
    os.close(writing)
    assert os.read(reading, 10) == b"well"
    os.close(reading)
    os.waitpid(child, 0)
    assert one(conn, "select 1") == 1
    pool.putconn(conn)
    assert pool.stats().idle == 1


@needs_fork
def test_forked_child_leaves_its_parents_block_without_a_trace(pool):
    with pool.connection() as conn:
        one(conn, "select set_config('greenwait.block', 'open', true)")  # till its transaction ends
        child = os.fork()
        if child:
            _, status = os.waitpid(child, 0)
            assert status == 0
            assert one(conn, "select current_setting('greenwait.block')") == "open"
            pid = conn.info.backend_pid
    if child == 0:
        try:
            with pool.connection() as own:  # not the one that came back to it
                os._exit(own is conn or own.info.backend_pid == conn.info.backend_pid)
        finally:
            os._exit(2)
    with pool.connection() as conn:
        assert conn.info.backend_pid == pid
