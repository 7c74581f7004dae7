"""Pool: in line, in every context; no connection that is not fit to be used."""

import contextlib
import os
import re
import select
import signal
import threading
import time
from concurrent.futures import CancelledError

import psycopg2
import pytest
from psycopg2.extensions import TRANSACTION_STATUS_IDLE, set_wait_callback

import greenwait
from tests.lab.asleep import when_asleep
from tests.lab.fault_proxy import FaultProxy
from tests.lab.hosts import silent_listener
from tests.lab.leaks import no_leaked_descriptors
from tests.lab.marks import (
    needs_backend_pid,
    needs_fork,
    needs_prompt_cancel,
    needs_refusal,
    needs_server_connection,
    needs_server_s_words,
    needs_session,
)
from tests.lab.queries import one
from tests.lab.random_moments import interrupted

pytestmark = pytest.mark.patient


@pytest.fixture
def dsn(server):
    return server.dsn("unix") if "unix" in server.transports else server.dsn()


@pytest.fixture(name="pool")
def _pool(callback, connect, dsn, watcher):
    """A pool of two."""
    one(connect(), "select pg_sleep(0.001)")  # it opens what this thread keeps, and
    first = threading.Thread(target=one, args=(connect(), "select pg_sleep(0.001)"), daemon=True)
    first.start()  # what all others keep
    first.join(20)
    with no_leaked_descriptors(), greenwait.Pool(dsn, max_size=2, timeout=20) as pool:
        yield pool


def terminate(watcher, *connections):
    for conn in connections:
        one(watcher, "select pg_terminate_backend(%s, 5000)", conn.info.backend_pid)


# -- Borrowing


def test_block_commits(pool, watcher):
    table = f"pool_{os.getpid()}"
    one(watcher, f"create table {table} (n int); select 1")
    try:
        with pool.connection() as conn:
            conn.cursor().execute(f"insert into {table} values (1)")
        with pytest.raises(ZeroDivisionError), pool.connection() as conn:
            conn.cursor().execute(f"insert into {table} values (2)")
            raise ZeroDivisionError
        assert one(watcher, f"select array_agg(n) from {table}") == [1]
    finally:
        watcher.cursor().execute(f"drop table {table}")


def test_connections_are_used_again(pool):
    pids = set()
    for _ in range(5):
        with pool.connection() as conn:
            pids.add(conn.info.backend_pid)
    assert len(pids) == 1
    stats = pool.stats()
    assert (stats.size, stats.idle, stats.in_use, stats.lent, stats.made) == (1, 1, 0, 5, 1)


def test_connections_are_of_greenwait_s_class_or_one_s_own(pool, dsn):
    with pool.connection() as conn:
        assert type(conn) is greenwait.Connection

    class Own(psycopg2.extensions.connection):
        pass

    with greenwait.Pool(dsn, connection_factory=Own) as other, other.connection() as conn:
        assert type(conn) is Own


def test_getconn_and_putconn(pool):
    conn = pool.getconn()
    one(conn, "select 1")
    assert pool.stats().in_use == 1
    pool.putconn(conn)
    assert conn.info.transaction_status == TRANSACTION_STATUS_IDLE
    with pytest.raises(ValueError, match="not lent"):
        pool.putconn(conn)
    with pytest.raises(ValueError, match="not lent"):
        pool.putconn(object())


def test_block_is_entered_once(pool):
    block = pool.connection()
    with block, pytest.raises(RuntimeError, match="call connection"), block:
        pass
    assert pool.stats().in_use == 0
    with block:
        pass


@pytest.mark.parametrize(
    ("leave", "is_kept"),
    [
        (lambda conn: one(conn, "select 1"), True),
        (lambda conn: conn.set_session(autocommit=True, readonly=True), True),
        (lambda conn: setattr(conn, "isolation_level", "SERIALIZABLE"), True),
        (lambda conn: failed(conn), True),
        (lambda conn: begun_by_a_query(conn), True),
        (lambda conn: begun_behind_its_back(conn), True),
        (lambda conn: prepared(conn), False),
        (lambda conn: conn.close(), False),
    ],
    ids=[
        "in transaction",
        "session",
        "isolation",
        "failed",
        "begun",
        "begun behind",
        "prepared",
        "closed",
    ],
)
def test_next_one_finds_it_as_the_first_one_did(pool, leave, is_kept):
    conn = pool.getconn()
    leave(conn)
    pool.putconn(conn)
    with pool.connection() as again:
        for xid in again.tpc_recover():
            again.tpc_rollback(xid)
        again.rollback()
    with pool.connection() as again:
        assert (again is conn) == is_kept
        assert again.info.transaction_status == TRANSACTION_STATUS_IDLE
        assert (again.autocommit, again.readonly, again.isolation_level) == (False, None, None)
        assert one(again, "select 6 * 7") == 42


def failed(conn):
    with contextlib.suppress(psycopg2.ProgrammingError):
        one(conn, "select from nowhere")


def begun_by_a_query(conn):
    conn.autocommit = True
    one(conn, "begin; select 1")


def begun_behind_its_back(conn):
    conn.autocommit = True
    one(conn, "begin; select 1")
    conn.autocommit = False


def prepared(conn):
    conn.tpc_begin(conn.xid(1, "pool", "test"))
    one(conn, "select 1")
    conn.tpc_prepare()


@needs_server_connection
def test_lost_connection_is_told_of_at_the_end_of_the_block(pool, watcher):
    with pytest.raises(psycopg2.InterfaceError, match="closed"), pool.connection() as conn:
        terminate(watcher, conn)
        with contextlib.suppress(psycopg2.OperationalError):
            one(conn, "select 1")
    with pool.connection() as conn:
        assert one(conn, "select 1") == 1


def test_block_may_close_it(pool):
    with pool.connection() as conn:
        conn.close()
    assert pool.stats().size == 0


# -- Waiting for one


def test_too_late(pool):
    with pool.connection(), pool.connection():
        began = time.monotonic()
        with pytest.raises(greenwait.PoolTimeout) as caught, pool.connection(timeout=0.1):
            pass
    assert 0.1 <= time.monotonic() - began < 5
    assert isinstance(caught.value, psycopg2.OperationalError)
    assert str(caught.value) == (
        f"{str(caught.value).split(' s:')[0]} s: of at most 2 there are 2 in use, 0 being made "
        "and 0 idle, and 0 others wait"
    )
    assert re.match(r"no connection within [\d.]+ s: ", str(caught.value))
    assert pool.stats().timeouts == 1
    assert pool.stats().waiting == 0


def test_timeout_of_the_block_around(pool):
    with pool.connection(), pool.connection():
        with pytest.raises(greenwait.QueryTimeout), greenwait.timeout(0.1), pool.connection():
            pass
        with pytest.raises(greenwait.PoolTimeout), greenwait.timeout(20):
            pool.getconn(timeout=0.05)
    assert pool.stats().in_use == 0


def test_interrupt_while_waiting(pool):
    def handler(*_):
        raise LookupError

    before = signal.signal(signal.SIGALRM, handler)
    try:
        with pool.connection(), pool.connection():
            began = time.monotonic()
            with pytest.raises(LookupError):
                signal.setitimer(signal.ITIMER_REAL, 0.1)
                pool.getconn()
            assert time.monotonic() - began < 5
            assert pool.stats().waiting == 0
    finally:
        signal.signal(signal.SIGALRM, before)
    assert pool.stats().in_use == 0


@needs_prompt_cancel
@needs_refusal
def test_interrupts_at_random_moments_cost_no_place(pool):
    """Of two places: one that is lost, and another one, would end the test."""

    def use_it():
        with pool.connection() as conn, conn.cursor() as cur:
            cur.execute("select 1")

    assert interrupted(use_it, microseconds=680) > 100
    assert pool.stats().in_use == 0
    with pool.connection() as first, pool.connection() as second:
        assert one(first, "select 1") == one(second, "select 1") == 1


def test_threads_are_served_in_order(callback, dsn):
    order = []

    def work(number):
        with pool.connection() as conn:
            one(conn, "select pg_sleep(0.002)")
            order.append(number)

    with greenwait.Pool(dsn, max_size=1) as pool:
        with pool.connection():
            threads = []
            for number in range(20):
                threads.append(threading.Thread(target=work, args=(number,), daemon=True))
                threads[-1].start()
                wait_until(lambda: pool.stats().waiting > number)  # noqa: B023, at once
        for thread in threads:
            thread.join(20)
    assert order == list(range(20))


def test_jobs_are_served_in_order(callback, dsn):
    order = []

    def work(number):
        with pool.connection() as conn:
            one(conn, "select pg_sleep(0.001)")
            order.append(number)

    with greenwait.Pool(dsn, max_size=1) as pool, greenwait.Hub() as hub:
        for number in range(100):
            hub.spawn(work, number)
    assert order == list(range(100))


def test_threads_and_hubs_are_in_one_line(callback, dsn):
    """Who waits in a hub is called by a thread, and the other way round."""
    done = []

    def work():
        for _ in range(20):
            with pool.connection() as conn:
                done.append(one(conn, "select 1"))

    def run_hub():
        greenwait.gather(*[work] * 5)

    with greenwait.Pool(dsn, max_size=2, timeout=30) as pool:
        threads = [threading.Thread(target=target, daemon=True) for target in [work, run_hub] * 3]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(40)
            assert not thread.is_alive()
        assert len(done) == 3 * 20 + 3 * 5 * 20
        assert pool.stats().size <= 2


def test_thousand_jobs_wait_without_a_descriptor_each(callback, dsn):
    with (
        greenwait.Pool(dsn, max_size=2) as pool,
        greenwait.Hub() as hub,
        pool.connection(),
        pool.connection(),
    ):
        before = len(os.listdir("/proc/self/fd"))
        jobs = [hub.spawn(lambda: pool.connection().__enter__()) for _ in range(1000)]
        hub.sleep(0)
        assert pool.stats().waiting == 1000
        # What wakes the hub is an eventfd, or a pair of sockets.
        assert len(os.listdir("/proc/self/fd")) <= before + 2
        for job in jobs:
            job.cancel()
        hub.sleep(0)
        assert pool.stats().waiting == 0


def test_cancels_in_the_line_at_every_moment(pool):
    """The place that was given to one that has gone is given on."""

    def work():
        with pool.connection() as conn:
            one(conn, "select 1")

    with greenwait.Hub() as hub:
        for number in range(300):
            jobs = [hub.spawn(work) for _ in range(6)]
            for _ in range(number % 7):
                hub.sleep(0)
            jobs[number % 6].cancel()
            jobs[number % 5].cancel()
            for job in jobs:
                with contextlib.suppress(CancelledError):
                    job.result(timeout=20)
    assert pool.stats().in_use == pool.stats().waiting == 0


def test_without_any_callback(dsn):
    set_wait_callback(None)
    answers = []

    def work(number):
        with pool.connection() as conn:
            answers.append(one(conn, "select %s", number) == number)

    with greenwait.Pool(dsn, max_size=2) as pool:
        threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert answers == [True] * 10


# -- Connections that are not fit


@needs_server_connection
def test_terminated_ones_are_not_lent(pool, watcher):
    with pool.connection() as first, pool.connection() as second:
        pids = {first.info.backend_pid, second.info.backend_pid}
    terminate(watcher, first, second)
    with pool.connection() as conn:
        assert one(conn, "select pg_backend_pid()") not in pids
    stats = pool.stats()
    assert (stats.made, stats.discarded) == (3, 2)


def test_terminated_one_is_not_lent_though_its_last_words_take_long_to_read(callback, dsn, watcher):
    class Slow(greenwait.Connection):
        is_slow = False

        def poll(self):
            found = super().poll()
            if self.is_slow:
                time.sleep(0.05)
            return found

    with greenwait.Pool(dsn, connection_factory=Slow) as pool:
        with pool.connection() as first:
            first.is_slow = True
        terminate(watcher, first)
        with pool.connection() as conn:
            assert one(conn, "select 1") == 1


@needs_server_connection
def test_one_that_is_lost_in_a_transaction_is_not_kept(pool, watcher):
    conn = pool.getconn()
    one(conn, "select 1")
    terminate(watcher, conn)
    pool.putconn(conn)
    assert conn.closed
    with pool.connection() as conn:
        assert one(conn, "select 1") == 1
    assert pool.stats().discarded == 1


@needs_session
def test_messages_do_not_make_it_unfit(pool, watcher):
    with pool.connection() as conn:
        conn.cursor().execute("listen pool")
    watcher.cursor().execute("notify pool; notify pool, 'again'")
    give_up = time.monotonic() + 20
    while len(conn.notifies) < 2:
        with pool.connection() as again:
            assert again is conn
        assert time.monotonic() < give_up


def test_check(callback, dsn):
    seen = []

    def check(conn):
        seen.append(conn)
        if one(conn, f"select {len(seen)}") == 2:
            raise psycopg2.OperationalError("not this one")

    with greenwait.Pool(dsn, check=check) as pool:
        used = []
        for _ in range(4):
            with pool.connection() as conn:
                assert conn.info.transaction_status == TRANSACTION_STATUS_IDLE
                used.append(conn)
    assert seen == [used[0], used[0], used[2]]
    assert used[0] is used[1] is not used[2] is used[3]


def test_check_that_fails_otherwise(callback, dsn):
    def check(conn):
        raise ZeroDivisionError

    with greenwait.Pool(dsn, check=check) as pool:
        with pool.connection():
            pass
        with pytest.raises(ZeroDivisionError):
            pool.getconn()
        assert (pool.stats().size, pool.stats().in_use) == (0, 0)


def test_check_that_takes_too_long(callback, dsn):
    def check(conn):
        one(conn, "select pg_sleep(5)")

    with greenwait.Pool(dsn, check=check) as pool:
        with pool.connection():
            pass
        with pytest.raises(greenwait.QueryTimeout), greenwait.timeout(0.1):
            pool.getconn()
        assert pool.stats().in_use == 0


def test_max_idle(callback, dsn):
    with greenwait.Pool(dsn, max_idle=1, min_size=1) as pool:
        with pool.connection() as first, pool.connection(), pool.connection():
            began = time.monotonic()
        assert pool.stats().idle == 3 or time.monotonic() - began > 1  # on a busy machine
        time.sleep(1.1)
        with pool.connection() as conn:
            assert conn is first  # who came back last
        assert pool.stats().idle == 1
        time.sleep(1.1)
        with pool.connection() as conn:
            assert conn is first  # the least there shall be
        assert pool.stats().discarded == 2


def test_max_lifetime(callback, dsn):
    with greenwait.Pool(dsn, max_lifetime=1) as pool:
        with pool.connection() as first:
            time.sleep(1.1)
        assert first.closed
        began = time.monotonic()
        with pool.connection() as second:
            pass
        assert not second.closed or time.monotonic() - began > 1  # on a busy machine
        time.sleep(1.1)
        with pool.connection() as third:
            assert third is not second
        assert second.closed


def test_query_that_was_cancelled_leaves_it_fit(pool):
    def work():
        with pool.connection() as conn:
            one(conn, "select pg_sleep(20)")

    with greenwait.Hub() as hub:
        jobs = [hub.spawn(work) for _ in range(2)]
        wait_in_hub(hub, lambda: pool.stats().in_use == 2)
        hub.sleep(0.1)
        for job in jobs:
            job.cancel()
        wait_in_hub(hub, lambda: pool.stats().in_use == 0)
        assert pool.stats().idle == 2
    with pool.connection() as conn:
        assert one(conn, "select 1") == 1


@needs_backend_pid
@needs_refusal
def test_interrupted_query_leaves_it_fit(pool, watcher):
    def handler(*_):
        raise LookupError

    before = signal.signal(signal.SIGALRM, handler)
    try:
        with (
            pytest.raises(LookupError),
            pool.connection() as conn,
            when_asleep(watcher, conn, lambda: signal.raise_signal(signal.SIGALRM)),
        ):
            one(conn, "select pg_sleep(20)")
    finally:
        signal.signal(signal.SIGALRM, before)
    with pool.connection() as again:
        assert again is conn
        assert one(again, "select 1") == 1


# -- Connecting


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
            wait_until(lambda: pool.stats().idle + pool.stats().in_use == 10)
            time.sleep(0.2)
            made = pool.stats().made
            own_server.restart(how)
            wait_until(lambda: is_up(own_server))
            began = time.monotonic()
            full = made + 10
            wait_until(lambda: pool.stats().in_use == 10 and pool.stats().made >= full)  # noqa: B023
            full_after.append(time.monotonic() - began)
        are_over = True
        thread.join(50)
        assert not thread.is_alive()
        assert pool.stats().in_use == 0
    assert again  # it was in mid-run
    assert max(full_after) < 4
    with contextlib.closing(psycopg2.connect(own_server.dsn("unix"))) as conn:
        assert one(conn, "select array_agg(n order by n) from done") == list(range(count))


def wait_until(condition):
    give_up = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.005)


def wait_in_hub(hub, condition):
    give_up = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up
        hub.sleep(0.005)


def is_up(server):
    with contextlib.suppress(psycopg2.OperationalError):
        psycopg2.connect(server.dsn("unix")).close()
        return True
    return False


# -- The end


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
    assert run_program("place_meanwhile") == "the pool is closed\n"


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


# -- Arguments


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"max_size": 0}, ValueError, "max_size=0: it must be 1 or more"),
        ({"max_size": "10"}, TypeError, "max_size must be a number of connections, not 'str'"),
        ({"min_size": -1}, ValueError, "min_size=-1: it must be 0 or more"),
        ({"min_size": 11}, ValueError, "min_size=11 is more than max_size=10"),
        ({"timeout": None}, TypeError, "timeout must be a number of seconds, not 'NoneType'"),
        ({"timeout": -1}, ValueError, "timeout=-1"),
        ({"max_idle": "x"}, TypeError, "max_idle must be a number of seconds, or None"),
        ({"max_lifetime": -1}, ValueError, "max_lifetime=-1"),
        ({"check": 1}, TypeError, "check must be a function or None, not 'int'"),
        ({"async_": True}, TypeError, "not async_"),
        ({"dsn": 1}, TypeError, "dsn must be a connection string, not 'int'"),
    ],
)
def test_arguments_are_checked(arguments, error, message):
    with pytest.raises(error, match=message):
        greenwait.Pool(**arguments)


def test_repr(pool):
    with pool.connection():
        assert repr(pool) == "<greenwait.Pool 1 of 2 in use, 0 idle, 0 waiting>"
