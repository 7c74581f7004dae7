"""Connections that the pool makes, and servers that are not up."""

import contextlib
import os
import re
import select
import signal
import threading
import time

import psycopg2
import pytest

import greenwait
from tests.lab.fault_proxy import FaultProxy
from tests.lab.hosts import silent_listener
from tests.lab.leaks import no_leaked_descriptors
from tests.lab.marks import needs_server_s_words
from tests.lab.queries import one
from tests.lab.waiting import until

pytestmark = pytest.mark.patient


def test_min_size_is_made_at_once(callback, dsn):
    with greenwait.Pool(dsn, min_size=3) as pool:
        assert (pool.stats().size, pool.stats().idle) == (3, 3)


@needs_server_s_words
def test_first_failure_is_raised_at_once(callback, server):
    with greenwait.Pool(server.dsn(dbname="nosuch"), timeout=20) as pool:
        began = time.monotonic()
        with pytest.raises(psycopg2.OperationalError, match="nosuch") as caught:
            pool.getconn()
        assert type(caught.value) is psycopg2.OperationalError
        assert time.monotonic() - began < 5
        assert pool.stats().failures == 1
        assert pool.stats().in_use == 0
    with no_leaked_descriptors(), pytest.raises(psycopg2.OperationalError, match="nosuch"):
        greenwait.Pool(server.dsn(dbname="nosuch"), min_size=2)


def test_silent_server_is_waited_for_as_long_as_the_pool_waits(callback):
    with silent_listener() as port, greenwait.Pool(f"host=127.0.0.1 port={port}") as pool:
        began = time.monotonic()
        with pytest.raises(greenwait.PoolTimeout, match="0 in use"):
            pool.getconn(timeout=0.2)
        assert 0.2 <= time.monotonic() - began < 5
        with pytest.raises(greenwait.QueryTimeout), greenwait.timeout(0.1):
            pool.getconn()
        assert pool.stats().in_use == 0


def test_message_says_why_there_is_none(callback, own_server):
    with greenwait.Pool(own_server.dsn("unix", options="-c statement_timeout=0")) as pool:
        with pool.connection() as conn:
            pass
        os.kill(own_server.pid, signal.SIGSTOP)
        try:
            os.kill(conn.info.backend_pid, signal.SIGKILL)
            assert select.select([conn], [], [], 20) != ([], [], [])
            with pytest.raises(greenwait.PoolTimeout):
                pool.getconn(timeout=0.3)
        finally:
            os.kill(own_server.pid, signal.SIGCONT)
        with pool.connection() as conn:  # as soon as it is up again
            assert one(conn, "select 1") == 1


@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_server_that_is_gone_is_waited_for_as_long_as_the_pool_waits(
    callback, own_server, transport
):
    with contextlib.ExitStack() as stack:
        if transport == "unix":
            dsn = own_server.dsn("unix")
        else:
            dsn = stack.enter_context(FaultProxy(own_server)).dsn()
        pool = greenwait.Pool(dsn)
        with pool.connection() as conn:
            pass
        conn.close()
        path = own_server.directory / f".s.PGSQL.{own_server.port}"
        away = path.rename(path.with_suffix(".away"))
        stack.close()  # nobody listens there any more
        try:
            for _ in range(5):  # on a busy machine the best one counts
                began, failures = time.monotonic(), pool.stats().failures
                with pytest.raises(greenwait.PoolTimeout) as info:
                    pool.getconn(timeout=0.3)
                took = time.monotonic() - began
                assert took >= 0.3
                # The last attempt may fail because of the time.
                if took < 0.9 and pool.stats().failures > failures + 1:
                    break
        finally:
            away.rename(path)
    assert re.search(r"within 0\.[3-9]", str(info.value))
    assert isinstance(info.value.__cause__, psycopg2.OperationalError)
    assert str(info.value.__cause__).strip() in str(info.value)


def test_thousand_jobs_and_two_restarts(callback, own_server):
    """Jobs in a hub, in a thread; the server is restarted by the thread that started it."""
    with contextlib.closing(psycopg2.connect(own_server.dsn("unix"))) as conn, conn:
        conn.cursor().execute("drop table if exists done; create table done (n int)")
    again = []

    def is_done(number):
        while True:
            with contextlib.suppress(psycopg2.OperationalError), pool.connection() as conn:
                return one(conn, "select count(*) from done where n = %s", number) > 0

    def work(number):
        while True:
            try:
                with pool.connection() as conn, conn.cursor() as cur:
                    cur.execute("insert into done values (%s)", (number,))
                    cur.execute("select pg_sleep(0.01)")
                return
            except greenwait.CommitInDoubt:
                again.append(number)
                if is_done(number):
                    return
            except greenwait.PoolTimeout:
                raise
            except psycopg2.OperationalError:
                again.append(number)

    count, are_over = 0, False

    def run():
        nonlocal count
        while count == 0 or not are_over:  # another thousand on a busy machine
            numbers = range(count, count + 1000)
            greenwait.gather(*[lambda number=number: work(number) for number in numbers])
            count += 1000

    with greenwait.Pool(own_server.dsn("unix"), max_size=10, timeout=50) as pool:
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        full_after = []
        for how in (signal.SIGQUIT, signal.SIGINT):
            until(lambda: pool.stats().idle + pool.stats().in_use == 10)
            time.sleep(0.2)
            made = pool.stats().made
            own_server.restart(how)
            until(lambda: is_up(own_server))
            began = time.monotonic()
            full = made + 10
            until(lambda: pool.stats().in_use == 10 and pool.stats().made >= full)  # noqa: B023
            full_after.append(time.monotonic() - began)
        are_over = True
        thread.join(50)
        assert not thread.is_alive()
        assert pool.stats().in_use == 0
    assert again  # it was in mid-run
    assert max(full_after) < 4
    with contextlib.closing(psycopg2.connect(own_server.dsn("unix"))) as conn:
        assert one(conn, "select array_agg(n order by n) from done") == list(range(count))


def is_up(server):
    with contextlib.suppress(psycopg2.OperationalError):
        psycopg2.connect(server.dsn("unix")).close()
        return True
    return False
