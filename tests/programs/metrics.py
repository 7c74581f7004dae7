"""What OpenTelemetry is told of pools and of the process, in one of the cases: ``DSN CASE``."""

import asyncio
import contextlib
import gc
import os
import sys
import threading
import time
import weakref
from typing import Any

from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

import greenwait
from greenwait.opentelemetry import instrument

DSN, CASE = sys.argv[-2:]
READER = InMemoryMetricReader()
PROVIDER = MeterProvider([READER])


def found(reader=READER):
    """Return the data points by name: the values, or for a histogram its count and its sum."""
    data: Any = reader.get_metrics_data()
    points = {}
    for resource in data.resource_metrics if data else ():
        for metric in (each for scope in resource.scope_metrics for each in scope.metrics):
            assert metric.unit
            for point in metric.data.data_points:
                attributes = dict(point.attributes)
                pool = attributes.pop("db.client.connection.pool.name", None)
                key = (metric.name.removeprefix("db.client.connection."), pool)
                key += tuple(attributes.values())
                value = (point.count, point.sum) if hasattr(point, "count") else point.value
                points[key] = value
    return points


def job(pool, seconds=0.1):
    with pool.connection() as conn, conn.cursor() as cur:
        cur.execute("select pg_sleep(%s)", (seconds,))


def pools_that_nobody_reads():
    """With the API alone: what was counted of a pool goes when the next is instrumented."""
    for _ in range(20):
        pool = greenwait.Pool(DSN)
        job(pool, 0)
        instrument(pool)
        pool.close()
        del pool
    instrument(greenwait.Pool(DSN))
    gc.collect()
    counted = [each for each in gc.get_objects() if type(each).__name__ == "_WatchedPool"]
    assert len(counted) <= 1, counted


def a_pool():
    pool = greenwait.Pool(DSN, min_size=1, max_size=2)
    instrument(pool, name="a", meter_provider=PROVIDER)
    threads = [threading.Thread(target=job, args=(pool, 1)) for _ in range(3)]
    for each in threads:
        each.start()
    while (pool.stats().in_use, pool.stats().waiting) != (2, 1):
        time.sleep(0.01)
    now = found()
    assert now["count", "a", "used"] == 2
    assert now["count", "a", "idle"] == 0
    assert now["pending_requests", "a"] == 1
    assert (now["max", "a"], now["idle.max", "a"], now["idle.min", "a"]) == (2, 2, 1)
    assert now["timeouts", "a"] == 0
    with contextlib.suppress(greenwait.PoolTimeout):
        pool.getconn(timeout=0)
    for each in threads:
        each.join()
    now = found()
    assert now["timeouts", "a"] == 1
    assert now["count", "a", "idle"] == 2
    for name, count, least, most in (
        ("wait_time", 3, 0.5, 20),
        ("use_time", 3, 2.9, 20),
        ("create_time", 1, 0.0001, 20),  # the first one was made before
    ):
        assert now[name, "a"][0] == count, (name, now)
        assert least < now[name, "a"][1] < most, (name, now)
    assert found()["use_time", "a"][0] == 3
    for conn in (pool.getconn(), pool.getconn()):
        pool.putconn(conn, close=True)
    assert found()["greenwait.pool.discarded", "a"] == 2
    assert found()["use_time", "a"][0] == 5


def an_async_pool():
    from greenwait import aio

    async def job(pool):
        async with pool.connection() as conn, conn.cursor() as cur:
            await cur.execute("select pg_sleep(0.3)")

    async def main():
        async with aio.create_pool(DSN, max_size=1) as pool:
            with instrument(pool, name="a", meter_provider=PROVIDER):
                await asyncio.gather(*[job(pool) for _ in range(3)])
                now = found()
                assert now["wait_time", "a"][0] == 3
                assert 0.8 < now["use_time", "a"][1] < 20, now
                conn = await pool.getconn()
                assert found()["count", "a", "used"] == 1
                await pool.putconn(conn)

    greenwait.install()
    asyncio.run(main())


def a_pool_in_a_hub():
    greenwait.install()
    pool = greenwait.Pool(DSN, max_size=2)
    instrument(pool, name="a", meter_provider=PROVIDER)
    list(greenwait.map(lambda _: job(pool), range(6)))
    now = found()
    assert now["wait_time", "a"][0] == now["use_time", "a"][0] == 6
    assert now["create_time", "a"][0] == 2


def a_threaded_pool():
    pool = greenwait.ThreadedConnectionPool(0, 1, DSN)
    instrument(pool, name="a", meter_provider=PROVIDER)
    conn = pool.getconn()
    assert found()["count", "a", "used"] == 1
    pool.putconn(conn)
    assert found()["use_time", "a"][0] == 1
    pool.getconn()
    pool.closeall()
    now = found()
    assert now["use_time", "a"][0] == 2
    assert ("count", "a", "used") not in now


def the_process():
    greenwait.install()
    conn = greenwait.connect(DSN)
    greenwait.stats(reset=True)
    with instrument(meter_provider=PROVIDER):
        try:
            with greenwait.timeout(0.3):
                conn.cursor().execute("select pg_sleep(20)")
        except greenwait.QueryTimeout:
            pass
        now = found()
        waits = now["greenwait.waits", None]
        assert waits == greenwait.stats().waits > 1
        assert now["greenwait.sleeps", None] >= 1
        assert 0.1 < now["greenwait.sleep_time", None] < 20
        assert now["greenwait.cancels", None] >= 1
        assert now["greenwait.deadlines", None] == 1
        greenwait.stats(reset=True)
        conn.rollback()
        assert found()["greenwait.waits", None] == waits + 1
    assert ("greenwait.waits", None) not in found()


def pools_that_end():
    pools = [greenwait.Pool(DSN) for _ in range(3)]
    handles = [
        instrument(pool, name=name, meter_provider=PROVIDER)
        for pool, name in zip(pools, "abc", strict=True)
    ]
    for pool in pools:
        job(pool, 0)
    dead = weakref.ref(pools[0])
    del pools[0], pool
    gc.collect()
    assert dead() is None
    pools[0].close()
    handles[2].close()
    handles[2].close()
    now = found()
    for name in "abc":
        assert now["use_time", name][0] == 1
        assert ("count", name, "idle") not in now
    with instrument(pools[1], name="d", meter_provider=PROVIDER):
        assert ("count", "d", "idle") in found()
    try:
        handles[0].close()
        instrument(pools[1], meter_provider=PROVIDER)
        instrument(pools[1], meter_provider=PROVIDER)
    except ValueError as exc:
        assert "instrumented already" in str(exc)
    else:
        raise AssertionError


def names():
    own = greenwait.Pool(host="h", port=6, dbname="d", password="secret", user="u")
    pools = [own, greenwait.Pool("host=h port=6 dbname=d")]
    handles = [instrument(pool, meter_provider=PROVIDER) for pool in pools]
    assert [each.name for each in handles] == ["h:6/d", "h:6/d#2"]
    assert "secret" not in str(found())
    for wrong in ("pool", greenwait.Pool, 1):
        try:
            instrument(wrong)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        except TypeError as exc:
            assert "takes a greenwait.Pool" in str(exc)
        else:
            raise AssertionError


def a_provider_that_is_set_later():
    pool, other = greenwait.Pool(DSN), greenwait.Pool(DSN)
    instrument(pool, name="a")
    metrics.set_meter_provider(PROVIDER)
    instrument(other, name="b", meter_provider=PROVIDER)
    third = greenwait.Pool(DSN)
    instrument(third, name="c")
    for each in (pool, other, third):
        job(each, 0)
    now = found()
    for name in "abc":
        assert now["use_time", name][0] == 1
        assert now["count", name, "idle"] == 1


def two_providers():
    reader = InMemoryMetricReader()
    pool, other = greenwait.Pool(DSN), greenwait.Pool(DSN)
    instrument(pool, name="a", meter_provider=PROVIDER)
    instrument(other, name="b", meter_provider=MeterProvider([reader]))
    job(pool, 0)
    assert [key for key in found() if key[1] == "b"] == []
    assert [key for key in found(reader) if key[1] == "a"] == []
    assert found(reader)["max", "b"] == 10


def a_fork():
    pool = greenwait.Pool(DSN, max_size=1)
    instrument(pool, name="a", meter_provider=PROVIDER)
    job(pool, 0)
    conn = pool.getconn()
    with contextlib.suppress(greenwait.PoolTimeout):
        pool.getconn(timeout=0)
    child = os.fork()
    if child == 0:
        try:
            now = found()
            assert ("use_time", "a") not in now, now
            assert now["timeouts", "a"] == 0, now
            assert now["greenwait.waits", None] == 0, now
            assert now["count", "a", "used"] == 0, now
            job(pool, 0)
            assert found()["use_time", "a"][0] == 1
        except BaseException as exc:
            print(repr(exc), flush=True)
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    pool.putconn(conn)
    assert found()["use_time", "a"][0] == 2
    assert found()["timeouts", "a"] == 1


if __name__ == "__main__":
    globals()[CASE]()
    print("well")
