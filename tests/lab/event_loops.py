"""Run a coroutine to its end, on each kind of event loop, and let nothing pass unnoticed."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import psycopg2
import psycopg2.extensions
import uvloop

import greenwait
from tests.lab.bounds import bound

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


#: For tests that are not about the grace. A busy machine's server ends a query within this one,
#: unless nobody has cancelled it: theirs take 20 s. The poller is not used on an event loop.
PATIENT = greenwait.WaitCallback(cancel_grace=bound(10))


def runner(name: str) -> Callable[..., Any]:
    """Return a function that runs a coroutine on that event loop, with greenwait's callback."""
    psycopg2.extensions.set_wait_callback(PATIENT)

    def run(coroutine: Coroutine[Any, Any, Any], seconds: float = 30) -> Any:
        loop = LOOPS[name]()
        complaints: list[Any] = []
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        try:
            return loop.run_until_complete(asyncio.wait_for(coroutine, bound(seconds)))
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
            left = asyncio.all_tasks(loop)
            loop.close()
            assert not left
            assert not complaints

    return run


def ask(dsn, query, *parameters):
    """Be ordinary synchronous code."""
    conn = psycopg2.connect(dsn)
    try:
        with conn, conn.cursor() as cur:
            cur.execute(query, parameters)
            return cur.fetchall()[0][0]
    finally:
        conn.close()


async def one(conn, query, *parameters):
    """Return the only value that *query* has."""
    async with conn.cursor() as cur:
        await cur.execute(query, parameters or None)
        ((value,),) = await cur.fetchall()
        return value
