"""The same as fetch_data.py, as one would write it anew."""

import asyncio

import psycopg2.extras

import greenwait.aio

greenwait.install()


async def main() -> None:
    conn = await greenwait.aio.connect(
        "dbname=test user=postgres password=secret",
        cursor_factory=psycopg2.extras.RealDictCursor,
    )
    async with conn, conn.cursor() as cursor:
        await cursor.execute("SELECT * FROM users")
        print(await cursor.fetchall())
    await conn.close()


asyncio.run(main())
