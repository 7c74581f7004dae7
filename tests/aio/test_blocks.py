"""``async with conn:`` is psycopg2's ``with conn:``: one transaction, and one block at a time."""

import asyncio
import contextlib
import os
import threading
from concurrent.futures import CancelledError
from typing import Any

import psycopg2
import pytest

import greenwait
from greenwait import aio
from tests.lab.asleep import wait_until_asleep

# Of this process: another one may use the same server.
TABLE = f"blocks_{os.getpid()}"
HELD = f"select pg_advisory_xact_lock(1906, {os.getpid()}), 'other'"
OPEN_ALREADY = "a with block of this connection is open already"


@pytest.fixture
def rows(connect):
    """Return a function that says which rows are committed to a new table."""
    conn = connect()
    conn.autocommit = True
    cur = conn.cursor()
    cur.execute(f"drop table if exists {TABLE}; create table {TABLE} (who text)")

    def committed():
        cur.execute(f"select who from {TABLE} order by who")
        return [who for (who,) in cur.fetchall()]

    yield committed
    cur.execute(f"drop table {TABLE}; drop function if exists {TABLE}_lock")


@pytest.fixture
def holder(connect):
    """Return a connection that holds up whoever executes HELD, until it is closed."""
    conn = connect()
    conn.cursor().execute(HELD.replace("other", "holder"))
    return conn


async def insert(conn: Any, who: str, seconds: float = 0) -> None:
    await conn.cursor().execute(f"insert into {TABLE} select %s from pg_sleep(%s)", (who, seconds))


@contextlib.asynccontextmanager
async def connected(dsn, **session):
    conn = await aio.connect(dsn)
    try:
        if session:
            await conn.set_session(**session)
        yield conn
    finally:
        await conn.close()


async def until_active(dsn, word):
    """Wait until the server is at work on a query with that word."""
    async with connected(dsn, autocommit=True) as conn, conn.cursor() as cur:
        while True:
            await cur.execute(
                "select 1 from pg_stat_activity where state = 'active' and query like %s"
                " and pid <> pg_backend_pid()",
                (f"%{word}%",),
            )
            if await cur.fetchone():
                return


@pytest.mark.parametrize("autocommit", [False, True])
def test_block_is_a_transaction_in_autocommit_mode_too(run, dsn, rows, autocommit):
    async def main():
        async with connected(dsn, autocommit=autocommit) as conn:
            async with conn:
                await insert(conn, "a")
                assert conn.info.transaction_status == 2  # TRANSACTION_STATUS_INTRANS
                assert rows() == []
            assert rows() == ["a"]
            with pytest.raises(LookupError):
                async with conn:
                    await insert(conn, "b")
                    raise LookupError
            assert rows() == ["a"]
            assert conn.info.transaction_status == 0  # TRANSACTION_STATUS_IDLE
            await insert(conn, "c")
            assert rows() == (["a", "c"] if autocommit else ["a"])

    run(main())


def test_nested_block_says_so_and_the_outer_one_rolls_back(run, dsn, rows):
    async def main():
        async with connected(dsn) as conn:
            with pytest.raises(psycopg2.ProgrammingError, match=OPEN_ALREADY):
                async with conn:
                    await insert(conn, "outer")
                    async with conn:
                        await insert(conn, "inner")
            async with conn:
                await insert(conn, "after")

    run(main())
    assert rows() == ["after"]


def test_nested_block_that_is_refused_leaves_the_outer_one_open(run, dsn, rows):
    async def main():
        async with connected(dsn) as conn, conn:
            await insert(conn, "before")
            with pytest.raises(psycopg2.ProgrammingError, match=OPEN_ALREADY):
                async with conn:
                    pass
            assert rows() == []
            await insert(conn, "later")

    run(main())
    assert rows() == ["before", "later"]


def test_tasks_that_share_a_connection_commit_no_block_but_their_own(run, dsn, rows):
    async def main():
        async with connected(dsn) as conn:
            entered = asyncio.Event()
            refused = asyncio.Event()

            async def fail():
                async with conn:
                    await insert(conn, "failing")
                    entered.set()
                    await refused.wait()
                    raise LookupError

            async def other():
                await entered.wait()
                try:
                    async with conn:
                        await insert(conn, "other")
                finally:
                    refused.set()

            outcomes = await asyncio.gather(fail(), other(), return_exceptions=True)
            assert [type(each) for each in outcomes] == [LookupError, psycopg2.ProgrammingError]
            assert "a connection for each" in str(outcomes[1])
            async with conn:
                await insert(conn, "last")

    run(main())
    assert rows() == ["last"]


def test_hundred_tasks_that_try_again_commit_every_row_once_and_no_failed_one(run, dsn, rows):
    async def main():
        async with connected(dsn, autocommit=True) as conn:

            async def work(number):
                while True:
                    with contextlib.suppress(LookupError):
                        try:
                            async with conn:
                                await insert(conn, f"{number:02}")
                                if number % 2:
                                    raise LookupError
                        except psycopg2.ProgrammingError:  # another one's is open
                            await asyncio.sleep(0)
                            continue
                    return

            await asyncio.gather(*[work(number) for number in range(50)])

    run(main())
    assert rows() == [f"{number:02}" for number in range(0, 50, 2)]


def test_statement_of_another_task_belongs_to_the_open_block(run, dsn, rows):
    async def main():
        async with connected(dsn) as conn:
            with pytest.raises(LookupError):
                async with conn:
                    await asyncio.gather(insert(conn, "own"), insert(conn, "another"))
                    raise LookupError
            async with conn:
                await asyncio.gather(insert(conn, "own"), insert(conn, "another"))

    run(main())
    assert rows() == ["another", "own"]


@pytest.mark.parametrize("fails", [False, True])
def test_connection_closed_in_its_block_says_so(run, dsn, rows, fails):
    async def main():
        conn = await aio.connect(dsn)
        with pytest.raises(psycopg2.InterfaceError, match="closed") as info:
            async with conn:
                await insert(conn, "a")
                conn.close()
                if fails:
                    raise LookupError
        assert isinstance(info.value.__context__, LookupError) is fails
        with pytest.raises(psycopg2.InterfaceError, match="closed"):
            async with conn:
                raise AssertionError

    run(main())
    assert rows() == []


def test_commit_that_fails_is_raised_and_the_next_block_is_entered(run, dsn, rows):
    async def main():
        async with connected(dsn) as conn:
            with pytest.raises(psycopg2.IntegrityError):
                async with conn, conn.cursor() as cur:
                    await cur.execute(
                        "create temporary table once (n int unique deferrable initially deferred)"
                    )
                    await cur.execute("insert into once values (1), (1)")
            async with conn:
                await insert(conn, "after")

    run(main())
    assert rows() == ["after"]


def test_block_whose_task_is_cancelled_rolls_back(run, dsn, rows):
    async def main():
        async with connected(dsn, autocommit=True) as conn:

            async def work():
                async with conn:
                    await insert(conn, "a")
                    await insert(conn, "b", 20)

            task = asyncio.ensure_future(work())
            await until_active(dsn, f"insert into {TABLE} select 'b'")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            async with conn:
                await insert(conn, "c")

    run(main())
    assert rows() == ["c"]


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("next_is", ["a block", "a statement", "another block's commit"])
def test_end_of_a_block_that_is_cancelled_in_line_rolls_back(
    run, dsn, rows, holder, fails, next_is
):
    async def main():
        async with connected(dsn, autocommit=True) as conn:
            at_its_end = asyncio.Event()
            is_active = asyncio.Event()

            async def work():
                async with conn:
                    await insert(conn, "cancelled")
                    await is_active.wait()
                    at_its_end.set()
                    if fails:
                        raise LookupError

            task = asyncio.ensure_future(work())
            while not conn.info.transaction_status:
                await asyncio.sleep(0)
            other = asyncio.ensure_future(conn.cursor().execute(HELD))
            await until_active(dsn, "'other'")
            is_active.set()
            await at_its_end.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not other.done()
            holder.close()
            if next_is == "a block":
                async with conn:
                    await insert(conn, "next")
            elif next_is == "a statement":
                with pytest.raises(psycopg2.ProgrammingError, match="await set_session"):
                    conn.autocommit = False  # which would wait
                await insert(conn, "next")
            else:
                await conn.commit()
                await insert(conn, "next")
            await other

    run(main())
    assert rows() == ["next"]


def test_connection_is_closed_at_once_after_such_an_end(run, dsn, rows, holder):
    async def main():
        async with connected(dsn) as conn:
            await conn.__aenter__()
            await insert(conn, "cancelled")
            other = asyncio.ensure_future(conn.cursor().execute(HELD))
            await until_active(dsn, "'other'")
            task = asyncio.ensure_future(conn.__aexit__(None, None, None))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            holder.close()
            await other

    run(main())
    assert rows() == []


def test_commit_under_way_is_not_cancelled_and_the_cancellation_is_raised(run, dsn, rows, connect):
    """The server holds the commit up: a deferred trigger waits for a lock."""
    holder = connect()
    with holder.cursor() as cur:
        cur.execute(
            f"create or replace function {TABLE}_lock() returns trigger language plpgsql as "
            "$$ begin perform pg_advisory_xact_lock(1905); return null; end $$; "
            f"create constraint trigger held after insert on {TABLE} deferrable initially deferred "
            f"for each row execute function {TABLE}_lock()"
        )
        holder.commit()
        cur.execute("select pg_advisory_lock(1905)")

    async def main():
        async with connected(dsn) as conn:

            async def work():
                async with conn:
                    await insert(conn, "a")

            task = asyncio.ensure_future(work())
            await until_active(dsn, "COMMIT")
            task.cancel()
            asyncio.get_running_loop().call_later(
                0.2, holder.cursor().execute, "select pg_advisory_unlock(1905)"
            )
            with pytest.raises(asyncio.CancelledError):
                await task
            assert rows() == ["a"]
            async with conn:
                await conn.cursor().execute("select 1")

    run(main())


def test_run_has_the_same_blocks(run, dsn, rows):
    def work(conn):
        with conn, conn.cursor() as cur:
            cur.execute(f"insert into {TABLE} values ('a')")
            with pytest.raises(psycopg2.ProgrammingError, match=OPEN_ALREADY), conn:
                raise AssertionError

    async def main():
        async with connected(dsn, autocommit=True) as conn:
            await aio.run(work, conn)
            async with conn:
                with pytest.raises(psycopg2.ProgrammingError, match=OPEN_ALREADY):
                    await aio.run(work, conn)

    run(main())
    assert rows() == ["a"]


# -- The same for threads and greenlets


def test_threads_that_share_a_connection_are_told_as_well(rows, callback, dsn):
    conn = greenwait.connect(dsn)
    outcomes = []

    def other():
        try:
            with conn:
                raise AssertionError
        except psycopg2.ProgrammingError as exc:
            outcomes.append(str(exc))

    with contextlib.closing(conn):
        with pytest.raises(LookupError), conn:
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
            conn.cursor().execute(f"insert into {TABLE} values ('failing')")
            raise LookupError
        assert OPEN_ALREADY in outcomes[0]
        with conn:
            conn.cursor().execute(f"insert into {TABLE} values ('last')")
    assert rows() == ["last"]


def test_job_that_is_cancelled_in_line_at_the_end_of_its_block_rolls_back(
    rows, callback, dsn, holder
):
    conn = greenwait.connect(dsn)
    with contextlib.closing(conn), greenwait.Hub() as hub, contextlib.closing(holder):
        conn.autocommit = True

        def work():
            with conn:
                conn.cursor().execute(f"insert into {TABLE} values ('cancelled')")
                busy.append(hub.spawn(conn.cursor().execute, HELD))
                hub.sleep(0)

        busy: list[Any] = []
        job = hub.spawn(work)
        while not busy:
            hub.sleep(0.001)
        hub.sleep(0)
        hub.sleep(0)
        assert not job.done()
        job.cancel()
        with pytest.raises(CancelledError):
            job.result()
        assert not busy[0].done()
        holder.close()
        with conn:
            conn.cursor().execute(f"insert into {TABLE} values ('next')")
    assert rows() == ["next"]


def test_deadline_that_passes_in_line_at_the_end_of_a_block_rolls_back(
    rows, callback, dsn, connect, holder
):
    conn = greenwait.connect(dsn)
    with contextlib.closing(conn), contextlib.closing(holder):
        thread = threading.Thread(target=lambda: conn.cursor().execute(HELD))
        conn.__enter__()
        conn.cursor().execute(f"insert into {TABLE} values ('late')")
        thread.start()
        wait_until_asleep(connect(), conn.info.backend_pid)
        with pytest.raises(greenwait.QueryTimeout), greenwait.timeout(0.1):
            conn.__exit__(None, None, None)
        assert thread.is_alive()
        holder.close()
        with conn:
            conn.cursor().execute(f"insert into {TABLE} values ('next')")
        thread.join()
    assert rows() == ["next"]
