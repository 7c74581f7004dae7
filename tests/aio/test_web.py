"""A web application whose clients hang up: its queries stop, its pool keeps its connections.

The server cancels what it does for such a client by a cancel scope of anyio's, which cancels again
and again, through middleware too.
"""

import asyncio
import contextlib
import gc
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import anyio
import psycopg2.extensions
import pytest

import greenwait
from greenwait import aio
from tests.lab.bounds import bound
from tests.lab.marks import needs_refusal

# Not there with a CPython that is newer than FastAPI's pydantic.
pytest.importorskip("fastapi")
uvicorn = pytest.importorskip("uvicorn")

CLIENTS = 100
AT_ONCE = 10


def application(pool: Any, middleware: str, ended: Counter[str]) -> Any:
    """Return it; it counts in *ended* what its queries have come to."""
    from fastapi import Depends, FastAPI, Request
    from fastapi.responses import StreamingResponse

    app = FastAPI()

    if middleware == "http":

        @app.middleware("http")
        async def add_header(request: Request, call_next: Any) -> Any:
            response = await call_next(request)
            response.headers["X-Answered"] = "yes"
            return response

    async def connection() -> Any:
        async with pool.connection() as conn:
            yield conn

    async def query(conn: Any, seconds: float) -> Any:
        async with conn.cursor() as cur:
            try:
                await cur.execute("select 42 from pg_sleep(%s)", (seconds,))
            except BaseException as exc:
                cancelled = isinstance(exc, asyncio.CancelledError) and not conn.closed
                ended["cancelled" if cancelled else repr(exc)] += 1
                raise
            ended["answered"] += 1
            return await cur.fetchone()

    async def until_hung_up(request: Request, work: Any) -> Any:
        """Return what *work* returns, or None: the client is gone. As FastAPI's users write it."""
        result = None
        async with anyio.create_task_group() as group:

            async def watch() -> None:
                while (await request.receive())["type"] != "http.disconnect":
                    pass
                group.cancel_scope.cancel()

            group.start_soon(watch)
            result = await work()
            group.cancel_scope.cancel()
        return result

    @app.get("/dependency")
    async def with_dependency(
        request: Request,
        seconds: float,
        conn: Any = Depends(connection),  # noqa: B008, FastAPI's way
    ) -> Any:
        return await until_hung_up(request, lambda: query(conn, seconds))

    @app.get("/block")
    async def with_block(request: Request, seconds: float) -> Any:
        async def work() -> Any:
            async with pool.connection() as conn:
                return await query(conn, seconds)

        return await until_hung_up(request, work)

    @app.get("/stream")
    async def stream(seconds: float) -> Any:
        async def rows() -> AsyncIterator[str]:
            async with pool.connection() as conn:
                yield "begun\n"
                yield repr(await query(conn, seconds))

        return StreamingResponse(rows())

    return app


@contextlib.asynccontextmanager
async def serving(app):
    """Have uvicorn serve it; the block gets the port."""
    config = uvicorn.Config(app, port=0, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    task = asyncio.ensure_future(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


async def get(port, path):
    """Ask for it, and return the reader and the writer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    await writer.drain()
    return reader, writer


@needs_refusal
@pytest.mark.parametrize("path", ["/dependency", "/block", "/stream"])
@pytest.mark.parametrize("middleware", ["none", "http"])
def test_clients_that_hang_up_cost_no_connection(run, server, path, middleware):
    dsn = server.dsn(server.transports[0])

    ended = Counter()

    async def main():
        # However busy the machine is, the server ends each query in time.
        psycopg2.extensions.set_wait_callback(greenwait.WaitCallback(cancel_grace=20))
        async with await aio.create_pool(dsn, max_size=AT_ONCE) as pool:
            in_line = asyncio.Semaphore(AT_ONCE)

            async def hang_up(number):
                async with in_line:
                    _, writer = await get(port, f"{path}?seconds=20")
                    await asyncio.sleep(0.05 + number % 7 / 100)
                    writer.close()
                    await writer.wait_closed()

            async with serving(application(pool, middleware, ended)) as port:
                number = 0
                while ended["cancelled"] < CLIENTS:  # some hang up before their query has begun
                    await asyncio.gather(*[hang_up(number + each) for each in range(AT_ONCE)])
                    number += AT_ONCE
                    assert number < 20 * CLIENTS, ended
                give_up = time.monotonic() + bound(10)
                while pool.stats().in_use:
                    assert time.monotonic() < give_up
                    # Nobody closes a stream whose client hung up before its query, but this.
                    gc.collect()
                    await asyncio.sleep(0.01)
                reader, writer = await get(port, f"{path}?seconds=0")
                assert b"42" in await reader.read()
                writer.close()
            assert ended["cancelled"] >= CLIENTS
            assert ended == {"cancelled": ended["cancelled"], "answered": 1}
            assert pool.stats().discarded == 0, ended
            assert pool.stats().made <= AT_ONCE

    run(main(), 55)
