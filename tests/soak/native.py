"""The jobs that await: what the synchronous ones do, with asyncio's own classes."""

import contextlib

import psycopg2
from psycopg2.extensions import QueryCanceledError

import greenwait
from greenwait import aio
from tests.lab.event_loops import one
from tests.soak.jobs import Job
from tests.soak.operations import ACCOUNTS, LOCK_TIMEOUT, Committing


async def numbers(job, conn):
    for number in range(job.rng.randrange(10)):
        assert await one(conn, "select %s + 1", number) == number + 1


async def rows(job, conn):
    count = job.rng.randrange(5000)
    async with conn.cursor() as cur:
        await cur.execute("select generate_series(1, %s)", (count,))
        assert [row[0] async for row in cur] == list(range(1, count + 1))


async def text_both_ways(job, conn):
    text = "äb" * job.rng.randrange(200_000)
    assert await one(conn, "select %s", text) == text


async def named_cursor(job, conn):
    count = job.rng.randrange(1000)
    async with conn.cursor("soak") as cur:
        cur.itersize = 100
        await cur.execute("select generate_series(1, %s)", (count,))
        assert [row[0] async for row in cur] == list(range(1, count + 1))


async def notices(job, conn):
    text = f"notice {job.rng.random()}"
    count = job.rng.randrange(1, 20)
    query = f"do $$begin for i in 1..{count} loop raise notice '{text}'; end loop; end$$; select 1"
    await one(conn, query)
    assert sum(text in notice for notice in conn.notices) == count, conn.notices
    del conn.notices[:]


async def notify(job, conn):
    payload = str(job.rng.random())
    await one(conn, "listen soak; select 1")
    await conn.commit()
    await one(conn, "select pg_notify('soak', %s)", payload)
    await conn.commit()
    async for notification in aio.notifies(conn):
        if notification.payload == payload:
            break
    await one(conn, "unlisten *; select 1")


async def nap(job, conn):
    assert await one(conn, "select 5 from pg_sleep(%s)", job.rng.random() * 0.05) == 5


async def sleep_too_long(job, conn):
    try:
        with greenwait.timeout(job.rng.random() * 0.2):
            await one(conn, "select pg_sleep(%s)", job.long_time)
    except greenwait.QueryTimeout:
        job.count("cancelled by a deadline")
        await conn.rollback()
    else:
        raise AssertionError("the deadline was not kept")


async def transfer(job, conn):
    base = job.soak.index * ACCOUNTS
    first, second = sorted(job.rng.sample(range(ACCOUNTS), 2))
    tag = job.soak.new_tag()
    async with conn.cursor() as cur:
        await cur.execute(LOCK_TIMEOUT)
        try:
            for account, change in ((first, 1), (second, -1)):
                await cur.execute(
                    "update accounts set amount = amount + %s where number = %s",
                    (change, base + account),
                )
        except psycopg2.errors.LockNotAvailable:
            await conn.rollback()
            return
        await cur.execute("insert into ledger values (%s)", (tag,))
    with Committing(job.soak, tag):
        await conn.commit()


OPERATIONS = (
    numbers,
    rows,
    text_both_ways,
    named_cursor,
    notices,
    notify,
    nap,
    sleep_too_long,
    transfer,
)


class NativeJob(Job):
    """Such a job. Half of them borrow their connection, the others make one."""

    def __init__(self, soak, rng):
        super().__init__(soak, rng)
        self.is_native = True
        self.way = rng.choice(["pool", "new"])
        self.operations = rng.choices(OPERATIONS, k=rng.randint(1, 5))

    async def natively(self):
        """Run it; what interrupts it is raised on."""
        self.shakes = self.soak.board.shakes
        self.thrown = []
        try:
            async with self._lent() as conn:
                for operation in self.operations:
                    self.doing = f"await {operation.__name__}"
                    self.deadlines += operation is sleep_too_long
                    await self._await(operation, conn)
            self.doing = "nothing any more"
        except self.soak.context.interrupts as exc:
            self.count("interrupted")
            self.interruption = exc
            raise
        except BaseException as exc:
            self.exception = exc
        finally:
            self.is_over = True

    @contextlib.asynccontextmanager
    async def _lent(self):
        if self.way == "pool":
            async with self.soak.async_pool(self.is_sound).connection() as self.conn:
                with self._looked_at():
                    yield self.conn
            return
        self.conn = await aio.connect(self.soak.dsn(self.is_sound, self.rng))
        try:
            with self._looked_at():
                yield self.conn
        finally:
            self.conn.close()

    async def _await(self, operation, conn):
        try:
            await operation(self, conn)
            await conn.rollback()
        except QueryCanceledError as exc:
            if self.is_sound or isinstance(exc, greenwait.QueryTimeout):
                raise
            await conn.rollback()
            self.count("cancelled by another")
        else:
            self.count(f"await {operation.__name__}")
