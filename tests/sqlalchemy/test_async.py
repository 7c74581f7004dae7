"""``postgresql+greenwait_async://``: what tasks get, and what stops them."""

import asyncio
import contextlib
import gc
import sys
import threading
import time
import warnings
from typing import Any

import anyio
import pytest
import sqlalchemy
from psycopg2.extensions import set_wait_callback
from sqlalchemy import orm, text
from sqlalchemy.exc import MissingGreenlet, OperationalError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

import greenwait
from greenwait import aio
from greenwait.sqlalchemy import AsyncFairQueuePool, FairQueuePool
from tests.lab.event_loops import LOOPS, PATIENT, runner
from tests.lab.marks import needs_refusal

new: Any = asyncio  # what it has from CPython 3.11 on
needs_timeout = pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout() is new")


class Base(orm.DeclarativeBase):
    """What SQLAlchemy knows of the tables."""


class Parent(Base):
    """A row with others."""

    __tablename__ = "greenwait_parents"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    children: orm.Mapped[list["Child"]] = orm.relationship()


class Child(Base):
    """A row of a row."""

    __tablename__ = "greenwait_children"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    parent_id: orm.Mapped[int] = orm.mapped_column(sqlalchemy.ForeignKey(Parent.id))


@contextlib.asynccontextmanager
async def tables(engine):
    """Make the tables, for as long as the block lasts; temporary ones, of one connection."""
    async with engine.begin() as conn:
        for table in Base.metadata.tables.values():
            table._prefixes = ["temporary"]
        await conn.run_sync(Base.metadata.create_all)
    yield


def checked_out(engine: Any) -> int:
    found: int = engine.pool.checkedout()
    return found


async def pid_of(engine):
    async with engine.connect() as conn:
        return await conn.scalar(text("select pg_backend_pid()"))


async def running(engine):
    """Return how many long statements of this test's engines run on the server."""
    query = (
        "select count(*) from pg_stat_activity where query like 'select pg_sleep(20)%' "
        "and state = 'active' and application_name = current_setting('application_name')"
    )
    async with engine.connect() as conn:
        return await conn.scalar(text(query))


async def hang(engine, query="select pg_sleep(20)"):
    async with engine.connect() as conn:
        await conn.execute(text(query))


# -- What works


def test_fifty_tasks_on_fifteen_places(run, new_async_engine):
    async def main():
        async with new_async_engine(pool_size=15, max_overflow=0) as engine:

            async def work():
                async with engine.connect() as conn:
                    return await conn.scalar(text("select pg_backend_pid() from pg_sleep(0.1)"))

            async def look():
                longest, last = 0.0, time.monotonic()
                while True:
                    await asyncio.sleep(0.001)
                    now = time.monotonic()
                    longest, last = max(longest, now - last), now
                    stops.append(longest)

            stops = []
            looking = asyncio.ensure_future(look())
            began = time.monotonic()
            pids = await asyncio.gather(*[work() for _ in range(50)])
            looking.cancel()
            assert (len(pids), len(set(pids))) == (50, 15)
            assert time.monotonic() - began < 5  # 0.4 s of sleep
            assert max(stops) < 1

    run(main())


def test_first_connections_of_tasks_wait_for_one_another(run, new_async_engine):
    async def main():
        for options in ({}, {"poolclass": sqlalchemy.NullPool}):
            async with new_async_engine(**options) as engine:
                for _ in range(2):
                    assert len(set(await asyncio.gather(*[pid_of(engine) for _ in range(5)]))) > 0
                    await engine.dispose()

    run(main())


@pytest.mark.parametrize("url", ["postgresql+greenwait://", "postgresql+greenwait_async://"])
def test_both_names_make_an_async_engine(run, new_async_engine, url):
    async def main():
        async with new_async_engine(url) as engine:
            assert await pid_of(engine) > 0
            assert type(engine.pool) is AsyncFairQueuePool
            assert engine.dialect.is_async

    run(main())


def test_sessions(run, new_async_engine):
    def count_children(session: Any) -> int:
        parent: Any = session.get(Parent, 1)
        return len(parent.children)

    async def main():
        async with new_async_engine(pool_size=1, max_overflow=0) as engine, tables(engine):
            make_session = async_sessionmaker(engine, expire_on_commit=False)
            async with make_session() as session, session.begin():
                session.add(Parent(id=1, children=[Child(id=2), Child(id=3)]))
            async with make_session() as session:
                query = sqlalchemy.select(Parent).options(orm.selectinload(Parent.children))
                parent = (await session.scalars(query)).one()
                assert [child.id for child in parent.children] == [2, 3]
                numbers = [
                    row.id
                    async for row in await session.stream_scalars(
                        sqlalchemy.select(Child).order_by(Child.id)
                    )
                ]
                assert numbers == [2, 3]
                assert await session.run_sync(count_children) == 2

    run(main())


def test_lazy_load_outside_of_sqlalchemys_greenlet_is_refused(run, new_async_engine):
    async def main():
        async with new_async_engine(pool_size=1, max_overflow=0) as engine, tables(engine):
            async with AsyncSession(engine) as session, session.begin():
                session.add(Parent(id=1, children=[Child(id=2)]))
            async with AsyncSession(engine) as session:
                parent: Any = await session.get(Parent, 1)
                with pytest.raises(MissingGreenlet):
                    parent.children  # noqa: B018
                with pytest.raises(MissingGreenlet):
                    session.sync_session.commit()
                await session.rollback()

    run(main())


def test_rows_are_streamed_from_a_cursor_on_the_server(run, new_async_engine):
    async def main():
        async with new_async_engine() as engine, engine.connect() as conn:
            result = await conn.stream(text("select generate_series(1, 3000)"))
            assert [row[0] async for row in result] == list(range(1, 3001))
            result = await conn.execute(text("select 1"))
            assert result.scalar() == 1

    run(main())


def test_driver_connection_is_greenwaits(run, new_async_engine):
    async def main():
        async with new_async_engine() as engine, engine.connect() as conn:
            raw = await conn.get_raw_connection()
            assert isinstance(raw.driver_connection, greenwait.Connection)

    run(main())


def test_two_event_loops_one_after_the_other(arguments):
    engine = create_async_engine("postgresql+greenwait_async://", **arguments)
    before = runner("asyncio")(pid_of(engine))
    assert runner("uvloop")(pid_of(engine)) == before
    runner("asyncio")(engine.dispose())


def test_event_loops_in_two_threads_share_a_pool(arguments):
    set_wait_callback(PATIENT)
    engine = create_async_engine(
        "postgresql+greenwait_async://", pool_size=2, max_overflow=0, **arguments
    )
    found = []

    async def work():
        async with engine.connect() as conn:
            found.append(await conn.scalar(text("select pg_backend_pid() from pg_sleep(0.02)")))

    async def main():
        await asyncio.gather(*[work() for _ in range(20)])

    threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (len(found), len(set(found))) == (40, 2)
    assert "Current Checked out connections: 0" in engine.pool.status()
    asyncio.run(engine.dispose())


def test_sync_engine_in_calls_beside_the_async_one(run, new_engine, new_async_engine):
    sync_engine = new_engine(pool_size=2, max_overflow=0)
    assert type(sync_engine.pool) is FairQueuePool

    def work():
        with orm.Session(sync_engine) as session:
            return session.scalar(text("select 1 from pg_sleep(0.02)"))

    async def main():
        async with new_async_engine(pool_size=2, max_overflow=0) as engine:
            calls = [aio.run(work) for _ in range(10)]
            answers = await asyncio.gather(*calls, *[pid_of(engine) for _ in range(10)])
            assert answers[:10] == [1] * 10

    run(main())


# -- What is refused


def test_without_the_callback_it_is_refused(arguments):
    async def main():
        engine = create_async_engine("postgresql+greenwait_async://", **arguments)
        with pytest.raises(RuntimeError, match=r"call greenwait.install\(\) first"):
            await pid_of(engine)

    set_wait_callback(None)
    asyncio.run(main())


def test_without_an_event_loop_it_is_refused(arguments):
    engine = create_async_engine("postgresql+greenwait_async://", **arguments)
    set_wait_callback(PATIENT)
    with pytest.raises(MissingGreenlet):
        engine.sync_engine.connect()


# -- Interrupts


@needs_refusal
@pytest.mark.parametrize("times", [1, 2, 3])
def test_cancelled_task_costs_no_connection(run, new_async_engine, times):
    async def main():
        async with new_async_engine(pool_size=1, max_overflow=0) as engine:
            before = await pid_of(engine)
            for _ in range(5):
                task = asyncio.ensure_future(hang(engine))
                await asyncio.sleep(0.05)
                for _ in range(times):
                    task.cancel()
                    await asyncio.sleep(0)
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert await pid_of(engine) == before
            assert await running(engine) == 0

    run(main())


@needs_refusal
@needs_timeout
def test_nested_timeouts(run, new_async_engine):
    async def main():
        async with new_async_engine(pool_size=1, max_overflow=0) as engine:
            before = await pid_of(engine)
            with pytest.raises(TimeoutError):
                async with new.timeout(0.2):
                    try:
                        async with new.timeout(10):
                            await hang(engine)
                    except TimeoutError:
                        pytest.fail("the inner one has it")
            with pytest.raises(TimeoutError):
                async with new.timeout(10):
                    async with new.timeout(0.2):
                        await hang(engine)
            assert await pid_of(engine) == before

    run(main())


@needs_refusal
def test_deadline_costs_no_connection(run, new_async_engine):
    async def main():
        async with new_async_engine(pool_size=1, max_overflow=0) as engine:
            before = await pid_of(engine)
            with pytest.raises(OperationalError) as caught, greenwait.timeout(0.2):
                await hang(engine)
            assert isinstance(caught.value.orig, greenwait.QueryTimeout)
            assert await pid_of(engine) == before

    run(main())


@needs_refusal
def test_task_that_goes_on_after_its_cancellation_uses_the_same_connection(run, new_async_engine):
    async def main():
        async def stubborn():
            async with engine.connect() as conn:
                before = await conn.scalar(text("select pg_backend_pid()"))
                is_asleep.set()
                with pytest.raises(asyncio.CancelledError):
                    await conn.execute(text("select pg_sleep(20)"))
                await conn.rollback()
                assert await conn.scalar(text("select pg_backend_pid()")) == before

        async with new_async_engine(pool_size=1, max_overflow=0) as engine:
            is_asleep = asyncio.Event()
            task = asyncio.ensure_future(stubborn())
            await is_asleep.wait()
            task.cancel()
            await task

    run(main())


@needs_refusal
def test_cancellation_of_a_rollback_is_raised_and_costs_no_connection(run, new_async_engine):
    """Whatever moment it strikes; the rollback itself is not interrupted."""

    async def main():
        async def work():
            async with engine.connect() as conn:
                await conn.execute(text("select 1"))
            await asyncio.sleep(0)
            ended.append(True)

        ended = []
        async with new_async_engine(pool_size=1, max_overflow=0) as engine:
            before = await pid_of(engine)
            cancelled = 0
            for number in range(300):
                ended.clear()
                task = asyncio.ensure_future(work())
                for _ in range(number % 15):
                    await asyncio.sleep(0)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
                cancelled += task.cancelled()
                assert task.cancelled() or ended
            assert cancelled > 100
            assert await pid_of(engine) == before

    run(main())


@needs_refusal
@needs_timeout
def test_timeout_that_expires_in_a_rollback_is_raised_in_its_block(run, new_async_engine):
    async def main():
        def expire(limit, turns):
            if turns > 0:
                loop.call_soon(expire, limit, turns - 1)
            elif limit is not None:
                limit.reschedule(0)

        async def work(turns):
            limit = None
            try:
                async with new.timeout(None) as limit:
                    conn = await engine.connect()
                    await conn.execute(text("select 1"))
                    expire(limit, turns)
                    try:
                        await conn.rollback()
                    finally:
                        await conn.close()
                    ended = "in time"
                    while not limit.expired():
                        await asyncio.sleep(0)
            except TimeoutError:
                ended = "late"
            await asyncio.sleep(0)  # a cancellation that is left is raised here
            return ended

        loop = asyncio.get_running_loop()
        async with new_async_engine(pool_size=1, max_overflow=0) as engine:
            before = await pid_of(engine)
            for turns in range(60):
                assert await asyncio.create_task(work(turns % 6)) == "late"
            assert await pid_of(engine) == before

    run(main())


@needs_refusal
def test_deadline_that_passes_as_the_answer_arrives_keeps_that(run, new_async_engine):
    async def main():
        async with new_async_engine() as engine, engine.connect() as conn:
            await conn.execution_options(isolation_level="AUTOCOMMIT")
            for number in range(600):
                limit = greenwait.timeout(0.00005 * (number % 12))
                with contextlib.suppress(OperationalError), limit:  # AwaitRequired is not one
                    assert await conn.scalar(text("select 1")) == 1

    run(main())


@needs_refusal
def test_interrupt_of_a_rollback_comes_before_what_a_hook_awaits(run, new_async_engine):
    async def main():
        async def never():
            awaited.append(True)

        def work(conn):
            conn.execute(text("select 1"))
            task.cancel()
            conn.rollback()
            try:
                conn.connection.run_async(lambda _: never())
            except asyncio.CancelledError:
                conn.execute(text("select 1"))
                return "cancelled"
            return "not"

        async def run_work():
            async with engine.connect() as conn:
                return await conn.run_sync(work)

        awaited = []
        async with new_async_engine(pool_size=1, max_overflow=0) as engine:
            task = asyncio.ensure_future(run_work())
            assert await task == "cancelled"
            assert not awaited

    run(main())


@needs_refusal
def test_cancelled_two_phase_transaction_is_not_left_prepared(run, new_async_engine):
    async def main():
        def work(conn):
            transaction = conn.begin_twophase("greenwait")
            conn.execute(text("select 1"))
            try:
                transaction.prepare()
                steps.append("prepared")
                transaction.commit()
            except BaseException:
                transaction.rollback()
                raise

        async def run_work():
            async with engine.connect() as conn:
                await conn.run_sync(work)

        steps = []
        async with new_async_engine(pool_size=1, max_overflow=0) as engine:
            for turns in range(60):
                task = asyncio.ensure_future(run_work())
                for _ in range(turns % 20):
                    await asyncio.sleep(0)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
                async with engine.connect() as conn:
                    query = text("select count(*) from pg_prepared_xacts where gid = 'greenwait'")
                    assert await conn.scalar(query) == 0
            assert 0 < len(steps) < 60

    run(main())


@needs_refusal
@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")
def test_event_loop_is_closed_while_cancelled_queries_end(arguments):
    """Their tasks are lost, and so is the cancellation; closing it does not raise that."""

    async def hang_for_ever():
        conn = await engine.connect()
        await conn.execute(text("select pg_sleep(20)"))

    set_wait_callback(PATIENT)
    engine = create_async_engine("postgresql+greenwait_async://", pool_size=2, **arguments)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)  # tasks that are destroyed
    tasks = [loop.create_task(hang_for_ever()) for _ in range(2)]
    loop.run_until_complete(asyncio.sleep(0.3))
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    del task, tasks
    gc.collect()
    assert checked_out(engine) == 0
    runner("asyncio")(engine.dispose())


@needs_refusal
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_scope_of_anyio_that_cancels_again_and_again_costs_no_connection(
    run, new_engine, new_async_engine, kind
):
    engine = new_engine(pool_size=1, max_overflow=0)

    def work():
        with orm.Session(engine) as session:
            session.execute(text("select pg_sleep(20)"))

    async def work_async(async_engine):
        async with AsyncSession(async_engine) as session:
            await session.execute(text("select pg_sleep(20)"))

    async def main():
        async with new_async_engine(pool_size=1, max_overflow=0) as async_engine:

            async def pid():
                if kind == "async":
                    return await pid_of(async_engine)
                with engine.connect() as conn:
                    return conn.scalar(text("select pg_backend_pid()"))

            before = await pid()
            for _ in range(5):
                with anyio.move_on_after(0.1) as scope:
                    await (aio.run(work) if kind == "sync" else work_async(async_engine))
                assert scope.cancelled_caught
                assert checked_out(engine) == 0
                assert await pid() == before

    run(main())


def test_waiting_for_a_place_is_cancelled(run, new_async_engine):
    async def main():
        async with new_async_engine(pool_size=1, max_overflow=0) as engine:
            async with engine.connect():
                task = asyncio.ensure_future(pid_of(engine))
                await asyncio.sleep(0.05)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert await pid_of(engine)

    run(main())


@needs_refusal
def test_storm(run, new_async_engine):
    """600 tasks are cancelled at any moment: each transaction is whole or not there."""

    async def main():
        async with new_async_engine(pool_size=10, max_overflow=0) as engine:
            async with engine.begin() as conn:
                await conn.exec_driver_sql("drop table if exists greenwait_storm")
                await conn.exec_driver_sql("create table greenwait_storm (n int, half int)")

            async def save(number):
                async with AsyncSession(engine) as session, session.begin():
                    for half in (1, 2):
                        await session.execute(
                            text("insert into greenwait_storm values (:n, :half)"),
                            {"n": number, "half": half},
                        )
                        await session.execute(text("select pg_sleep(0.002)"))

            pids = set(await asyncio.gather(*[pid_with_sleep(engine) for _ in range(10)]))
            tasks = [asyncio.ensure_future(save(number)) for number in range(600)]
            for number, task in enumerate(tasks):
                if number % 3:
                    asyncio.get_running_loop().call_later(number * 0.0013, task.cancel)
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            wrong = [
                end
                for end in ends
                if end is not None and not isinstance(end, asyncio.CancelledError)
            ]
            assert wrong == []
            async with engine.connect() as conn:
                rows = await conn.exec_driver_sql(
                    "select n, count(*) from greenwait_storm group by n"
                )
                saved = dict(map(tuple, rows))
                assert set(saved.values()) == {2}
                assert {n for n, end in enumerate(ends) if end is None} <= set(saved)
            async with engine.begin() as conn:
                await conn.exec_driver_sql("drop table greenwait_storm")
            after = set(await asyncio.gather(*[pid_with_sleep(engine) for _ in range(10)]))
            assert len(pids & after) >= 9
            assert await running(engine) == 0

    run(main(), 50)


async def pid_with_sleep(engine):
    async with engine.connect() as conn:
        return await conn.scalar(text("select pg_backend_pid() from pg_sleep(0.2)"))


# -- Ends

#: A query that goes on where nobody listens.
UNHEARD = "select pg_sleep(19)"


@pytest.mark.parametrize("loop", LOOPS)
def test_closed_event_loop_closes_the_connection(arguments, loop):
    set_wait_callback(PATIENT)
    event_loop = LOOPS[loop]()
    engine = create_async_engine("postgresql+greenwait_async://", **arguments)
    kept: list[Any] = []

    async def work():
        conn = await engine.connect()
        raw = await conn.get_raw_connection()
        kept.extend([conn, raw.driver_connection])
        await conn.execute(text(UNHEARD))

    async def main():
        kept.append(asyncio.ensure_future(work()))
        await asyncio.sleep(0.3)

    event_loop.run_until_complete(main())
    event_loop.close()
    task, conn, raw = kept
    assert raw.closed
    assert not task.done()
    task._log_destroy_pending = False
    kept.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SQLAlchemy's: it would have liked to be told
        del task, conn
        greenwait.connect(**arguments["connect_args"]).close()  # till then the exception is kept
        gc.collect()
    assert "Current Checked out connections: 0" in engine.pool.status()
    runner(loop)(engine.dispose())


def test_destroyed_task_gives_its_place_back(run, new_async_engine):
    async def main():
        async with new_async_engine(pool_size=1, max_overflow=0) as engine:
            coroutine = hang(engine, UNHEARD)
            suspended = coroutine.send(None)  # by hand: no task
            while not hasattr(suspended, "cancel"):
                suspended = coroutine.send(None)
            coroutine.close()
            gc.collect()
            assert await pid_of(engine)

    run(main())
