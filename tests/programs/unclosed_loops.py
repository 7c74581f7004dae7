"""Event loops that nobody closes: DSN MODULE closed|freed|kept."""

import asyncio
import builtins
import gc
import importlib
import sys
import warnings

import greenwait
from greenwait import aio


async def main():
    conn = await aio.connect(sys.argv[1])
    await conn.cursor().execute("select 1")
    await conn.close()


warnings.simplefilter("ignore", ResourceWarning)
greenwait.install()
for _ in range(100):
    loop = importlib.import_module(sys.argv[2]).new_event_loop()
    loop.run_until_complete(main())
    if sys.argv[3] == "closed":
        loop.close()
    if sys.argv[3] == "kept":
        builtins.__dict__["kept"] = loop
    del loop
    gc.collect()
print(sum(isinstance(each, asyncio.AbstractEventLoop) for each in gc.get_objects()))
