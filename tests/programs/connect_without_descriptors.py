"""Connect where few descriptors are left: DSN plain|hub|asyncio [OPTION=VALUE ...]."""

import asyncio
import os
import resource
import sys
from typing import Any

import psycopg2

import greenwait
from greenwait import aio

dsn, context, *options = sys.argv[1:]
greenwait.install()
keywords: dict[str, Any] = dict(each.split("=") for each in options)


def try_to_connect(free):
    # The lowest number is given out first, so that so many are free.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(8)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (held[-1] + 1, hard))
    for each in held[len(held) - free :]:
        os.close(each)
    try:
        greenwait.connect(dsn, **keywords).close()
    except psycopg2.OperationalError as exc:
        return str(exc)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for each in held[: len(held) - free]:
            os.close(each)
    return "connected"


async def main(function, *arguments):
    return await aio.run(function, *arguments)


greenwait.connect(dsn).close()  # whatever is opened once, is
for free in (0, 1, 2, 3, 6):
    if context == "plain":
        found = try_to_connect(free)
    elif context == "hub":
        (found,) = greenwait.map(try_to_connect, [free])
    else:
        found = asyncio.run(main(try_to_connect, free))
    print(free, found.replace("\n", " "))
