"""What people expect of psycopg2 in an asyncio program, with greenwait's connection class."""

import asyncio

import psycopg2
import psycopg2.extensions
import psycopg2.extras

import greenwait.aio

psycopg2.extensions.set_wait_callback(greenwait.EpollWaitCallback)


def connect(dsn: str) -> greenwait.aio.AsyncConnection:
    return psycopg2.connect(dsn, connection_factory=greenwait.aio.AsyncConnection)


async def fetch_data() -> list[psycopg2.extras.RealDictRow]:
    conn = await asyncio.get_event_loop().run_in_executor(
        None, connect, "dbname=test user=postgres password=secret"
    )
    cursor = conn.cursor(cursor_factory=psycopg2.extras.RealDictCursor)
    await cursor.execute("SELECT * FROM users")
    rows: list[psycopg2.extras.RealDictRow] = await cursor.fetchall()
    await cursor.close()
    conn.close()
    return rows


async def main() -> None:
    print(await fetch_data())


loop = asyncio.get_event_loop()  # from Python 3.14 on, asyncio.run(main()) instead of these two
loop.run_until_complete(main())
