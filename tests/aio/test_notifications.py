"""LISTEN and NOTIFY on an event loop: in order, and none is lost."""

import asyncio
import contextlib
import itertools
import random
import time

import pytest

import greenwait
from greenwait import aio
from tests.lab.event_loops import one


async def listen_until(last, conn):
    """Return the payloads that come, up to this one."""
    found = []
    async with contextlib.aclosing(aio.notifies(conn, timeout=20)) as notifications:
        async for notification in notifications:
            found.append(notification.payload)
            if found[-1] == last:
                return found
    raise AssertionError(found)


def test_notifications_in_order_and_none_lost(run, dsn, connect):
    sender = connect()
    sender.autocommit = True

    def send(*payloads):
        with sender.cursor() as cur:
            for payload in payloads:
                cur.execute("select pg_notify('aio', %s)", (str(payload),))

    async def main():
        conn = await aio.connect(dsn)
        conn.autocommit = True
        async with conn.cursor() as cur:
            await cur.execute("listen aio")
        send(1, 2)
        assert await listen_until("2", conn) == ["1", "2"]
        began = time.monotonic()
        assert [n.payload async for n in aio.notifies(conn, timeout=0.2)] == []
        assert 0.2 <= time.monotonic() - began < 10
        send(3)
        assert [n.payload async for n in aio.notifies(conn, timeout=0)] in (["3"], [])
        send(4, 5)
        found = []
        for _ in range(200):

            async def listen():
                async for notify in aio.notifies(conn):
                    found.append(notify.payload)

            task = asyncio.create_task(listen())
            await asyncio.sleep(0.001)
            send(len(found))
            await asyncio.sleep(random.random() * 0.002)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        send("last")
        found += await listen_until("last", conn)
        assert len(found) >= 203
        assert await one(conn, "select 42") == 42
        conn.close()

    run(main())


def test_tasks_that_wait_for_one_connection_s_notifications(run, dsn, connect):
    """Both hear of one that only one of them gets; the other one goes on listening."""
    sender = connect()
    sender.autocommit = True

    async def main():
        conn = await aio.connect(dsn)
        conn.autocommit = True
        async with conn.cursor() as cur:
            await cur.execute("listen pair")
        for number in range(30):
            tasks = [asyncio.create_task(listen_until("last", conn)) for _ in range(2)]
            for payload in (str(number), "last", "last"):
                await asyncio.sleep(0.002)
                sender.cursor().execute("select pg_notify('pair', %s)", (payload,))
                time.sleep(0.012)  # so long that both are due when the event loop looks
            found = [each for found in await asyncio.gather(*tasks) for each in found]
            assert sorted(found) == [str(number), "last", "last"]
        conn.close()

    run(main())


def test_no_notification_is_lost_by_a_task_that_is_cancelled_just_then(run, dsn, connect):
    """Two listeners are woken in the same turn; whichever is first cancels the other."""
    sender = connect()
    sender.autocommit = True
    rounds = 100

    async def main():
        conns = [await aio.connect(dsn) for _ in range(2)]
        found = [[], []]
        for conn in conns:
            conn.autocommit = True
            async with conn.cursor() as cur:
                await cur.execute("listen couple")

        async def listen(which):
            async for notify in aio.notifies(conns[which]):
                found[which].append(notify.payload)
                tasks[1 - which].cancel()
                return

        for number in range(rounds):
            tasks = [asyncio.create_task(listen(which)) for which in range(2)]
            await asyncio.sleep(0)
            with sender.cursor() as cur:
                cur.execute("select pg_notify('couple', %s)", (str(number),))
            time.sleep(0.002)  # both have it before the loop looks
            await asyncio.gather(*tasks, return_exceptions=True)
        sender.cursor().execute("notify couple, 'last'")
        for which in range(2):
            found[which] += await listen_until("last", conns[which])
            assert found[which] == [*[str(number) for number in range(rounds)], "last"]
            conns[which].close()

    run(main())


@pytest.mark.parametrize("context", ["thread", "hub"])
def test_notifications_in_synchronous_code(callback, connect, context):
    conn, sender = connect(), connect()
    conn.autocommit = sender.autocommit = True
    conn.cursor().execute("listen plain")

    def send():
        for number in range(3):
            time.sleep(0)
            sender.cursor().execute("select pg_notify('plain', %s)", (str(number),))

    def listen():
        found = itertools.islice(greenwait.notifies(conn, timeout=20), 3)
        return [notify.payload for notify in found]

    if context == "hub":
        assert greenwait.gather(listen, send)[0] == ["0", "1", "2"]
    else:
        send()
        assert listen() == ["0", "1", "2"]
    assert list(greenwait.notifies(conn, timeout=0)) == []
    with pytest.raises(greenwait.QueryTimeout), greenwait.timeout(0.05):
        list(greenwait.notifies(conn, timeout=20))
