"""Replication streams whose messages tasks await."""

import asyncio
import os

import psycopg2
import psycopg2.extras
import pytest

import greenwait
from greenwait import aio
from tests.lab.marks import needs_streams

pytestmark = needs_streams


class Stream:
    """A connection that streams, and one beside it that writes."""

    def __init__(self, dsn):
        self.dsn = dsn
        self.slot = f"aio_{os.getpid()}"

    async def __aenter__(self):
        self.conn = await aio.connect(
            self.dsn, connection_factory=aio.AsyncLogicalReplicationConnection
        )
        self.cur = self.conn.cursor()
        await self.cur.create_replication_slot(self.slot, output_plugin="test_decoding")
        await self.cur.start_replication(self.slot, decode=True)
        self.writer = await aio.connect(self.dsn)
        self.writer.autocommit = True
        return self

    async def emit(self, *words):
        async with self.writer.cursor() as cur:
            for word in words:
                await cur.execute("select pg_logical_emit_message(true, 'words', %s)", (word,))

    async def read(self, count):
        """Return the next *count* words."""
        found = []
        async for message in self.cur:
            if message.payload.startswith("message"):
                found.append(message.payload.rpartition("content:")[2])
                if len(found) == count:
                    break
        return found

    async def __aexit__(self, *exc_info):
        await self.conn.close()
        async with self.writer.cursor() as cur:
            await cur.execute(
                "select pg_terminate_backend(active_pid, 5000) from pg_replication_slots"
                " where slot_name = %s and active",
                (self.slot,),
            )
            await cur.execute("select pg_drop_replication_slot(%s)", (self.slot,))
        await self.writer.close()


def test_messages_are_iterated(run, dsn):
    async def main():
        async with Stream(dsn) as stream:
            await stream.emit("one", "two")
            assert await stream.read(2) == ["one", "two"]
            assert isinstance(stream.cur, greenwait.ReplicationCursor)
            assert isinstance(stream.conn, psycopg2.extras.LogicalReplicationConnection)

    run(main())


def test_cancellation_keeps_stream_and_messages(run, dsn):
    async def main():
        async with Stream(dsn) as stream:
            for number in range(20):
                reading = asyncio.create_task(stream.read(1))
                await asyncio.sleep(0.02)
                reading.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await reading
                await stream.emit(str(number))
                assert await stream.read(1) == [str(number)]

    run(main())


def test_cancellation_at_any_moment_loses_no_message(run, dsn):
    async def main():
        found = []

        async def read(stream):
            async for message in stream.cur:
                found.append(message.payload)

        async with Stream(dsn) as stream:
            writing = asyncio.create_task(stream.emit(*(str(number) for number in range(300))))
            delay = 0.0
            while len(found) < 900:
                reading = asyncio.create_task(read(stream))
                await asyncio.sleep(delay)
                delay = (delay + 0.0001) % 0.003
                reading.cancel()
                await asyncio.wait([reading])
            await writing
            words = [each.rpartition(":")[2] for each in found if each.startswith("message")]
            assert words == [str(number) for number in range(300)]

    run(main())


def test_deadline_ends_the_wait(run, dsn):
    async def main():
        async with Stream(dsn) as stream:
            with pytest.raises(greenwait.QueryTimeout), greenwait.timeout(0.1):
                await stream.read(1)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(stream.read(1), 0.1)
            await stream.emit("one")
            assert await stream.read(1) == ["one"]

    run(main())


@pytest.mark.parametrize("is_coroutine", [False, True])
def test_consumer_may_be_a_coroutine_function(run, dsn, is_coroutine):
    async def main():
        seen = []

        def consume(message):
            seen.append(message.payload.split()[0])
            if len(seen) == 3:
                raise psycopg2.extras.StopReplication

        async def consume_later(message):
            await asyncio.sleep(0)
            consume(message)

        async with Stream(dsn) as stream:
            await stream.emit("one")
            with pytest.raises(psycopg2.extras.StopReplication):
                await stream.cur.consume_stream(consume_later if is_coroutine else consume)
            assert seen == ["BEGIN", "message:", "COMMIT"]
            seen.clear()
            await stream.emit("two")
            with pytest.raises(psycopg2.extras.StopReplication):
                await aio.run(stream.cur.consume_stream, consume)

    run(main())


def test_methods_are_awaited(run, dsn):
    async def main():
        async with Stream(dsn) as stream:
            cur = stream.cur
            assert await cur.read_message() is None
            await cur.send_feedback(reply=True)
            with pytest.raises(TypeError, match="async for message"):
                next(cur)
            await cur.stop_replication()
            await cur.execute("IDENTIFY_SYSTEM")
            assert len([row async for row in cur]) == 1
            await cur.start_replication(stream.slot, decode=True)
            await stream.emit("one")
            assert await stream.read(1) == ["one"]

    run(main())


def test_user_s_class_of_cursors_is_kept(run, dsn):
    class Own(psycopg2.extras.ReplicationCursor):
        def start_replication_expert(self, command, decode=False, status_interval=10):
            self.started = command
            super().start_replication_expert(command, decode, status_interval)

    async def main():
        async with Stream(dsn) as stream:
            await stream.cur.stop_replication()
            cur = stream.conn.cursor(cursor_factory=Own)
            await cur.start_replication(stream.slot, decode=True)
            assert cur.started.startswith("START_REPLICATION SLOT")
            await stream.emit("one")
            async for message in cur:
                assert message.payload.startswith("BEGIN")
                break

    run(main())


def test_event_loop_goes_on_while_messages_never_pause(run, dsn):
    async def main():
        async with Stream(dsn) as stream:
            async with stream.writer.cursor() as cur:
                await cur.execute(
                    "select count(pg_logical_emit_message(true, 'words', g::text))"
                    " from generate_series(1, 20000) g"
                )
            stops = []

            async def count():
                loop = asyncio.get_running_loop()
                while True:
                    began = loop.time()
                    await asyncio.sleep(0)
                    stops.append(loop.time() - began)

            counting = asyncio.create_task(count())
            assert len(await stream.read(20000)) == 20000
            counting.cancel()
            assert len(stops) > 20

    run(main())


def test_closed_connection_ends_the_wait(run, dsn):
    async def main():
        async with Stream(dsn) as stream:
            reading = asyncio.create_task(stream.read(1))
            await asyncio.sleep(0.1)
            await stream.conn.close()
            with pytest.raises(psycopg2.Error):
                await reading

    run(main())


def test_what_psycopg2_takes_away_is_missing(run, dsn):
    async def main():
        async with Stream(dsn) as stream:
            for name in ("autocommit", "isolation_level", "set_session", "reset"):
                with pytest.raises(AttributeError):
                    getattr(stream.conn, name)

    run(main())
