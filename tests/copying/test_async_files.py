"""COPY of an ``AsyncCursor``: awaited, with asynchronous files and iterables in a file's place."""

import asyncio
import io
import time
from typing import Any

import psycopg2
import psycopg2.extensions
import pytest

import greenwait
import greenwait.aio
from tests.lab.event_loops import LOOPS, runner
from tests.lab.marks import needs_copy, needs_session

pytestmark = [needs_copy, needs_session]

LINES = [f"{number}\tx{number}\n" for number in range(2000)]
TEXT = "".join(LINES)
#: Its rows come as they are made.
ENDLESS = "copy (select generate_series(1, 1000000000)) to stdout"


@pytest.fixture(params=LOOPS)
def run(request, server):
    """Return a function that runs a coroutine function of a connection with a table."""
    run_coroutine = runner(request.param)

    async def with_table(function):
        conn = await greenwait.aio.connect(server.dsn(server.transports[0]))
        async with conn.cursor() as cur:
            await cur.execute("set jit = off; create temp table t (id int, data text)")
            await conn.commit()
            await function(conn, cur)
        await conn.close()

    return lambda function: run_coroutine(with_table(function))


async def text_of(cur):
    file = io.StringIO()
    await cur.copy_to(file, "t")
    return file.getvalue()


async def count(conn):
    await conn.rollback()
    async with conn.cursor() as cur:
        await cur.execute("select count(*) from t")
        return (await cur.fetchone())[0]


class AsyncFile:
    """An asynchronous file, of bytes or, with an encoding, of text."""

    def __init__(self, file, encoding=None):
        self.file, self.encoding = file, encoding

    async def read(self, size):
        await asyncio.sleep(0)
        return self.file.read(size)

    async def write(self, data):
        await asyncio.sleep(0)
        return self.file.write(data)


async def items(lines):
    for line in lines:
        await asyncio.sleep(0)
        yield line


SOURCES = {
    "file": lambda: io.StringIO(TEXT),
    "asynchronous file": lambda: AsyncFile(io.BytesIO(TEXT.encode())),
    "asynchronous text file": lambda: AsyncFile(io.StringIO(TEXT), "utf-8"),
    "list of str": lambda: LINES,
    "list with empty items": lambda: [*LINES[:7], "", b"", *LINES[7:]],
    "generator of bytes": lambda: (line.encode() for line in LINES),
    "asynchronous generator": lambda: items(LINES),
    "asynchronous generator of bytes": lambda: items([b"", *(line.encode() for line in LINES)]),
}


@pytest.mark.parametrize("source", SOURCES)
def test_sources(run, source):
    async def main(_conn, cur):
        await cur.copy_from(SOURCES[source](), "t")
        assert (cur.rowcount, cur.statusmessage) == (len(LINES), f"COPY {len(LINES)}")
        await cur.copy_expert("copy t from stdin", SOURCES[source]())
        await cur.copy_expert(sql="copy t from stdin", file=SOURCES[source]())
        # The table's pages are filled up in any order.
        assert sorted((await text_of(cur)).splitlines(True)) == sorted(LINES * 3)

    run(main)


@pytest.mark.parametrize(
    "make_file",
    [
        io.StringIO,
        io.BytesIO,
        lambda: AsyncFile(io.BytesIO()),
        lambda: AsyncFile(io.StringIO(), "utf-8"),
    ],
)
def test_sinks(run, make_file):
    async def main(_conn, cur):
        await cur.copy_from(LINES, "t")
        file = make_file()
        await cur.copy_to(file, "t")
        await cur.copy_expert("copy t to stdout", file)
        value = getattr(file, "file", file).getvalue()
        assert value == (TEXT * 2 if isinstance(value, str) else TEXT.encode() * 2)

    run(main)


@pytest.mark.parametrize("file", [12, "1\ta\n", b"1\ta\n", None])
def test_what_is_no_source(run, file):
    async def main(_conn, cur):
        with pytest.raises(TypeError):
            await cur.copy_from(file, "t")
        with pytest.raises(TypeError):
            await cur.copy_expert("copy t from stdin", file)

    run(main)


def test_asynchronous_generator_that_raises(run):
    failure = LookupError("of mine")

    async def failing():
        yield "1\ta\n"
        raise failure

    async def main(conn, cur):
        with pytest.raises(psycopg2.errors.QueryCanceled) as info:
            await cur.copy_from(failing(), "t")
        assert info.value.__cause__ is failure
        assert await count(conn) == 0

    run(main)


def test_cancelled_as_it_waits_for_the_file(run):
    async def waiting():
        yield "1\ta\n"
        await asyncio.sleep(20)

    async def main(conn, cur):
        task = asyncio.ensure_future(cur.copy_from(waiting(), "t"))
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await count(conn) == 0

    run(main)


def test_cancelled_in_a_long_copy(run):
    async def main(conn, cur):
        async def endless():
            while True:
                yield "1\ta\n" * 1000

        for copy in (
            lambda: cur.copy_from(endless(), "t"),
            lambda: cur.copy_expert(ENDLESS, Null()),
        ):
            task = asyncio.ensure_future(copy())
            await asyncio.sleep(0.3)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not conn.closed
            assert await count(conn) == 0

    run(main)


class Null:
    """A file that forgets."""

    def write(self, _row):
        pass


def test_deadline(run):
    async def main(conn, cur):
        async def slow():
            while True:
                yield "1\ta\n"
                await asyncio.sleep(0.05)

        with pytest.raises(greenwait.QueryTimeout), greenwait.timeout(0.4):
            await cur.copy_from(slow(), "t")
        assert await count(conn) == 0

    run(main)


class Hanging:
    """An asynchronous file whose methods do not return; *then*: what they do when cancelled."""

    def __init__(self, then=None):
        self.then, self.cancelled = then, 0

    async def hang(self, _):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            if self.then is None:
                raise
            return await self.then()

    read = write = hang


async def hang(_file=None):
    while True:
        yield "1\ta\n"
        await asyncio.Event().wait()


async def return_data():
    return b"1\ta\n"


async def fail():
    raise LookupError


async def take_a_while():
    await asyncio.sleep(0.2)
    raise asyncio.CancelledError


@pytest.mark.parametrize("statement", ["copy t from stdin", "copy (select 1) to stdout"])
@pytest.mark.parametrize("then", [None, return_data, fail, take_a_while])
def test_deadline_in_a_method_that_hangs(run, statement, then):
    async def main(conn, cur):
        file = Hanging(then)
        # What write() raises is raised itself.
        is_own = then is fail and "stdout" in statement
        expected = LookupError if is_own else greenwait.QueryTimeout
        began = time.monotonic()
        with pytest.raises(expected) as info, greenwait.timeout(0.3):
            await cur.copy_expert(statement, file)
        assert time.monotonic() - began < 10
        assert is_own or getattr(info.value, "pgcode", None) == "57014"
        assert file.cancelled == 1
        assert await count(conn) == 0

    run(main)


def test_deadline_of_the_callback_in_a_generator_that_hangs(run):
    async def main(conn, cur):
        with (
            greenwait.installed(timeout=0.3, cancel_grace=20),
            pytest.raises(greenwait.QueryTimeout),
        ):
            await cur.copy_from(hang(), "t")
        with greenwait.installed(cancel_grace=20):
            assert await count(conn) == 0

    run(main)


@pytest.mark.parametrize("statement", ["copy t from stdin", "copy (select 1) to stdout"])
def test_cancelled_as_the_deadline_ends_a_method_that_hangs(run, statement):
    """The cancellation outranks the deadline."""

    async def main(conn, cur):
        async def cancelled_meanwhile():
            task.cancel()
            await asyncio.sleep(20)

        async def copy():
            with greenwait.timeout(0.3):
                await cur.copy_expert(statement, Hanging(cancelled_meanwhile))

        task = asyncio.ensure_future(copy())
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await count(conn) == 0

    run(main)


def test_others_run_meanwhile(run):
    async def main(_conn, cur):
        longest = [0.0]

        async def tick():
            before = time.monotonic()
            while True:
                await asyncio.sleep(0)
                now = time.monotonic()
                longest.append(now - before)
                before = now

        ticking = asyncio.ensure_future(tick())
        await cur.copy_from(io.BytesIO(TEXT.encode() * 50), "t")
        await cur.copy_to(Null(), "t")
        ticking.cancel()
        assert len(longest) > 50
        assert sorted(longest)[-5] < 0.2  # this process may stand still, too

    run(main)


def test_class_of_the_program(run):
    class Own(psycopg2.extensions.cursor):
        def copy_expert(self, sql: Any, file, size=8192):
            return super().copy_expert(sql.replace("TABLE", "t"), file, size)

    async def main(conn, _cur):
        async with conn.cursor(cursor_factory=Own) as cur:
            await cur.copy_expert("copy TABLE from stdin", items(LINES))
            assert cur.rowcount == len(LINES)

    run(main)


def test_below_run_it_is_called(run):
    async def main(conn, _cur):
        def work():
            cur = conn.cursor()
            cur.copy_from(io.StringIO(TEXT), "t")
            return cur.rowcount

        assert await greenwait.aio.run(work) == len(LINES)

    run(main)
