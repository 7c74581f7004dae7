"""psycopg2 in programs of anyio's, on both of its backends.

anyio's own cancel scopes cancel a task of asyncio's again and again, until it ends.
"""

import time
from typing import Any

import anyio
import psycopg2
import psycopg2.extensions
import pytest

import greenwait
import greenwait.aio
import greenwait.trio

RUN = {"asyncio": greenwait.aio.run, "trio": greenwait.trio.run}


@pytest.fixture(params=RUN)
def backend(request, callback):
    # A busy machine's server may need more than a second to end a query.
    patient = greenwait.WaitCallback(poller=getattr(callback, "poller", "poll"), cancel_grace=10)
    psycopg2.extensions.set_wait_callback(patient)
    return request.param


def ask(conn, query):
    with conn, conn.cursor() as cur:
        cur.execute(query)
        return cur.fetchone()[0]


def test_scope_that_ends_stops_the_query_and_leaves_a_usable_connection(backend, server, connect):
    run = RUN[backend]

    async def main():
        conn = await run(psycopg2.connect, server.dsn(server.transports[0]))
        for _ in range(3):
            with anyio.move_on_after(0.1) as scope:
                await run(ask, conn, "select pg_sleep(20)")
            assert scope.cancelled_caught
            assert await run(ask, conn, "select 42") == 42
        conn.close()
        return True

    began = time.monotonic()
    assert anyio.run(main, backend=backend)
    assert time.monotonic() - began < 10


def test_group_that_fails_stops_its_queries(backend, server, connect):
    run = RUN[backend]

    async def main():
        conns = [await run(psycopg2.connect, server.dsn(server.transports[0])) for _ in range(5)]
        try:
            async with anyio.create_task_group() as group:
                for conn in conns:
                    group.start_soon(run, ask, conn, "select pg_sleep(20)")
                await anyio.sleep(0.2)
                raise LookupError
        except Exception as exc:
            group_raised: Any = exc
            assert [type(each) for each in group_raised.exceptions] == [LookupError]
        for conn in conns:
            assert await run(ask, conn, "select 42") == 42
            conn.close()
        return True

    assert anyio.run(main, backend=backend)
